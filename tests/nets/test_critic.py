"""The critic's short cuts equal the plain computation, in value and gradient (float64)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic, QHead

CONFIG = NetConfig(latent=12, hidden=(16, 8))
SHAPE, ACTIONS = (16, 16, 3), 3


def make(**settings):
    torch.manual_seed(0)
    return Critic(dataclasses.replace(CONFIG, **settings), SHAPE, ACTIONS)


def inputs(rows=4, count=6, dtype=torch.float64):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (rows,) + SHAPE, dtype=torch.uint8)
    return images, torch.rand(rows, count, ACTIONS, dtype=dtype) * 2 - 1


@pytest.mark.parametrize("encoders", ["shared", "separate"])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(
    "more", [{}, {"latent": 0}, {"resnet_enc": True}, {"hidden": (16,)}], ids=str
)
def test_encoding_once_equals_repeating_images_and_encoding_each(encoders, bottleneck, more):
    critic = make(n_critics=3, critic_encoders=encoders, bottleneck=bottleneck, **more)
    critic.double().eval()
    for encoder in critic.encoders:  # pixels arrive as float32
        encoder.trunk.register_forward_pre_hook(lambda _, pixels: pixels[0].double())
    images, actions = inputs()
    actions.requires_grad_(True)
    parameters = list(critic.parameters())
    weight = torch.randn(3, 4, 6, dtype=torch.float64)
    results = []
    for once in (True, False):
        if once:
            q, rate = critic.q_and_kl(critic.encode(images), actions)
        else:
            repeated = critic.encode(images.repeat_interleave(6, 0))
            q, rate = critic.q_and_kl(repeated, actions.reshape(24, 1, ACTIONS))
            q, rate = (None if x is None else x.reshape(3, 4, 6) for x in (q, rate))
        total = (q * weight).sum() if rate is None else ((q + 0.1 * rate) * weight).sum()
        gradients = torch.autograd.grad(total, parameters + [actions])
        results.append([q] + ([] if rate is None else [rate]) + list(gradients))
    assert results[0][0].dtype == torch.float64
    assert len(results[0]) == 1 + bottleneck + len(parameters) + 1
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)
    assert all(g.abs().max() > 1e-7 for g in results[0])


def test_split_first_layer_equals_concatenation_in_value_and_gradient():
    torch.manual_seed(0)
    head = QHead(CONFIG, 12, 3).double()
    joined = nn.Linear(12 + 3, 16).double()
    with torch.no_grad():
        joined.weight.copy_(torch.cat([head.from_code.weight, head.from_action.weight], 1))
        joined.bias.copy_(head.from_code.bias)
    code = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    actions = torch.randn(5, 7, 3, dtype=torch.float64, requires_grad=True)
    both = torch.cat([code.unsqueeze(1).expand(5, 7, 12), actions], -1)

    split_q, _ = head(head.from_code(code), actions)
    plain_q = head.rest(torch.relu(joined(both))).squeeze(-1)
    assert split_q.shape == (5, 7) and split_q.dtype == torch.float64
    torch.testing.assert_close(split_q, plain_q, rtol=1e-10, atol=1e-10)

    weight = torch.randn(5, 7, dtype=torch.float64)
    leaves = [code, actions]
    split = [head.from_code.weight, head.from_action.weight, head.from_code.bias]
    got = torch.autograd.grad((split_q * weight).sum(), leaves + split)
    wanted = torch.autograd.grad((plain_q * weight).sum(), leaves + [joined.weight, joined.bias])
    torch.testing.assert_close(got[:2], wanted[:2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.cat(got[2:4], 1), wanted[2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[4], wanted[3], rtol=1e-10, atol=1e-10)
    assert all(g.abs().max() > 1e-6 for g in got)


def test_members_of_the_ensemble_start_apart_and_near_zero():
    critic = make(latent=64, hidden=(256, 256))
    images, actions = inputs(dtype=torch.float32)
    q = critic.q(critic.encode(images), actions)
    assert (q[0] != q[1]).all() and q.abs().max() < 0.5 and q.dtype == torch.float32


@pytest.mark.parametrize("encoders", ["shared", "separate"])
def test_members_share_an_encoder_or_have_one_each(encoders):
    """A member's Q reaches no other head, and another's encoder only where there is one for all."""
    critic = make(n_critics=3, critic_encoders=encoders)
    images, actions = inputs(dtype=torch.float32)
    code = critic.encode(images)
    assert [tuple(part.shape) for part in code.parts] == [(4, 16)] * 3
    critic.q(code, actions)[1].sum().backward()
    for name, parameter in critic.named_parameters():
        kind, member = name.split(".")[:2]
        own = member == "1" or (kind == "encoders" and encoders == "shared")
        moved = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert moved == own, name
    assert len(critic.encoders) == (1 if encoders == "shared" else 3)


def test_separate_encoders_start_apart():
    first, second = make(critic_encoders="separate").features(inputs()[0])
    assert not torch.allclose(first, second)


def test_features_are_the_flat_trunk_before_the_code():
    critic = make(n_critics=2, critic_encoders="separate")
    images, _ = inputs()
    features = critic.features(images)
    assert features.shape == (2, 4, critic.encoders[0].features_size)
    pairs = zip(critic.project(features).parts, critic.encode(images).parts)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("more", [{}, {"resnet_enc": True}, {"hidden": (16,)}], ids=str)
def test_the_bottleneck_is_on_the_joint_code_whatever_the_encoder(more):
    """The released code drops it silently where the encoder is residual."""
    critic = make(bottleneck=True, bottleneck_size=5, **more)
    images, actions = inputs(dtype=torch.float32)
    code = critic.encode(images)
    torch.manual_seed(2)
    one, rate = critic.q_and_kl(code, actions)
    two, same_rate = critic.q_and_kl(code, actions)
    assert rate.shape == (2, 4, 6) and torch.equal(rate, same_rate)
    assert not torch.equal(one, two)  # sampled
    assert (rate.std(2) > 0).all() and (rate.std(1) > 0).all()  # of the action, of the image
    critic.eval()
    assert torch.equal(critic.q(code, actions), critic.q(code, actions))
    rest = critic.heads[0].rest
    assert any(isinstance(m, nn.ReLU) for m in rest), "Q is linear in the code"
    plain = make(**more)
    assert plain.q_and_kl(code, actions)[1] is None
    assert set(plain.state_dict()) < set(critic.state_dict())


@pytest.mark.parametrize(
    "settings",
    [{}, {"bottleneck_size": 3}, {"bottleneck": True, "bottleneck_place": "policy"}],
    ids=str,
)
def test_without_corrections_the_critic_is_the_plain_network(settings):
    """Bit for bit that of code which knows no correction, of the same random numbers."""
    torch.manual_seed(0)
    critic = Critic(dataclasses.replace(CONFIG, **settings), SHAPE, ACTIONS)
    state = torch.get_rng_state()
    images, actions = inputs(dtype=torch.float32)
    q = critic.q(critic.encode(images), actions)
    assert not any("Dropout" in type(m).__name__ for m in critic.modules())
    torch.manual_seed(0)
    encoder = critic.encoders[0]
    plain = type(encoder)(CONFIG, SHAPE)
    pixels = images.permute(0, 3, 1, 2).float().mul(1.0 / 255.0).sub(0.5)
    code = plain.project(plain.trunk(pixels).flatten(1))
    expected = []
    for _ in range(2):
        from_code, from_action = nn.Linear(12, 16), nn.Linear(ACTIONS, 16, bias=False)
        middle, last = nn.Linear(16, 8), nn.Linear(8, 1)
        nn.init.uniform_(last.weight, -3e-3, 3e-3)
        nn.init.zeros_(last.bias)
        x = from_code(code).unsqueeze(1) + from_action(actions)
        expected.append(last(middle(x.relu()).relu()).squeeze(-1))
    assert torch.equal(q, torch.stack(expected))
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_reaches_every_layer_of_the_heads_but_the_last():
    critic = make(dropout=0.5, hidden=(16, 16, 16))
    dropping = [m.p for m in critic.heads[0].modules() if isinstance(m, nn.Dropout)]
    assert dropping == [0.5] * 3
    images, actions = inputs(dtype=torch.float32)
    code = critic.eval().encode(images)
    plain = make(hidden=(16, 16, 16))
    plain.load_state_dict(dict(zip(plain.state_dict(), critic.state_dict().values())))
    torch.testing.assert_close(critic.q(code, actions), plain.q(code, actions))
    critic.train()
    assert not torch.equal(critic.q(code, actions), critic.q(code, actions))
