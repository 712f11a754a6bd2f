"""The policy network: each head is the distribution it says, of the network's own output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.distributions import MixedAction, TanhGaussian, TanhMixture
from ofrl_robot.specs import WIDOWX_ACTION, ActionSpec

ACTION = ActionSpec(("x", "y", "gripper"), ("m", "m", "1"), (0.1, 0.1, 1.0), "base")
HEADS = {"gaussian": TanhGaussian, "mixture": TanhMixture, "mixed": MixedAction}
every = pytest.mark.parametrize("head", sorted(HEADS))


def make(head="gaussian", action=ACTION, **settings):
    torch.manual_seed(0)
    config = NetConfig(**{"action_head": head, "latent": 12, "hidden": (32,), **settings})
    images = torch.randint(0, 256, (8, 24, 24, 3), dtype=torch.uint8)
    return Actor(config, {"image": (24, 24, 3)}, action), {"image": images}


@every
@pytest.mark.parametrize("action", [ACTION, WIDOWX_ACTION], ids=["3-D", "8-D"])
def test_each_head_gives_its_distribution_over_the_whole_action(head, action):
    actor, images = make(head, action)
    dist = actor(images)
    assert type(dist) is HEADS[head] and dist.bottleneck_kl is None
    actions, log_prob = dist.sample(2)
    assert actions.shape == (8, 2, action.size) and log_prob.shape == (8, 2)
    assert dist.mode.shape == (8, action.size)
    for entry, values in action.levels.items():
        chosen = set(dist.mode[:, entry].tolist())
        assert (chosen <= set(values)) == (head == "mixed")


@every
@pytest.mark.parametrize("path", ["log_prob", "weighted_actions", "mode"])
def test_gradient_reaches_every_parameter_of_the_encoder(head, path):
    actor, images = make(head)
    dist = actor(images)
    if path == "log_prob":
        dist.log_prob(torch.rand(8, 3) - 0.5).sum().backward()
    elif path == "weighted_actions":
        actions, _, weights = dist.weighted_actions(2)
        (weights * actions.square().sum(-1)).sum().backward()
    else:
        (dist.mode - 0.3).square().sum().backward()
    for name, parameter in actor.encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every
def test_each_output_of_the_head_is_trained_by_the_data(head):
    """No output is left over, none is read twice in place of its neighbour."""
    actor, images = make(head)
    actor(images).log_prob(torch.rand(8, 3) - 0.5).sum().backward()
    assert (actor.head[-1].bias.grad.abs() > 0).all()


@pytest.mark.parametrize("head", ["gaussian", "mixture"])
def test_log_std_is_clamped_both_ways(head):
    actor, images = make(head, log_std_min=-3.0, log_std_max=0.5)
    for bias, expected in ((50.0, 0.5), (-50.0, -3.0)):
        nn.init.constant_(actor.head[-1].bias, bias)
        assert (actor(images).log_std == expected).all()


def test_it_starts_near_zero_mean_and_unit_spread():
    for head in ("gaussian", "mixed"):
        actor, images = make(head)
        dist = actor(images)
        pose = dist if head == "gaussian" else dist.pose
        assert pose.mean.abs().max() < 0.05 and pose.log_std.abs().max() < 0.05
        assert len(set(map(tuple, dist.mode.tolist()))) > 1 or head == "mixed"


def test_components_of_a_mixture_start_apart():
    """Alike they would get the same gradient for ever."""
    actor, images = make("mixture", components=4)
    mean = actor(images).mean
    assert mean.shape == (8, 4, 3)
    assert (mean.unsqueeze(1) - mean.unsqueeze(2)).abs().amax(-1)[
        :, ~torch.eye(4).bool()
    ].min() > 0.01


def test_a_mixed_head_without_a_discrete_entry_is_refused():
    with pytest.raises(ConfigError, match="mixed.*x, y.*gaussian or mixture"):
        make("mixed", ActionSpec(("x", "y"), ("m", "m"), (0.1, 0.1), "base"))


@every
def test_the_policys_bottleneck_is_sampled_in_training_and_gives_its_rate(head):
    actor, images = make(head, bottleneck=True, bottleneck_place="policy", bottleneck_size=4)
    one, two = actor(images), actor(images)
    assert (
        one.bottleneck_kl.shape == (8,)
        and torch.equal(one.bottleneck_kl, two.bottleneck_kl)
        and one.bottleneck_kl.min() > 0
    )
    data = torch.full((8, 3), 0.3)
    assert not torch.equal(one.log_prob(data), two.log_prob(data))
    actor.eval()
    assert torch.equal(actor(images).log_prob(data), actor(images).log_prob(data))
    one.bottleneck_kl.sum().backward()
    assert all(p.grad is None for p in actor.head.parameters())
    assert all(p.grad.abs().max() > 0 for p in actor.encoder.parameters())


@pytest.mark.parametrize(
    "settings",
    [{}, {"bottleneck": True}, {"resnet_enc": True}, {"critic_encoders": "separate"}],
    ids=str,
)
def test_settings_of_the_critic_leave_the_actor_as_it_is(settings):
    plain, images = make()
    actor, _ = make(**settings)
    assert torch.equal(actor(images).mean, plain(images).mean)
    assert actor.state_dict().keys() == plain.state_dict().keys()


def test_resnet_policy_gives_the_residual_trunk():
    actor, images = make(resnet_policy=True)
    (features,) = actor.encoder.features(images).images
    assert features.shape == (8, 128 * 6 * 6)


def test_dropout_drops_in_training_only():
    actor, images = make(dropout=0.5)
    assert not torch.equal(actor(images).mean, actor(images).mean)
    actor.eval()
    assert torch.equal(actor(images).mean, actor(images).mean)
