"""The tanh-Gaussian is a density, and its parts agree with each other."""

from __future__ import annotations

import math

import pytest
import torch

from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.distributions import TanhGaussian, log_det_tanh
from ofrl_robot.specs import ActionSpec

ACTION = ActionSpec(("x", "y", "gripper"), ("m", "m", "1"), (0.1, 0.1, 1.0))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.0), (2.0, -0.5)])
def test_log_density_integrates_to_one(mean, log_std):
    z = torch.linspace(-14.0, 14.0, 200001, dtype=torch.float64)
    action = torch.tanh(z)  # dense where the density is steep
    keep = action.abs() < 1.0
    action = action[keep].unsqueeze(1)
    dist = TanhGaussian(torch.full_like(action, mean), torch.full_like(action, log_std))
    total = torch.trapezoid(dist.log_prob(action).exp(), action[:, 0])
    assert float(total) == pytest.approx(1.0, abs=1e-5)


def test_log_prob_of_a_sample_is_the_one_that_came_with_it():
    torch.manual_seed(0)
    mean, log_std = torch.randn(5, 3).double(), torch.randn(5, 3).double() * 0.3 - 0.5
    dist = TanhGaussian(mean, log_std)
    action, log_prob = dist.sample(4)
    assert action.shape == (5, 4, 3) and log_prob.shape == (5, 4)
    again = torch.stack([dist.log_prob(action[:, n]) for n in range(4)], 1)
    torch.testing.assert_close(again, log_prob, rtol=1e-8, atol=1e-8)


def test_samples_follow_mean_and_spread_of_their_own_row():
    torch.manual_seed(0)
    mean = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    log_std = torch.tensor([[-1.0, 0.2], [-0.3, -2.0]])
    z = torch.atanh(TanhGaussian(mean.double(), log_std.double()).sample(20000)[0])
    torch.testing.assert_close(z.mean(1).float(), mean, rtol=0, atol=0.04)
    torch.testing.assert_close(z.std(1).float(), log_std.exp(), rtol=0.04, atol=0)


def test_log_det_is_exact_and_finite_where_the_textbook_form_is_not():
    z = torch.linspace(-5.0, 5.0, 101, dtype=torch.float64)
    torch.testing.assert_close(log_det_tanh(z), torch.log(1.0 - torch.tanh(z) ** 2))
    far = torch.tensor([-40.0, 40.0])  # tanh is exactly 1 there in float32
    torch.testing.assert_close(log_det_tanh(far), 2.0 * (math.log(2.0) - far.abs()))


@pytest.fixture
def actor():
    torch.manual_seed(0)
    return Actor(NetConfig(hidden=(32,)), (24, 24, 3), ACTION)


def test_mode_is_the_limit_of_a_vanishing_spread(actor):
    dist = actor(torch.randint(0, 256, (4, 24, 24, 3), dtype=torch.uint8))
    narrow = TanhGaussian(dist.mean, torch.full_like(dist.log_std, -20.0))
    torch.testing.assert_close(narrow.sample(1)[0].squeeze(1), dist.mode, rtol=0, atol=1e-6)


def test_log_std_is_clamped_both_ways(actor):
    torch.nn.init.constant_(actor.head[-1].bias, 50.0)
    images = torch.zeros(1, 24, 24, 3, dtype=torch.uint8)
    assert (actor(images).log_std == 2.0).all()
    torch.nn.init.constant_(actor.head[-1].bias, -50.0)
    assert (actor(images).log_std == -5.0).all()


@pytest.mark.parametrize("path", ["log_prob", "sample", "mode"])
def test_gradient_reaches_every_parameter_of_the_encoder(actor, path):
    images = torch.randint(0, 256, (8, 24, 24, 3), dtype=torch.uint8)
    dist = actor(images)
    if path == "log_prob":
        dist.log_prob(torch.rand(8, 3) - 0.5).sum().backward()
    elif path == "sample":
        dist.sample(2)[0].square().sum().backward()
    else:
        (dist.mode - 0.3).square().sum().backward()
    for name, parameter in actor.encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
