"""Behaviour regularisation: who is b, who learns from it, and where the penalty counts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ofrl_robot.algos.build import Build, make_algorithm
from ofrl_robot.algos.configs.brac import BRACConfig
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.distributions import TanhGaussian
from ofrl_robot.specs import STATE, ActionSpec
from tests.algos.known_q import KnownQ

WARM = 3
DUAL = {"divergence_form": "dual"}
forms = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"divergence": "mmd"},
        {"divergence": "density"},
        DUAL,
        {**DUAL, "divergence": "wasserstein"},
    ],
    ids=str,
)


def trained(build, batch, steps=WARM, **settings):
    """After its warm start, with all of the penalty in the targets at once."""
    fits = "divergence_form" not in settings and "behavior_path" not in settings
    ramp = {"penalty_ramp_steps": 0} if fits and settings.get("value_penalty", True) else {}
    settings = {"warm_start_steps": WARM, "actor_lr": 3e-3, **ramp, **settings}
    algorithm = build("brac", **settings)
    for _ in range(steps):
        algorithm.update(batch)
    return algorithm


def of(prefix, weights):
    return {k: v for k, v in weights.items() if k.startswith(f"{prefix}.")}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# -- the behaviour policy ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gaussian", "mixture", "mixed"])
def test_behavior_is_fitted_in_the_warm_start_and_bit_frozen_after_it(head, build, batch, weights):
    """Adam's momentum alone would go on moving it."""
    algorithm = build("brac", nets={"action_head": head}, warm_start_steps=20, actor_lr=3e-3)
    start = of("behavior", weights(algorithm))
    losses = [float(algorithm.update(batch)["behavior_loss"]) for _ in range(20)]
    fitted = of("behavior", weights(algorithm))
    assert losses[-1] < losses[0] - 0.1
    assert not any(torch.equal(fitted[k], start[k]) for k in start)
    actor = of("actor", weights(algorithm))
    for _ in range(5):
        algorithm.update(batch)
    after = weights(algorithm)
    assert same(of("behavior", after), fitted) and not same(of("actor", after), actor)


def test_behavior_has_networks_of_its_own(build):
    """In the released code it shares its encoder with the policy, which moves the frozen b."""
    algorithm = build("brac")
    tensors = [
        {p.data_ptr() for p in module.parameters()}
        for module in (algorithm.actor, algorithm.behavior, algorithm.critic)
    ]
    assert not (tensors[0] & tensors[1]) and not (tensors[1] & tensors[2])
    names = [name for name, _ in algorithm.behavior.named_parameters()]
    assert names == [name for name, _ in algorithm.actor.named_parameters()]


def test_behavior_may_have_another_head_and_has_no_bottleneck(build):
    algorithm = build(
        "brac", behavior_head="mixture", nets={"bottleneck": True, "bottleneck_place": "policy"}
    )
    assert algorithm.behavior.config.action_head == "mixture"
    assert algorithm.actor.bottleneck is not None and algorithm.behavior.bottleneck is None


def test_b_is_taken_where_its_held_out_loss_was_least(build, batch, weights):
    """Training on, it learns the few episodes by heart."""
    algorithm = build("brac", warm_start_steps=20, actor_lr=3e-3)
    losses, kept = iter([3.0, 1.0, 2.0] + [1.5] * 9), {}
    for step in range(20):
        algorithm.update(batch)
        due = (step + 1) % 2 == 0
        assert algorithm.validates_now == due
        if due:
            loss = next(losses)
            if loss == 1.0:
                kept = of("behavior", weights(algorithm))
            algorithm.validated({"behavior_loss": loss})
    assert not same(of("behavior", weights(algorithm)), kept)
    algorithm.update(batch)
    assert same(of("behavior", weights(algorithm)), kept) and not algorithm.validates_now


def test_what_is_held_out_is_the_loss_of_b(build, batch):
    algorithm = build("brac", nets={"dropout": 0.5})
    tensors = algorithm.load(batch)
    with torch.no_grad():
        dist = algorithm.behavior.eval()(tensors.observations)
        expected = -float(dist.log_prob(tensors.actions).mean())
    algorithm.behavior.train()
    assert algorithm.validate(batch) == {"behavior_loss": pytest.approx(expected, rel=1e-4)}
    assert algorithm.probe(batch)["behavior_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "fits"), [({}, True), (DUAL, False), ({"behavior_path": Path("b")}, False)]
)
def test_only_a_b_that_is_fitted_wants_held_out_episodes(settings, fits):
    config = BRACConfig(**settings)
    assert config.fits_behavior == config.holds_out == fits
    settled = 5000 + 1000 + 600 if fits else 5000
    assert config.settling_steps == settled


@pytest.fixture
def given_behavior():
    torch.manual_seed(9)
    spec = ActionSpec(("x", "gripper"), ("m", "1"), (0.1, 1.0), "base")
    config = NetConfig(latent=8, hidden=(24,), action_head="mixture", components=3, dropout=0.5)
    return Actor(config, {"image": (16, 16, 3)}, spec)


@pytest.mark.parametrize("warm", [0, WARM])
def test_a_given_behavior_never_moves_and_keeps_its_own_networks(
    warm, given_behavior, build, batch, weights
):
    before = {k: v.clone() for k, v in given_behavior.state_dict().items()}
    algorithm = trained(
        build, batch, 6, warm_start_steps=warm, actor_lr=1e-2, behavior_path=Path("runs/bc"),
        options={"behavior": given_behavior},
    )  # fmt: skip
    assert algorithm.behavior.config == given_behavior.config
    prefixed = {f"behavior.{k}": v for k, v in before.items()}
    assert same(of("behavior", weights(algorithm)), prefixed)
    assert "behavior" not in algorithm(algorithm.load(batch)).parts
    assert not any(p.requires_grad for p in algorithm.behavior.parameters())
    # a copy: whoever trains on with it does not move this one
    assert all(p.requires_grad for p in given_behavior.parameters())
    with torch.no_grad():
        next(given_behavior.parameters()).zero_()
    assert same(of("behavior", weights(algorithm)), prefixed)


def test_a_given_behavior_over_other_actions_is_refused(given_behavior, build):
    with pytest.raises(ConfigError, match="head is mixture, the policy's mixed"):
        build("brac", nets={"action_head": "mixed"}, options={"behavior": given_behavior})


def test_the_divergence_reads_b_without_its_dropout(build, batch):
    """Else each step would compare with another b; the one that is fitted still drops."""
    algorithm = build("brac", divergence="density", nets={"dropout": 0.5})
    certain = TanhGaussian(torch.full((12, 2), 0.3), torch.full((12, 2), -15.0))
    tensors = algorithm.load(batch)
    first, second = (algorithm.divergence(tensors, certain) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    losses = [algorithm(tensors).parts["behavior"].item() for _ in range(2)]
    assert losses[0] != losses[1]


# -- where the penalty counts -----------------------------------------------------------------


@forms
def test_value_penalty_is_in_the_target_and_policy_regularisation_is_not(settings, build, batch):
    """y differs by discount m beta D(s'), and where the dual knows no next action by nothing."""
    algorithm = trained(build, batch, beta=2.5, **settings)
    tensors = algorithm.load(batch)
    targets = []
    with torch.no_grad():
        dist = algorithm.actor(tensors.next_observations)
        for penalty in (True, False):
            algorithm.config = dataclasses.replace(algorithm.config, value_penalty=penalty)
            torch.manual_seed(4)
            targets.append(algorithm.target(tensors, dist).value)
        torch.manual_seed(4)
        dist.weighted_actions(1)  # the draw that the value took
        there = dataclasses.replace(
            tensors, observations=tensors.next_observations, actions=tensors.next_actions
        )
        divergence = algorithm.divergence(there, dist)
    known = tensors.has_next_action if "divergence_form" in settings else 1.0
    expected = tensors.bootstrap * known * 2.5 * divergence
    torch.testing.assert_close(targets[1] - targets[0], expected, rtol=1e-3, atol=1e-3)
    assert expected.abs().max() > 1e-3


@forms
@pytest.mark.parametrize("penalty", [True, False])
def test_both_have_it_in_the_actors_loss_after_the_warm_start(
    settings, penalty, build, batch, losses_of
):
    algorithm = trained(build, batch, value_penalty=penalty, **settings)
    for step, counts in ((WARM + 1, True), (0, False)):
        algorithm.step = step
        values = []
        for beta in (0.5, 3.0):
            with torch.no_grad():
                algorithm.beta.log.fill_(math.log(beta))
            values.append(losses_of(algorithm, batch))
        difference = values[1].parts["actor"] - values[0].parts["actor"]
        expected = 2.5 * values[0].metrics["divergence"] if counts else torch.zeros(())
        torch.testing.assert_close(difference.detach(), expected, rtol=1e-3, atol=1e-3)
        computed = float(values[0].metrics["divergence"].abs())
        assert computed > 1e-4 if counts else computed == 0.0


def penalties(algorithm, batch, steps):
    """What the targets lose by the divergence at each of the next steps: (largest, of all of D)."""
    tensors, found = algorithm.load(batch), []
    for _ in range(steps):
        with torch.no_grad():
            dist = algorithm.actor(tensors.next_observations)
            torch.manual_seed(4)
            value = algorithm.next_divergence(tensors, dist)
            torch.manual_seed(4)
            there = dataclasses.replace(
                tensors, observations=tensors.next_observations, actions=tensors.next_actions
            )
            whole = algorithm.divergence(there, dist)
        ratio = torch.zeros(()) if value is None else (value / whole)[whole.abs() > 1e-4].max()
        found.append(round(float(ratio), 4))
        algorithm.update(batch)
    return found


def test_the_penalty_of_a_b_that_is_fitted_comes_in_little_by_little(build, batch):
    """At once it would let targets fall by beta D / (1 - discount) within a few steps."""
    algorithm = build("brac", warm_start_steps=2, penalty_ramp_steps=4, actor_lr=3e-3)
    assert penalties(algorithm, batch, 8) == [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("form", ["given", "dual"])
def test_the_penalty_of_a_given_b_and_of_the_dual_form_does_not_wait(
    form, given_behavior, build, batch
):
    """The target is the same function of Q and D before and after the end of the warm start."""
    settings = {"behavior_path": Path("b"), "options": {"behavior": given_behavior}}
    algorithm = build("brac", warm_start_steps=2, **(DUAL if form == "dual" else settings))
    assert penalties(algorithm, batch, 4) == [1.0] * 4


def test_the_dual_penalty_reads_the_next_data_action_and_none_where_there_is_none(build, batch):
    algorithm = trained(build, batch, **DUAL)
    tensors = algorithm.load(batch)
    certain = TanhGaussian(torch.full((12, 2), 0.3), torch.full((12, 2), -15.0))
    other = dataclasses.replace(tensors, next_actions=-tensors.next_actions)
    with torch.no_grad():
        value, changed = (algorithm.next_divergence(t, certain) for t in (tensors, other))
    known = tensors.has_next_action.bool()
    assert (value[~known] == 0).all() and (changed[~known] == 0).all() and (~known).any()
    assert (value[known] != changed[known]).all()


@pytest.mark.parametrize(
    ("settings", "target", "direction"),
    [({"divergence": "mmd"}, 0.0, 1.0), ({}, 1e3, -1.0), (DUAL, 1e3, -1.0)],
    ids=str,
)
def test_beta_rises_where_the_divergence_is_above_its_target(
    settings, target, direction, build, batch, losses_of
):
    tuned = {"tune_beta": True, "target_divergence": target, "critic_lr": 1e-2, "beta": 2.0}
    if not settings.get("divergence_form"):
        settings = {"penalty_ramp_steps": 0, **settings}
    algorithm = build("brac", warm_start_steps=1, **tuned, **settings)
    assert "beta" not in losses_of(algorithm, batch).parts  # b is not fitted yet
    algorithm.step = 1
    losses = losses_of(algorithm, batch)
    expected = -math.log(2.0) * (losses.metrics["divergence"] - target)
    torch.testing.assert_close(losses.parts["beta"].detach(), expected)
    for _ in range(3):
        algorithm.update(batch)
    assert (float(algorithm.beta.value) - 2.0) * direction > 0.01


def test_beta_stays_unless_it_is_tuned(build, batch):
    algorithm = trained(build, batch, 4, beta=2.0)
    assert float(algorithm.beta.value) == pytest.approx(2.0)


@pytest.mark.slow
def test_the_penalty_pulls_the_policy_to_b(build, batch):
    """With a flat Q and a large beta the policy ends where b is."""
    algorithm = trained(build, batch, 5, beta=30.0, actor_lr=1e-2)
    algorithm.critic = algorithm.target_critic = KnownQ(lambda a: a[..., 0] * 0)
    with torch.no_grad():
        algorithm.actor.head[-1].bias.add_(torch.tensor([1.0, -1.0, -1.0, -1.0]))
    values = [float(algorithm.update(batch)["divergence"]) for _ in range(60)]
    assert np.mean(values[-5:]) < 0.1 * values[0]


def test_probe_has_the_quantity_that_the_policy_maximises(build, batch):
    algorithm = trained(build, batch, beta=2.0)
    probe = algorithm.probe(batch)
    expected = probe["policy_q"] - 2.0 * probe["divergence"]
    assert probe["conservative_q"] == pytest.approx(expected, abs=1e-5)


# -- the discriminator ------------------------------------------------------------------------


def one_dimensional(**settings):
    """BRAC on float observations and one action entry; its policy is tanh N(0.6, 0.4^2)."""
    config = BRACConfig(**{"divergence_form": "dual", "discriminator_lr": 3e-3, **settings})
    torch.manual_seed(0)
    build = Build(
        nets=NetConfig(hidden=(64, 64)),
        shapes={STATE: (1,)},
        action=ActionSpec(("x",), ("m",), (0.1,), "base"),
        device=torch.device("cpu"),
    )
    algorithm = make_algorithm(config, build)
    with torch.no_grad():
        algorithm.actor.head[-1].weight.zero_()
        algorithm.actor.head[-1].bias.copy_(torch.tensor([0.6, math.log(0.4)]))
    return algorithm


DATA = TanhGaussian(torch.tensor([[-0.2]]), torch.tensor([[math.log(0.6)]]))


def transitions(count=1024):
    """Data actions of tanh N(-0.2, 0.6^2)."""
    nothing, ones = torch.zeros(count, 1), torch.ones(count)
    actions = DATA.sample(count)[0][0]
    state = {STATE: nothing}
    return Batch(state, state, actions, ones, ones, actions, ones, ones)


def fit_discriminator(algorithm, steps):
    """The last divergence of many actions, after so many of the discriminator's own steps."""
    for _ in range(steps):
        algorithm.discriminator_optimizer.zero_grad()
        algorithm.discriminator_loss(transitions(512)).backward()
        algorithm.discriminator_optimizer.step()
    many = transitions(20000)
    with torch.no_grad():
        return float(algorithm.divergence(many, algorithm.actor(many.observations)).mean())


@pytest.mark.slow
def test_a_trained_discriminator_gives_the_kl(build):
    algorithm = one_dimensional(gradient_penalty=0.0)
    exact = math.log(0.6 / 0.4) + (0.4**2 + 0.8**2) / (2 * 0.6**2) - 0.5
    assert fit_discriminator(algorithm, 250) == pytest.approx(exact, rel=0.1)


@pytest.mark.slow
def test_a_trained_discriminator_gives_the_wasserstein_distance(build):
    """That between the actions: the mean gap of their quantiles."""
    algorithm = one_dimensional(divergence="wasserstein")
    unit = torch.special.ndtri((torch.arange(10000, dtype=torch.float64) + 0.5) / 10000)
    exact = float((torch.tanh(0.6 + 0.4 * unit) - torch.tanh(-0.2 + 0.6 * unit)).abs().mean())
    assert fit_discriminator(algorithm, 250) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(("slope", "excess"), [(0.5, 0.0), (-0.9, 0.0), (3.0, 2.0), (-3.0, 2.0)])
def test_gradient_penalty_is_one_sided(slope, excess):
    """Slopes below 1 are free; the two-sided penalty of WGAN-GP would pull them up."""
    algorithm = one_dimensional(divergence="wasserstein", gradient_penalty=7.0)
    algorithm.discriminator = KnownQ(lambda a: slope * a[..., 0])
    batch = transitions()
    torch.manual_seed(1)
    loss = float(algorithm.discriminator_loss(batch))
    policy_mean = 0.5  # of the policy's actions, known to +-0.02; the penalty is exact
    expected = 7.0 * excess**2 - slope * (policy_mean - float(batch.actions.mean()))
    assert loss == pytest.approx(expected, abs=0.02 * abs(slope) + 0.01)


def test_gradient_penalty_looks_between_data_and_policy_actions():
    """On its whole way from one to the other, not only at the ends."""
    algorithm = one_dimensional()
    seen = []
    algorithm.discriminator = KnownQ(lambda a: seen.append(a.detach()) or a[..., 0])
    with torch.no_grad():
        algorithm.actor.head[-1].bias.copy_(torch.tensor([10.0, -5.0]))
    batch = transitions()
    batch.actions.fill_(-1.0)
    algorithm.discriminator_loss(batch)
    between = seen[0].flatten()
    assert between.min() < -0.95 and between.max() > 0.95
    assert abs(float(between.mean())) < 0.06 and float(between.var()) == pytest.approx(
        1 / 3, abs=0.04
    )


def test_the_discriminator_trains_by_its_own_optimiser_and_steps(build, batch, weights):
    """As many steps as it says, which move nothing else."""
    algorithm = build("brac", divergence_form="dual", discriminator_steps=4)
    steps = []
    inner = algorithm.discriminator_optimizer.step
    algorithm.discriminator_optimizer.step = lambda: (steps.append(1), inner())[1]
    shared = {id(p) for g in algorithm.optimizer.param_groups for p in g["params"]}
    assert not shared & {id(p) for p in algorithm.discriminator.parameters()}
    before = weights(algorithm)
    tensors = algorithm.load(batch)
    algorithm.discriminator_loss(tensors).backward()
    for key, parameter in algorithm.named_parameters():
        assert (parameter.grad is None) or key.startswith("discriminator."), key
    algorithm.update(batch)
    assert len(steps) == 4
    after = of("discriminator", weights(algorithm))
    assert not any(torch.equal(after[k], before[k]) for k in after)


def test_the_discriminator_compares_at_the_image_of_the_data_action(build, batch):
    algorithm = build("brac", divergence_form="dual")
    tensors = algorithm.load(batch)
    losses = []
    image = tensors.next_observations["image"]
    for values in (image, 255 - image):
        other = dataclasses.replace(tensors, next_observations={"image": values})
        torch.manual_seed(0)
        losses.append(algorithm.discriminator_loss(other).item())
    assert losses[0] == losses[1]


def test_the_discriminator_is_one_plain_critic(build):
    """Twice differentiated, compared between steps: it drops and samples nothing."""
    algorithm = build(
        "brac", divergence_form="dual", nets={"dropout": 0.5, "bottleneck": True, "n_critics": 3}
    )
    discriminator = algorithm.discriminator
    assert len(discriminator.heads.code_layer.weight) == 1
    assert discriminator.heads.bottleneck is None
    assert not any("Dropout" in type(m).__name__ for m in discriminator.modules())
    assert any("Dropout" in type(m).__name__ for m in algorithm.critic.modules())
