"""The critic's short cuts equal the plain computation, in value and gradient (float64)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic, QHeads
from ofrl_robot.nets.encoder import ImageEncoder
from ofrl_robot.specs import STATE

CONFIG = NetConfig(latent=12, hidden=(16, 8))
SHAPE, ACTIONS = (16, 16, 3), 3
SHAPES = {"image": SHAPE}


def make(**settings):
    torch.manual_seed(0)
    return Critic(dataclasses.replace(CONFIG, **settings), SHAPES, ACTIONS)


def inputs(rows=4, count=6, dtype=torch.float64):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (rows,) + SHAPE, dtype=torch.uint8)
    return {"image": images}, torch.rand(rows, count, ACTIONS, dtype=dtype) * 2 - 1


@pytest.mark.slow
@pytest.mark.parametrize("encoders", ["shared", "separate"])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(
    "more", [{}, {"latent": 0}, {"resnet_enc": True}, {"hidden": (16,)}], ids=str
)
def test_encoding_once_equals_repeating_images_and_encoding_each(encoders, bottleneck, more):
    critic = make(n_critics=3, critic_encoders=encoders, bottleneck=bottleneck, **more)
    critic.double().eval()
    for encoder in critic.encoders:  # pixels arrive as float32
        encoder.cameras[0].trunk.register_forward_pre_hook(lambda _, pixels: pixels[0].double())
    images, actions = inputs()
    actions.requires_grad_(True)
    parameters = list(critic.parameters())
    weight = torch.randn(3, 4, 6, dtype=torch.float64)
    results = []
    for once in (True, False):
        if once:
            q, kl = critic.q_and_kl(critic.encode(images), actions)
        else:
            repeated = critic.encode({"image": images["image"].repeat_interleave(6, 0)})
            q, kl = critic.q_and_kl(repeated, actions.reshape(24, 1, ACTIONS))
            q, kl = (None if x is None else x.reshape(3, 4, 6) for x in (q, kl))
        total = (q * weight).sum() if kl is None else ((q + 0.1 * kl) * weight).sum()
        gradients = torch.autograd.grad(total, parameters + [actions])
        results.append([q] + ([] if kl is None else [kl]) + list(gradients))
    assert results[0][0].dtype == torch.float64
    assert len(results[0]) == 1 + bottleneck + len(parameters) + 1
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)
    assert all(g.abs().max() > 1e-7 for g in results[0])


def test_split_first_layer_equals_concatenation_in_value_and_gradient():
    """Of each head, against an own network that sees code and action side by side."""
    torch.manual_seed(0)
    heads = QHeads(CONFIG, 12, 3).double()
    code = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    actions = torch.randn(5, 7, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 7, dtype=torch.float64)
    both = torch.cat([code.unsqueeze(1).expand(5, 7, 12), actions], -1)
    split = [heads.code_layer.weight, heads.action_layer.weight, heads.code_layer.bias]
    for k in range(2):
        joined, middle, last = (nn.Linear(*sizes).double() for sizes in ((15, 16), (16, 8), (8, 1)))
        with torch.no_grad():
            joined.weight.copy_(torch.cat([w[k] for w in split[:2]]).T)
            joined.bias.copy_(split[2][k, 0])
            for linear, layer in ((middle, heads.output[0]), (last, heads.output[2])):
                linear.weight.copy_(layer.weight[k].T)
                linear.bias.copy_(layer.bias[k, 0])

        split_q = heads(heads.code_layer(code.expand(2, -1, -1)), actions)[0][k]
        plain_q = last(torch.relu(middle(torch.relu(joined(both))))).squeeze(-1)
        assert split_q.shape == (5, 7) and split_q.dtype == torch.float64
        torch.testing.assert_close(split_q, plain_q, rtol=1e-10, atol=1e-10)

        leaves = [code, actions]
        got = torch.autograd.grad((split_q * weight).sum(), leaves + split)
        total = (plain_q * weight).sum()
        wanted = torch.autograd.grad(total, leaves + [joined.weight, joined.bias])
        torch.testing.assert_close(got[:2], wanted[:2], rtol=1e-10, atol=1e-10)
        joined_gradient = torch.cat([got[2][k], got[3][k]]).T
        torch.testing.assert_close(joined_gradient, wanted[2], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(got[4][k, 0], wanted[3], rtol=1e-10, atol=1e-10)
        assert all(gradient.abs().max() > 1e-6 for gradient in wanted)


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
    encoded = critic.encode(images)
    assert encoded.code_part.shape == (3, 4, 16)
    critic.q(encoded, actions)[1].sum().backward()
    for name, parameter in critic.heads.named_parameters():
        moved = parameter.grad.abs().amax((1, 2)) > 0
        assert moved.tolist() == [False, True, False], name
    for name, parameter in critic.encoders.named_parameters():
        own = encoders == "shared" or name.startswith("1.")
        moved = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert moved == own, name
    assert len(critic.encoders) == (1 if encoders == "shared" else 3)


def test_separate_encoders_start_apart():
    first, second = make(critic_encoders="separate").features(inputs()[0])
    assert not torch.allclose(first, second)


def test_features_are_the_flat_trunks_before_the_code():
    critic = make(n_critics=2, critic_encoders="separate")
    images, _ = inputs()
    features = critic.features(images)
    trunks = [encoder.cameras[0] for encoder in critic.encoders]
    assert [tuple(x.shape) for x in features] == [(4, trunk.features_size) for trunk in trunks]
    kept = critic.encode(images).features
    assert all(torch.equal(a, b) for a, b in zip(features, kept))


@pytest.mark.parametrize("more", [{}, {"resnet_enc": True}, {"hidden": (16,)}], ids=str)
def test_the_bottleneck_is_on_the_joint_code_whatever_the_encoder(more):
    """The released code drops it silently where the encoder is residual."""
    critic = make(bottleneck=True, bottleneck_size=5, **more)
    images, actions = inputs(dtype=torch.float32)
    code = critic.encode(images)
    torch.manual_seed(2)
    one, kl = critic.q_and_kl(code, actions)
    two, same_kl = critic.q_and_kl(code, actions)
    assert kl.shape == (2, 4, 6) and torch.equal(kl, same_kl)
    assert not torch.equal(one, two)  # sampled
    assert (kl.std(2) > 0).all() and (kl.std(1) > 0).all()  # of the action, of the image
    critic.eval()
    assert torch.equal(critic.q(code, actions), critic.q(code, actions))
    assert any(isinstance(m, nn.ReLU) for m in critic.heads.output), "Q is linear in the code"
    plain = make(**more)
    assert plain.q_and_kl(code, actions)[1] is None
    assert set(plain.state_dict()) < set(critic.state_dict())


@pytest.mark.parametrize(
    "settings",
    [{}, {"bottleneck_size": 3}, {"bottleneck": True, "bottleneck_place": "policy"}],
    ids=str,
)
def test_without_corrections_the_critic_is_the_plain_network(settings):
    """The network of code without corrections, from the same random numbers."""
    torch.manual_seed(0)
    critic = Critic(dataclasses.replace(CONFIG, **settings), SHAPES, ACTIONS)
    state = torch.get_rng_state()
    images, actions = inputs(dtype=torch.float32)
    q = critic.q(critic.encode(images), actions)
    assert not any("Dropout" in type(m).__name__ for m in critic.modules())
    torch.manual_seed(0)
    plain = ImageEncoder(CONFIG, SHAPE)
    pixels = images["image"].permute(0, 3, 1, 2).float().mul(1.0 / 255.0).sub(0.5)
    code = plain.project(plain.trunk(pixels).flatten(1))
    expected = []
    for _ in range(2):
        code_layer, action_layer = nn.Linear(12, 16), nn.Linear(ACTIONS, 16, bias=False)
        middle, last = nn.Linear(16, 8), nn.Linear(8, 1)
        nn.init.uniform_(last.weight, -3e-3, 3e-3)
        nn.init.zeros_(last.bias)
        x = code_layer(code).unsqueeze(1) + action_layer(actions)
        expected.append(last(middle(x.relu()).relu()).squeeze(-1))
    torch.testing.assert_close(q, torch.stack(expected), rtol=0, atol=1e-7)
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_reaches_every_layer_of_the_heads_but_the_last():
    critic = make(dropout=0.5, hidden=(16, 16, 16))
    dropping = [m.p for m in critic.heads.modules() if isinstance(m, nn.Dropout)]
    assert dropping == [0.5] * 3
    images, actions = inputs(dtype=torch.float32)
    code = critic.eval().encode(images)
    plain = make(hidden=(16, 16, 16))
    plain.load_state_dict(dict(zip(plain.state_dict(), critic.state_dict().values())))
    torch.testing.assert_close(critic.q(code, actions), plain.q(code, actions))
    critic.train()
    assert not torch.equal(critic.q(code, actions), critic.q(code, actions))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_each_head_of_the_product_is_a_critic_of_its_own(bottleneck):
    """Fifty heads as one product give what fifty critics give, value and gradient."""
    critic = make(n_critics=50, bottleneck=bottleneck).double().eval()
    critic.encoders[0].cameras[0].trunk.register_forward_pre_hook(lambda _, x: x[0].double())
    observations, actions = inputs()
    encoded = critic.encode(observations)
    q, _ = critic.q_and_kl(encoded, actions)
    assert q.shape == (50, 4, 6)
    single = make(n_critics=1, bottleneck=bottleneck).double().eval()
    for k in (0, 17, 49):
        with torch.no_grad():
            for own, joined in zip(single.heads.parameters(), critic.heads.parameters()):
                own.copy_(joined[k : k + 1])
        part = encoded._replace(code_part=encoded.code_part[k : k + 1])
        alone = single.q(part, actions)[0]
        torch.testing.assert_close(alone, q[k], rtol=1e-10, atol=1e-10)


def test_the_heads_spread_is_that_of_linear_layers():
    """Whatever their number: nn.Linear's bound, from the number of inputs."""
    critic = make(n_critics=50, hidden=(64, 32), latent=12)
    for layer, inputs_of in ((critic.heads.code_layer, 12), (critic.heads.output[0], 64)):
        bound = inputs_of**-0.5
        for values in (layer.weight, layer.bias):
            assert values.abs().max() <= bound
            torch.testing.assert_close(
                values.std(), torch.tensor(bound / 3**0.5), rtol=0.05, atol=0
            )
    assert critic.heads.output[-1].weight.abs().max() <= 3e-3


CAMERAS = {"front": (16, 16, 3), "wrist.left": (12, 20, 3), STATE: (4,)}


def many(rows=3):
    torch.manual_seed(4)
    observations = {
        name: torch.randint(0, 256, (rows, *shape), dtype=torch.uint8)
        for name, shape in CAMERAS.items()
        if name != STATE
    }
    observations[STATE] = torch.randn(rows, 4)
    return observations, torch.rand(rows, 5, ACTIONS) * 2 - 1


@pytest.mark.parametrize("encoders", ["shared", "separate"])
def test_q_depends_on_every_camera_and_on_the_state(encoders):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, critic_encoders=encoders)
    critic = Critic(config, CAMERAS, ACTIONS)
    assert critic.encoders[0].size == 12 + 12 + 4
    observations, actions = many()
    q = critic.q(critic.encode(observations), actions)
    assert len(critic.features(observations)) == 2 * len(critic.encoders)
    for name in CAMERAS:
        changed = {**observations, name: observations[name].flip(0)}
        assert (critic.q(critic.encode(changed), actions)[:, 0] != q[:, 0]).any(), name
