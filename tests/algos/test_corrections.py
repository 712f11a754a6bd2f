"""The workflow's corrections, for CQL and BRAC alike: each does what its name says, and off it is
absent to the last bit. That off is no layer either is tested with the networks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ofrl_robot.algos import base

pytestmark = pytest.mark.parametrize("name", ["cql", "brac"])
WARM = {"warm_start_steps": 2}  # three updates see both sides of it


def gradients(algorithm, loss):
    algorithm.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {k: p.grad for k, p in algorithm.named_parameters() if p.grad is not None}


def touched(algorithm, loss):
    """Names of the parameters that a loss moves, as deep as two words: actor.head."""
    return {".".join(k.split(".")[:2]) for k, g in gradients(algorithm, loss).items() if g.any()}


def pixels(images):
    """What a trunk sees of bytes, wherever they are cast."""
    if images.dtype != torch.uint8:
        return images
    return images.permute(0, 3, 1, 2).float() / 255.0 - 0.5


def critic_difference(build, batch, losses_of, name, on, off, nets=None):
    """What a setting adds to the critics' loss; the same random numbers on both sides."""
    with_it, without = (losses_of(build(name, nets=nets, **s), batch) for s in (on, off))
    return with_it.parts["critic"] - without.parts["critic"], with_it, without


@pytest.mark.parametrize(
    ("settings", "nets"),
    [
        ({"dr3_feat": True, "dr3_weight": 0.0}, {}),
        ({"regularization": "l1", "regularization_const": 0.0}, {}),
        ({"regularization": "l2", "regularization_const": 0.0}, {}),
        ({}, {"dropout": 0.0}),
        ({}, {"bottleneck": False, "resnet_enc": False, "resnet_policy": False}),
        ({"shift": 0}, {}),
    ],
    ids=str,
)
def test_off_is_bit_identical_to_absent(name, settings, nets, build, batch, weights):
    """Losses, weights and random numbers after three updates."""
    results = []
    for algorithm in (build(name, **WARM), build(name, nets=nets, **WARM, **settings)):
        torch.manual_seed(1)
        metrics = [algorithm.update(batch) for _ in range(3)]
        results.append((weights(algorithm), metrics, torch.rand(1)))
    (plain, plain_metrics, draw), (off, off_metrics, off_draw) = results
    assert plain.keys() == off.keys() and all(torch.equal(plain[k], off[k]) for k in plain)
    assert torch.equal(draw, off_draw)
    for one, other in zip(plain_metrics, off_metrics):
        assert all(torch.equal(one[k], other[k]) for k in one)


# -- bottleneck -------------------------------------------------------------------------------

BOTTLENECK = pytest.mark.parametrize(
    "nets",
    [
        {"bottleneck": True, "bottleneck_size": 5},
        {"bottleneck": True, "bottleneck_size": 5, "resnet_enc": True},
    ],
    ids=["plain", "resnet_enc"],
)


@BOTTLENECK
def test_bottleneck_adds_its_rate_at_the_data_actions(name, nets, build, batch, losses_of):
    """Of the data's rows only, summed over critics, with either encoder: the released code drops
    the bottleneck silently where the encoder is residual."""
    on, off = {"bottleneck_const": 2.0}, {"bottleneck_const": 0.0}
    added, losses, _ = critic_difference(build, batch, losses_of, name, on, off, nets)
    algorithm = build(name, nets=nets, **on)
    tensors = algorithm.load(batch)
    code = algorithm.critic.encode(tensors.observations)
    _, kl = algorithm.critic.q_and_kl(code, tensors.actions[:, None])
    assert kl.shape == (2, 12, 1)
    torch.testing.assert_close(losses.metrics["bottleneck_kl"], kl.mean().detach())
    torch.testing.assert_close(added, 2.0 * kl.mean((1, 2)).sum(), rtol=1e-3, atol=1e-3)
    residual = [n for n, _ in algorithm.critic.named_parameters() if ".branch." in n]
    assert bool(residual) == ("resnet_enc" in nets)
    reached = touched(algorithm, kl.sum())
    assert reached == {"critic.encoders", "critic.heads"}


@pytest.mark.slow
@BOTTLENECK
def test_bottleneck_limits_the_rate_where_its_constant_is_large(name, nets, build, batch):
    rates = []
    for const in (0.0, 3.0):
        algorithm = build(name, nets=nets, bottleneck_const=const, critic_lr=3e-3)
        for _ in range(12):
            metrics = algorithm.update(batch)
        rates.append(float(metrics["bottleneck_kl"]))
    assert rates[1] < 0.7 * rates[0]


@BOTTLENECK
def test_bottleneck_is_sampled_in_training_and_its_mean_in_the_probe(
    name, nets, build, batch, losses_of
):
    algorithm = build(name, nets=nets, initial_alpha=1e-6)
    with torch.no_grad():  # far from the start, where Q is flat in z
        for parameter in algorithm.critic.heads.parameters():
            parameter.mul_(3.0)
    draws = [losses_of(algorithm, batch, seed).metrics["data_q"] for seed in (1, 2)]
    assert not torch.equal(*draws)
    data_q = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        data_q.append(algorithm.probe(batch)["data_q"])
    assert data_q[0] == pytest.approx(data_q[1], abs=1e-6)
    assert all(m.training for m in algorithm.critic.modules())


def test_bottleneck_of_the_policy_is_in_the_actors_loss(name, build, batch, losses_of):
    nets = {"bottleneck": True, "bottleneck_place": "policy"}
    losses = [losses_of(build(name, nets=nets, bottleneck_const=c), batch) for c in (0.0, 2.0)]
    algorithm = build(name, nets=nets)
    kl = algorithm.actor(algorithm.load(batch).observations).bottleneck_kl
    added = losses[1].parts["actor"] - losses[0].parts["actor"]
    torch.testing.assert_close(added, 2.0 * kl.mean(), rtol=1e-3, atol=1e-4)
    assert torch.equal(losses[0].parts["critic"], losses[1].parts["critic"])
    assert touched(algorithm, kl.sum()) == {"actor.encoder", "actor.bottleneck"}
    assert "bottleneck_kl" not in losses[0].metrics  # that of the critics


# -- dropout ----------------------------------------------------------------------------------


def test_dropout_acts_in_training_only(name, build, batch, losses_of):
    """In policy and critics, and neither in the probe nor in what is deployed."""
    algorithm = build(name, nets={"dropout": 0.4}, tune_alpha=False)
    tensors = algorithm.load(batch)
    critic = []
    for _ in range(2):
        encoded = algorithm.critic.encode(tensors.observations)
        critic.append(algorithm.critic.q(encoded, tensors.actions[:, None]))
    policy = [algorithm.actor(tensors.observations).mode for _ in range(2)]
    assert not torch.equal(*critic) and not torch.equal(*policy)
    deployed = [algorithm.average_actor(tensors.observations).mode for _ in range(2)]
    assert torch.equal(*deployed)
    probes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        probe = algorithm.probe(batch)
        probes.append([probe[k] for k in ("data_q", "mode_q", "data_log_prob", "action_mse")])
    assert probes[0] == probes[1]
    algorithm.update(batch)  # and the target critics drop too, as in the released code
    assert algorithm.target_critic.training and not algorithm.average_actor.training


# -- DR3 --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("encoders", ["shared", "separate"])
def test_dr3_by_hand(name, encoders, build, batch, losses_of):
    """Mean inner product of the flat trunk's outputs, per encoder; the gradient reaches the trunk
    by the features of images only, those of next images are taken as they are."""
    nets = {"critic_encoders": encoders}
    on, off = {"dr3_feat": True, "dr3_weight": 0.3}, {}
    added, losses, _ = critic_difference(build, batch, losses_of, name, on, off, nets)
    algorithm = build(name, nets=nets, **on)
    trunks = [encoder.cameras[0].trunk for encoder in algorithm.critic.encoders]
    tensors = algorithm.load(batch)
    here, there = (
        torch.stack(algorithm.critic.features(images))
        for images in (tensors.observations, tensors.next_observations)
    )
    term = (here * there.detach()).sum(-1).mean(1).sum()
    torch.testing.assert_close(losses.metrics["dr3"], term.detach())
    torch.testing.assert_close(added, 0.3 * term, rtol=1e-3, atol=1e-4)

    parameters = [p for trunk in trunks for p in trunk.parameters()]
    wanted = torch.autograd.grad(0.3 * term, parameters)
    results = []
    for settings in (on, off):
        each = build(name, nets=nets, **settings)
        results.append(gradients(each, losses_of(each, batch).parts["critic"]))
    assert results[0].keys() == results[1].keys()
    names = {id(p): k for k, p in algorithm.named_parameters()}
    for parameter, gradient in zip(parameters, wanted):
        got = results[0][names[id(parameter)]] - results[1][names[id(parameter)]]
        torch.testing.assert_close(got, gradient, rtol=1e-3, atol=1e-4)
    for key in results[0]:
        if ".trunk." not in key:
            torch.testing.assert_close(results[0][key], results[1][key], rtol=1e-4, atol=1e-5)


def test_dr3_costs_no_pass_where_it_is_off(name, build, batch):
    """The released code runs it at each step, on or off."""
    counts = []
    for settings in ({}, {"dr3_feat": True}):
        algorithm, calls = build(name, **settings), []
        algorithm.critic.encoders[0].cameras[0].trunk.register_forward_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        algorithm.update(batch)
        counts.append(len(calls))
    assert counts == [1, 2]


# -- L1, L2 -----------------------------------------------------------------------------------


def test_l1_is_the_sum_of_the_mean_magnitudes_of_the_critics_tensors(name, build, batch, losses_of):
    on = {"regularization": "l1", "regularization_const": 0.5}
    added, losses, plain = critic_difference(build, batch, losses_of, name, on, {})
    algorithm = build(name)
    encoders = [
        p.abs().mean()
        for key, p in algorithm.critic.encoders.named_parameters()
        if not of_a_norm(f"encoders.{key}", algorithm.critic)
    ]
    heads = [p[k].abs().mean() for p in algorithm.critic.heads.parameters() for k in range(2)]
    magnitude = sum(encoders + heads)
    torch.testing.assert_close(added, 0.5 * magnitude, rtol=1e-3, atol=1e-4)
    assert touched(algorithm, magnitude) == {"critic.encoders", "critic.heads"}
    assert torch.equal(losses.parts["actor"], plain.parts["actor"])


def of_a_norm(key, critic):
    """Whether the parameter is a gain or bias of a LayerNorm, which no penalty shrinks."""
    owner = dict(critic.named_modules())[key.rpartition(".")[0]]
    return isinstance(owner, torch.nn.LayerNorm)


def test_l2_is_the_weight_decay_of_adam_on_the_critics(name, build, batch, losses_of):
    """Coupled: the decay passes through Adam's normalisation, as in torch's Adam, not AdamW."""
    on = {"regularization": "l2", "regularization_const": 0.5, "critic_lr": 1e-3, "actor_lr": 1e-3}
    algorithm = build(name, **on)
    old = {k: p.detach().clone() for k, p in algorithm.named_parameters()}
    slope = {
        k: torch.zeros_like(old[k]) if g is None else g
        for k, g in gradients(algorithm, losses_of(algorithm, batch).total).items()
    }
    torch.manual_seed(3)
    algorithm.update(batch)
    for key, parameter in algorithm.named_parameters():
        part = key.split(".")[0]
        if part not in ("actor", "critic"):
            continue
        norm = part == "critic" and of_a_norm(key[len("critic.") :], algorithm.critic)
        total = slope[key] + (0.5 * old[key] if part == "critic" and not norm else 0.0)
        # Adam's first step
        expected = old[key] - 1e-3 * total / (total.abs() + 1e-8)
        sure = total.abs() > 1e-5  # of a gradient that is rounding only the sign is chance
        torch.testing.assert_close(parameter[sure], expected[sure], rtol=0, atol=2e-5)


# -- encoders, sizes, crop --------------------------------------------------------------------


def features_size(encoder):
    return encoder.cameras[0].features_size


def test_residual_encoders_are_of_the_critics_and_the_policy_apart(name, build):
    plain = build(name)
    sizes = features_size(plain.actor.encoder), features_size(plain.critic.encoders[0])
    residual = 128 * 4 * 4
    for nets, expected in (
        ({"resnet_enc": True}, (sizes[0], residual)),
        ({"resnet_policy": True}, (residual, sizes[1])),
        ({"resnet_enc": True, "resnet_policy": True}, (residual, residual)),
    ):
        algorithm = build(name, nets=nets)
        actor, critic, target = (
            algorithm.actor.encoder,
            algorithm.critic.encoders[0],
            algorithm.target_critic.encoders[0],
        )
        assert (features_size(actor), features_size(critic)) == expected
        assert features_size(target) == features_size(critic)


def image_of(inputs):
    return inputs["image"] if isinstance(inputs, dict) else inputs


def test_random_crop_is_one_of_each_frame_for_all_networks_and_none_in_the_probe(
    name, build, batch, monkeypatch
):
    """Once per frame and step: in the released code each network's pass has its own crops."""
    calls = []
    original = base.random_shift

    def spy(images, pixels):
        calls.append((images, original(images, pixels)))
        return calls[-1][1]

    monkeypatch.setattr(base, "random_shift", spy)
    algorithm, seen = build(name, shift=4), []
    for module in (algorithm.actor, algorithm.critic.encoders[0].cameras[0].trunk):
        module.register_forward_pre_hook(lambda _, inputs: seen.append(image_of(inputs[0])))
    algorithm.update(batch)
    assert len(calls) == 2
    for (images, shifted), source in zip(calls, (batch.observations, batch.next_observations)):
        assert torch.equal(images, torch.from_numpy(source["image"])) and not torch.equal(
            images, shifted
        )
    wanted = [pixels(calls[0][1]), pixels(calls[1][1]), pixels(calls[0][1])]
    torch.testing.assert_close([pixels(x) for x in seen], wanted, rtol=0, atol=1e-6)
    algorithm.probe(batch)
    assert len(calls) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "nets",
    [
        {"encoder": "cog_deep", "hidden": (32, 16, 16, 16, 8)},
        {"encoder": "cog_small", "hidden": (16,), "latent": 0},
        {"bottleneck": True, "resnet_enc": True, "resnet_policy": True, "dropout": 0.2},
        {"bottleneck": True, "bottleneck_place": "policy", "n_critics": 4},
        {"critic_encoders": "separate", "n_critics": 3, "bottleneck": True},
    ],
    ids=str,
)
def test_nets_of_all_sizes_train_with_every_correction_at_once(name, nets, build, batch, weights):
    """What is switched on together all acts: each trained tensor moves."""
    algorithm = build(name, nets=nets, dr3_feat=True, regularization="l1", **WARM)
    before = weights(algorithm)
    for _ in range(3):
        metrics = algorithm.update(batch)
    assert all(torch.isfinite(v) for v in metrics.values())
    after = weights(algorithm)
    still = [
        k for k in after
        if k.split(".")[0] in ("actor", "critic") and torch.equal(after[k], before[k])
    ]  # fmt: skip
    assert not still
    assert dataclasses.asdict(algorithm.actor.config)["n_critics"] == nets.get("n_critics", 2)
