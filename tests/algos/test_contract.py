"""What every algorithm promises to the training loop; a new one is tested by being in CONFIGS."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from ofrl_robot.algos.config import CONFIGS, config_class
from ofrl_robot.algos.registry import make_algorithm
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.specs import WIDOWX_ACTION

every = pytest.mark.parametrize("name", sorted(CONFIGS))


def weights(algorithm):
    """Copies of all weights of all networks of the algorithm."""
    return {k: v.clone() for k, v in algorithm.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@every
def test_updates_fit_a_tiny_batch(name, build, batch):
    rates = {f.name: 1e-3 for f in dataclasses.fields(CONFIGS[name]) if f.name.endswith("_lr")}
    algorithm = build(name, actor_average=1.0, **rates)
    torch.manual_seed(1)
    before = algorithm.probe(batch)
    losses = [algorithm.update(batch)["actor_loss"] for _ in range(60)]
    after = algorithm.probe(batch)
    # while it imitates: cql by its warm start, bc always
    assert float(sum(losses[-5:]) / 5) < float(sum(losses[:5]) / 5) - 0.1
    assert after["data_log_prob"] > before["data_log_prob"] + 0.1
    if "td_error" in before:
        assert algorithm.update(batch)["td_error"] < 0.5 * before["td_error"]


@every
def test_one_update_moves_every_trained_weight_and_counts_one_step(name, build, batch):
    algorithm = build(name)
    names = {id(p): key for key, p in algorithm.named_parameters()}
    trained = [names[id(p)] for group in algorithm.optimizer.param_groups for p in group["params"]]
    before = weights(algorithm)
    algorithm.update(batch)
    after = weights(algorithm)
    assert algorithm.step == 1 and any(key.startswith("actor.") for key in trained)
    for key in trained:
        # an input weight of a dead ReLU may get no gradient; a whole tensor may not
        assert not torch.equal(after[key], before[key]), key


@every
@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_averaged_actor_lags_by_its_rate(name, rate, build, batch):
    algorithm = build(name, actor_average=rate, actor_lr=1e-2)
    old = [p.detach().clone() for p in algorithm.actor.parameters()]
    assert all(map(torch.equal, old, algorithm.average_actor.parameters()))
    algorithm.update(batch)
    for start, now, average in zip(
        old, algorithm.actor.parameters(), algorithm.average_actor.parameters()
    ):
        torch.testing.assert_close(average, (start + rate * (now - start)).detach())
        assert not average.requires_grad


@every
def test_metrics_are_detached_finite_scalars_with_stable_names(name, build, batch):
    algorithm = build(name)
    first, second = algorithm.update(batch), algorithm.update(batch)
    assert list(first) == list(second) and "actor_loss" in first
    for key, value in second.items():
        assert value.shape == () and not value.requires_grad and torch.isfinite(value), key
    for key, value in algorithm.probe(batch).items():
        assert isinstance(value, float) and math.isfinite(value), key


@every
def test_same_seed_same_weights_and_another_seed_others(name, build, batch):
    def run(seed):
        algorithm = build(name, seed, shift=2)
        for _ in range(3):
            algorithm.update(batch)
        return weights(algorithm)

    first = run(0)
    assert same(first, run(0)) and not same(first, run(1))


@every
def test_probe_is_deterministic_and_leaves_the_algorithm_alone(name, build, batch):
    algorithm = build(name, shift=4)
    algorithm.update(batch)
    before = weights(algorithm)
    torch.manual_seed(7)
    first = algorithm.probe(batch)
    torch.manual_seed(7)
    assert algorithm.probe(batch) == first
    assert same(weights(algorithm), before) and algorithm.step == 1
    trained = [p for o in optimizers(algorithm) for g in o.param_groups for p in g["params"]]
    assert trained and all(p.requires_grad for p in trained)


def optimizers(algorithm):
    return [v for v in vars(algorithm).values() if isinstance(v, torch.optim.Optimizer)]


@every
def test_probe_of_a_single_transition_is_finite(name, build, batch):
    """The last chunk of a probe set may hold one transition; no metric may become NaN by it."""
    one = type(batch)(**{k: v[:1] for k, v in vars(batch).items()})
    assert all(math.isfinite(v) for v in build(name).probe(one).values())


@every
def test_probe_measures_the_averaged_actor(name, build, batch):
    algorithm = build(name)
    before = algorithm.probe(batch)["action_mse"]
    with torch.no_grad():
        for parameter in algorithm.actor.parameters():
            parameter.add_(0.3)
    assert algorithm.probe(batch)["action_mse"] == before


@every
def test_every_config_builds_with_its_defaults(name):
    algorithm = make_algorithm(
        CONFIGS[name](), NetConfig(), (48, 48, 3), WIDOWX_ACTION, torch.device("cpu")
    )
    assert algorithm.config == config_class(name)()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bc", {"actor_average": 0.0}),
        ("bc", {"actor_average": 1.5}),
        ("bc", {"shift": -1}),
        ("bc", {"actor_lr": 0.0}),
        ("bc", {"actor_lr": -1.0}),
        ("cql", {"discount": 0.0}),
        ("cql", {"discount": 1.0}),
        ("cql", {"cql_samples": (0, 0, 0)}),
        ("cql", {"critic_lr": -1.0}),
        ("cql", {"target_rate": 0.0}),
        ("cql", {"target_rate": 1.5}),
        ("cql", {"cql_weight": -1.0}),
        ("cql", {"warm_start_steps": -1}),
        ("cql", {"actor_bc_weight": -0.1}),
        ("cql", {"actor_lr": float("nan")}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, settings):
    with pytest.raises(ConfigError, match=list(settings)[0]):
        CONFIGS[name](**settings)


def test_an_unknown_algorithm_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'sac'.*bc, cql, brac"):
        config_class("sac")
