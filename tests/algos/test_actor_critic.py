"""The step that CQL and BRAC share: targets, actor loss, order, and who learns from what."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from ofrl_robot.algos.actor_critic import Target
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.distributions import TanhGaussian
from ofrl_robot.specs import ActionSpec
from tests.algos.known_q import KnownQ, table

both = pytest.mark.parametrize("name", ["cql", "brac"])
PR = {"value_penalty": False}  # BRAC without its own term in the target
PLAIN = {"cql": {}, "brac": PR}
SPEC = ActionSpec(("x", "gripper"), ("m", "1"), (0.1, 1.0), "base")
GIVEN = {"behavior": Actor(NetConfig(latent=8, hidden=(8,)), {"image": (16, 16, 3)}, SPEC)}


def rows(rewards, alive, discount=0.5):
    """A batch of transitions with these rewards; images and actions do not matter here."""
    count = len(rewards)
    frames = torch.zeros(count, 16, 16, 3, dtype=torch.uint8)
    actions = torch.zeros(count, 2)
    return Batch(
        observations={"image": frames},
        next_observations={"image": frames},
        actions=actions,
        rewards=torch.tensor(rewards),
        bootstrap=discount * torch.tensor(alive),
        next_actions=actions,
        has_next_action=torch.tensor(alive),
        returns=torch.tensor(rewards),
    )


def target_of(algorithm, batch, values, log_std=0.0):
    """y (B,) where the target critics have these values (E, B, K)."""
    algorithm.target_critic = KnownQ(*table(values))
    dist = TanhGaussian(torch.zeros(len(batch.rewards), 2), torch.full((1, 2), log_std))
    torch.manual_seed(0)
    return algorithm.target(batch, dist).value


# -- targets ----------------------------------------------------------------------------------


@pytest.mark.slow
@both
@pytest.mark.parametrize("clip", [True, False])
def test_targets_by_hand(name, clip, build):
    """min over the ensemble, terminal mask, no mask at timeouts, clip to [0, 1/(1-discount)]."""
    algorithm = build(name, discount=0.5, clip_targets=clip, **PLAIN[name])
    values = [[[1.0], [1.0], [9.0], [-3.0], [0.0]], [[0.4], [5.0], [8.0], [-2.0], [1.0]]]
    batch = rows([1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0, 1.0])
    plain = [1.0 + 0.5 * 0.4, 1.0, 0.5 * 8.0, 0.5 * -3.0, 1.0]
    clipped = [1.2, 1.0, 2.0, 0.0, 1.0]
    wanted = torch.tensor(clipped if clip else plain)
    torch.testing.assert_close(target_of(algorithm, batch, values), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rewards", "discount", "expected"),
    [
        ((0.0, 1.0), 0.9, (0.0, 10.0)),
        ((-1.0, 0.0), 0.75, (-4.0, 0.0)),
        ((-2.0, 10.0), 0.5, (-4.0, 20.0)),
        ((4.0, 10.0), 0.5, (0.0, 20.0)),  # an episode may end at once
    ],
)
def test_targets_are_clipped_to_the_returns_that_the_rewards_allow(
    rewards, discount, expected, build
):
    algorithm = build(
        "cql", clip_targets=True, discount=discount, options={"reward_range": rewards}
    )
    assert algorithm.value_limits == pytest.approx(expected)
    extreme = target_of(algorithm, rows([0.0, 0.0], [1.0, 1.0]), [[[-1e6], [1e6]]])
    assert extreme.tolist() == pytest.approx(expected)


def test_what_a_clip_cuts_off_is_logged_and_clipping_is_off_unless_asked_for(build):
    """The fall of the targets, by which overfitting is told, would end at 0 and not be seen."""
    batch = rows([0.0] * 4, [1.0] * 4)
    values = [[[-30.0], [-1.0], [0.5], [8.0]]]
    metrics = {}
    for clip in (False, True):
        algorithm = build("cql", discount=0.5, **({"clip_targets": True} if clip else {}))
        algorithm.target_critic = KnownQ(*table(values))
        dist = TanhGaussian(torch.zeros(4, 2), torch.zeros(1, 2))
        target, metrics[clip] = algorithm.target(batch, dist)
        wanted = [0.0, 0.0, 0.25, 2.0] if clip else [-15.0, -0.5, 0.25, 4.0]
        assert target.tolist() == pytest.approx(wanted)
    assert metrics[False] == {}
    found = {name: float(value) for name, value in metrics[True].items()}
    assert found == pytest.approx({"target_unclipped": -11.25 / 4, "targets_clipped": 0.75})


def test_the_share_that_was_clipped_is_in_the_losses_and_in_the_probe(build, batch, losses_of):
    algorithm = build("cql", clip_targets=True)
    algorithm.target_critic = KnownQ(lambda a: a[..., 0] * 0 - 5.0)
    rewards = torch.from_numpy(batch.rewards)
    bootstrap = torch.from_numpy(batch.bootstrap)
    unclipped = rewards - 5.0 * bootstrap
    expected = {
        "target_unclipped": float(unclipped.mean()),
        "targets_clipped": float((unclipped < 0).float().mean()),
    }
    assert 0.0 < expected["targets_clipped"] < 1.0
    for found in (losses_of(algorithm, batch).metrics, algorithm.probe(batch)):
        assert {k: float(found[k]) for k in expected} == pytest.approx(expected)


def test_the_target_is_the_mean_over_the_next_actions(build):
    algorithm = build("cql", discount=0.5, target_samples=3, clip_targets=False)
    values = [[[1.0, 5.0, 2.0]], [[4.0, 0.0, 3.0]]]
    got = target_of(algorithm, rows([0.0], [1.0]), values)
    assert float(got) == pytest.approx(0.5 * (1.0 + 0.0 + 2.0) / 3.0)


@pytest.mark.parametrize(("weight", "value"), [(1.0, 0.4), (0.75, 0.75 * 0.4 + 0.25), (0.0, 1.0)])
def test_critics_count_as_lambda_min_plus_the_rest_max(weight, value, build):
    algorithm = build("cql", nets={"n_critics": 3}, ensemble_lambda=weight, clip_targets=False)
    got = target_of(algorithm, rows([2.0], [1.0]), [[[1.0]], [[0.4]], [[0.6]]])
    assert float(got) == pytest.approx(2.0 + 0.5 * value)


@pytest.mark.parametrize(("kind", "value"), [("max_min", 4.0), ("min_max", 2.0)])
def test_max_backup_takes_the_best_action_of_each_critic_or_of_the_least(kind, value, build):
    """The first is COG's order; the second is never above it."""
    algorithm = build("cql", max_backup=kind, backup_actions=3, clip_targets=False)
    values = [[[1.0, 5.0, 2.0]], [[4.0, 0.0, 3.0]]]
    assert float(target_of(algorithm, rows([0.0], [1.0]), values)) == pytest.approx(0.5 * value)


def test_max_backup_draws_as_many_actions_as_it_says(build):
    algorithm = build("cql", max_backup="max_min", backup_actions=7)
    seen = []
    algorithm.target_critic = KnownQ(lambda a: seen.append(a) or a[..., 0])
    dist = TanhGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    got = algorithm.target(rows([0.0], [1.0]), dist).value
    assert seen[0].shape == (1, 7, 2)
    assert float(got) == pytest.approx(0.5 * float(seen[0][..., 0].max()))


def test_entropy_counts_after_the_clip_with_temperature_and_discount(build):
    alpha, values = 0.2, [[[100.0], [100.0]]]
    batch = rows([0.0, 0.0], [1.0, 0.0])
    plain, entropy = (
        target_of(
            build("cql", discount=0.5, initial_alpha=alpha, entropy_backup=on, clip_targets=True),
            batch,
            values,
            -1.0,
        )  # fmt: skip
        for on in (False, True)
    )
    torch.manual_seed(0)
    dist = TanhGaussian(torch.zeros(2, 2), torch.full((1, 2), -1.0))
    log_prob = dist.weighted_actions(1)[1][:, 0]
    assert plain.tolist() == [2.0, 0.0]
    torch.testing.assert_close(entropy, plain - torch.tensor([0.5, 0.0]) * alpha * log_prob)
    assert log_prob[0].abs() > 0.1


@both
def test_target_network_starts_equal_and_moves_by_its_rate(name, build, batch):
    algorithm = build(name, target_rate=0.25, critic_lr=1e-2)
    start = [p.detach().clone() for p in algorithm.critic.parameters()]
    assert all(map(torch.equal, start, algorithm.target_critic.parameters()))
    algorithm.update(batch)
    for old, now, target in zip(
        start, algorithm.critic.parameters(), algorithm.target_critic.parameters()
    ):
        torch.testing.assert_close(target, (old + 0.25 * (now - old)).detach())


# -- losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["gaussian", "mixture", "mixed"])
@pytest.mark.parametrize(("warm", "imitation"), [(9, 1.0), (0, 0.0), (0, 0.2)])
def test_actor_loss_by_its_formula(head, warm, imitation, build, batch, losses_of):
    """alpha log pi - red Q - b log pi(a_data), without Q and with b = 1 in the warm start."""
    algorithm = build(
        "cql", nets={"action_head": head}, warm_start_steps=warm, initial_alpha=0.3,
        actor_bc_weight=0.2 if imitation == 0.2 else 0.0, ensemble_lambda=0.75,
    )  # fmt: skip
    tensors = algorithm.load(batch)
    torch.manual_seed(3)
    dist = algorithm.actor(tensors.observations)
    actions, log_prob, weights = dist.weighted_actions(1)
    q = algorithm.critic.q(algorithm.critic.encode(tensors.observations), actions)
    reduced = 0.75 * torch.min(q[0], q[1]) + 0.25 * torch.max(q[0], q[1])
    per_action = 0.3 * log_prob - (0.0 if warm else reduced)
    expected = (weights * per_action).sum(1) - imitation * dist.log_prob(tensors.actions)
    torch.testing.assert_close(losses_of(algorithm, batch).parts["actor"], expected.mean())


@pytest.mark.parametrize("warm", [9, 0])
def test_imitating_the_pose_only_leaves_the_discrete_entries_to_q(warm, build, batch, losses_of):
    """After the warm start; in it, everything is imitated."""
    algorithm = build(
        "cql", nets={"action_head": "mixed"}, warm_start_steps=warm, actor_bc_weight=0.2,
        actor_bc_entries="pose", initial_alpha=0.3,
    )  # fmt: skip
    tensors = algorithm.load(batch)
    torch.manual_seed(3)
    dist = algorithm.actor(tensors.observations)
    actions, log_prob, weights = dist.weighted_actions(1)
    q = algorithm.critic.q(algorithm.critic.encode(tensors.observations), actions).amin(0)
    imitation = dist.log_prob(tensors.actions)
    if not warm:
        pose = dist.entries.continuous
        imitation = 0.2 * dist.pose.log_prob(tensors.actions[:, pose])
    expected = (weights * (0.3 * log_prob - (0.0 if warm else q))).sum(1) - imitation
    torch.testing.assert_close(losses_of(algorithm, batch).parts["actor"], expected.mean())


@both
def test_q_has_no_influence_on_the_actor_during_the_warm_start_and_has_after_it(
    name, build, batch, losses_of
):
    for step, influenced in ((0, False), (4, False), (5, True)):
        algorithm = build(name, warm_start_steps=5)
        algorithm.step = step
        plain = losses_of(algorithm, batch).parts["actor"].detach()
        with torch.no_grad():
            for parameter in algorithm.critic.heads.parameters():
                parameter.add_(torch.randn_like(parameter))
        moved = losses_of(algorithm, batch).parts["actor"].detach()
        assert torch.equal(moved, plain) != influenced, step


def test_td_error_is_summed_over_critics_and_meant_over_rows(build, batch, losses_of):
    algorithm = build("cql", cql_weight=0.0, clip_targets=False, discount=0.5)
    tensors = algorithm.load(batch)
    algorithm.critic = KnownQ(lambda a: a[..., 0], lambda a: 2.0 * a[..., 0])
    algorithm.target_critic = KnownQ(*table([[[1.5]], [[1.0]]]))
    target = tensors.rewards + tensors.bootstrap * 1.0
    data = tensors.actions[:, 0]
    errors = [(data - target).square().mean(), (2.0 * data - target).square().mean()]
    losses = losses_of(algorithm, batch)
    torch.testing.assert_close(losses.parts["critic"], sum(errors))
    torch.testing.assert_close(losses.metrics["td_error"], sum(errors) / 2)


def test_critics_learn_at_what_the_data_action_does(build, batch, losses_of):
    """With a mixed head the policy only ever asks for levels, so Q is wanted there."""
    algorithm = build("cql", nets={"action_head": "mixed"})
    seen = []
    algorithm.critic = KnownQ(lambda a: seen.append(a) or a[..., 0] * 0)
    losses_of(algorithm, batch)
    data = torch.from_numpy(batch.actions)
    first = seen[-1][:, 0]  # the last call is the critics' own
    assert torch.equal(first[:, 0], data[:, 0])
    levels = (data[:, 1] > 0.5).float() - (data[:, 1] < -0.5).float()
    assert torch.equal(first[:, 1], levels) and len(levels.unique()) == 3


@pytest.mark.parametrize("warm", [0, 100])
@pytest.mark.parametrize("head", ["gaussian", "mixed"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cql", {"lagrange": True, "dr3_feat": True, "regularization": "l1"}),
        ("brac", {"tune_beta": True, "dr3_feat": True, "regularization": "l1"}),
        ("brac", {"tune_beta": True, "divergence_form": "dual", "entropy_backup": True}),
        ("brac", {"divergence": "mmd"}),
    ],
    ids=str,
)
def test_each_loss_reaches_its_own_part_only(warm, head, name, settings, build, batch, losses_of):
    """The critics in the actor's loss, the policy in the critics', anything in a multiplier's."""
    algorithm = build(name, warm_start_steps=100, nets={"action_head": head}, **settings)
    algorithm.step = 100 - warm
    losses = losses_of(algorithm, batch).parts
    expected = {"actor", "critic"} | ({"temperature"} if name == "cql" else set())
    expected |= {"multiplier"} if "lagrange" in settings else set()
    expected |= {"beta"} if "tune_beta" in settings and not warm else set()
    fits = name == "brac" and "divergence_form" not in settings and warm
    assert set(losses) == expected | ({"behavior"} if fits else set())
    for own, loss in losses.items():
        algorithm.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        for key, parameter in algorithm.named_parameters():
            assert (parameter.grad is not None) == (key.split(".")[0] == own), (own, key)
    for module in (algorithm.target_critic, algorithm.average_actor):
        assert not any(p.requires_grad for p in module.parameters())
    assert all(p.requires_grad for p in algorithm.critic.parameters())  # thawed again


@both
def test_losses_are_computed_before_anything_steps(name, build, batch, losses_of, weights):
    """One update equals backward passes at the old weights of all losses, each alone."""
    reference, algorithm = build(name), build(name)
    reference.step = algorithm.step = algorithm.config.warm_start_steps
    for loss in losses_of(reference, batch).parts.values():
        loss.backward(retain_graph=True)
    reference.optimizer.step()
    torch.manual_seed(3)
    algorithm.update(batch)
    expected, got = weights(reference), weights(algorithm)
    for key in got:
        if key.split(".")[0] in ("actor", "critic", "temperature"):
            torch.testing.assert_close(got[key], expected[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", ["gaussian", "mixture", "mixed"])
def test_actor_climbs_q(head, build, batch):
    algorithm = build("cql", nets={"action_head": head}, warm_start_steps=0, actor_lr=1e-2)
    algorithm.critic = KnownQ(lambda a: 20.0 * a[..., 0] + 20.0 * a[..., 1])
    algorithm.target_critic = KnownQ(lambda a: a[..., 0])
    for _ in range(40):
        algorithm.update(batch)
    mode = algorithm.actor(algorithm.load(batch).observations).mode
    assert mode.min() > 0.7


def test_an_entropy_temperature_of_0_is_no_entropy(build, batch, losses_of):
    """BRAC's default, as in its reference; the width of the policy costs nothing then."""
    algorithm = build("brac", warm_start_steps=0, behavior_path=Path("b"), options=GIVEN)
    assert "temperature" not in losses_of(algorithm, batch).parts
    with torch.no_grad():
        algorithm.beta.log.fill_(-100.0)
    algorithm.critic = KnownQ(lambda a: a[..., 0] * 0)
    losses = losses_of(algorithm, batch)
    assert float(losses.metrics["alpha"]) == 0.0
    assert losses.parts["actor"].item() == pytest.approx(0.0, abs=1e-5)


@both
@pytest.mark.parametrize(("head", "entropy"), [("gaussian", -2.0), ("mixed", -1.0)])
def test_temperature_is_tuned_to_the_entropy_of_the_continuous_entries(
    name, head, entropy, build, batch
):
    """It rises when the policy is surer than that and falls when it is not."""
    for log_std, sign in ((-4.0, 1.0), (0.0, -1.0)):
        tuned = {"tune_alpha": True, "initial_alpha": 1.0}
        algorithm = build(name, nets={"action_head": head}, **tuned)
        assert algorithm.target_entropy == entropy
        continuous = 2 if head == "gaussian" else 1
        with torch.no_grad():
            algorithm.actor.head[-1].bias[continuous : 2 * continuous] = log_std
            if head == "mixed":  # a certain gripper has no entropy to add
                algorithm.actor.head[-1].bias[2] = 50.0
        before = algorithm.temperature.log.item()
        algorithm.update(batch)
        assert (algorithm.temperature.log.item() - before) * sign > 0


def test_an_untuned_temperature_stays(build, batch):
    algorithm = build("cql", tune_alpha=False, initial_alpha=0.3)
    for _ in range(2):
        metrics = algorithm.update(batch)
    assert float(metrics["alpha"]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "settings"), [("cql", {}), ("brac", {}), ("brac", {"divergence_form": "dual"})]
)
def test_bf16_reaches_every_weight_and_stays_close_to_fp32(name, settings, build, batch, losses_of):
    """Autocast caches cast weights; one cast under no_grad and used again would cut gradients."""
    metrics, grads = [], []
    for bf16 in (False, True):
        algorithm = build(name, options={"bf16": bf16}, actor_bc_weight=0.2, **settings)
        losses = losses_of(algorithm, batch)
        assert all(loss.dtype == torch.float32 for loss in losses.parts.values())
        losses.total.backward()
        metrics.append({k: float(v) for k, v in losses.metrics.items()})
        trained = [p for group in algorithm.optimizer.param_groups for p in group["params"]]
        names = {id(p): key for key, p in algorithm.named_parameters()}
        grads.append({names[id(p)]: p.grad for p in trained})
    assert metrics[1] == pytest.approx(metrics[0], rel=0.05, abs=0.02)
    for key, exact in grads[0].items():
        rough = grads[1][key]
        assert rough is not None, key
        likeness = torch.nn.functional.cosine_similarity(exact.flatten(), rough.flatten(), dim=0)
        assert likeness > 0.8, key


# -- probe ------------------------------------------------------------------------------------


@both
def test_probe_metrics_by_hand(name, build, batch):
    algorithm = build(name, actor_average=1.0)
    for _ in range(3):
        algorithm.update(batch)
    torch.manual_seed(5)
    probe = algorithm.probe(batch)
    images = algorithm.load(batch).observations
    with torch.no_grad():
        code = algorithm.critic.encode(images)
        data_q = algorithm.critic.q(code, torch.from_numpy(batch.actions)[:, None]).squeeze(-1)
        dist = algorithm.actor(images)
        mode_q = algorithm.critic.q(code, dist.mode[:, None]).squeeze(-1)
        log_prob = dist.log_prob(torch.from_numpy(batch.actions))
    assert probe["data_q"] == pytest.approx(float(data_q[0].mean()), abs=1e-5)
    assert probe["data_q_min"] == pytest.approx(float(data_q.min(0).values.mean()), abs=1e-5)
    assert probe["mode_q"] == pytest.approx(float(mode_q[0].mean()), abs=1e-5)
    assert probe["data_log_prob"] == pytest.approx(float(log_prob.mean()), abs=1e-4)


def test_probe_separates_data_policy_and_random_actions(build, batch):
    """By the first critic, as the released code; a policy's action is drawn, not its mode."""
    algorithm = build("cql", clip_targets=False)
    algorithm.critic = KnownQ(lambda a: a[..., 0], lambda a: a[..., 0] - 9.0)
    algorithm.target_critic = KnownQ(*table([[[0.5]], [[0.7]]]))
    with torch.no_grad():  # tanh N(2, 4.5^2), or all but its mean
        algorithm.average_actor.head[-1].bias[0] = 2.0
        algorithm.average_actor.head[-1].bias[2] = 1.5
    wide = algorithm.probe(batch)
    algorithm.average_actor.head[-1].bias.data[2] = -9.0
    probe = algorithm.probe(batch)
    tensors = algorithm.load(batch)
    data = tensors.actions[:, 0]
    target = tensors.rewards + 0.5 * tensors.bootstrap
    assert probe["data_q"] == pytest.approx(float(data.mean()), abs=1e-5)
    assert probe["data_q_min"] == pytest.approx(float(data.mean()) - 9.0, abs=1e-5)
    errors = [(data - shift - target).square().mean() for shift in (0.0, 9.0)]
    assert probe["td_error"] == pytest.approx(float(sum(errors)) / 2, rel=1e-5)
    assert probe["policy_q"] == pytest.approx(math.tanh(2.0), abs=0.05)
    assert wide["mode_q"] == pytest.approx(math.tanh(2.0), abs=0.02)
    assert wide["policy_q"] < 0.8
    assert abs(probe["random_q"]) < 0.5  # 12 of a mean of 0, spread 0.58


@pytest.mark.parametrize("name", ["cql", "brac"])
def test_the_probes_td_error_is_the_trained_one(name, build, batch, losses_of):
    """On the same transitions and random numbers, with the actor itself; that of the averaged
    actor, which is deployed, has a name of its own."""
    algorithm = build(name, critic_lr=1e-2, actor_lr=1e-2, warm_start_steps=2)
    for _ in range(8):
        algorithm.update(batch)
    algorithm.target = lambda batch, dist: Target(batch.rewards + dist.mode[:, 0], {})
    trained = float(losses_of(algorithm, batch).metrics["td_error"])
    probe = algorithm.probe(batch)
    assert probe["td_error"] == pytest.approx(trained, rel=1e-4)
    assert probe["td_error_average"] != pytest.approx(trained, rel=1e-3)


def test_a_policy_of_the_state_alone_trains_with_the_default_shift(build, batch):
    """There is nothing to shift in a vector."""
    shape = {"state": (3,)}
    algorithm = build("cql", shift=1, options={"shapes": shape})
    state = torch.linspace(-1.0, 1.0, 36).reshape(12, 3).numpy()
    batch = dataclasses.replace(
        batch, observations={"state": state}, next_observations={"state": state}
    )
    assert all(torch.isfinite(value) for value in algorithm.update(batch).values())
