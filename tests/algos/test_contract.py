"""What every algorithm promises to the training loop, with each action head and with networks of
all kinds; a new algorithm is tested by being registered."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from ofrl_robot.algos.build import Build, make_algorithm
from ofrl_robot.algos.registry import ALGORITHMS, config_class
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import pixels
from ofrl_robot.specs import STATE, WIDOWX_ACTION

LIGHT = {
    "brightness": 20.0, "contrast": 0.1, "color": 0.1, "illumination": 0.2, "blur": 0.5,
    "pixel_noise": 5.0,
}  # fmt: skip
BUSY = {
    **LIGHT, "shift": 2, "dr3_feat": True, "n_step": 3, "entropy_backup": True,
    "target_samples": 2,
}  # fmt: skip
EVERYTHING = {
    "bottleneck": True, "dropout": 0.2, "critic_encoders": "separate", "latent": 0,
    "encoder": "cog",
}  # fmt: skip
VARIANTS = [
    ("bc", {}, {}),
    ("bc", {}, {"action_head": "mixture"}),
    ("bc", {"shift": 2, **LIGHT},
     {"action_head": "mixed", "bottleneck": True, "bottleneck_place": "policy"}),
    ("cql", {}, {}),
    ("cql", {"lagrange": True, "max_backup": "min_max"}, {"action_head": "mixture"}),
    ("cql", {"cql_variant": "rho", **BUSY}, {"action_head": "mixed", **EVERYTHING}),
    ("brac", {}, {}),
    ("brac", {"divergence": "mmd", "behavior_head": "gaussian", **BUSY},
     {"action_head": "mixture", **EVERYTHING}),
    ("brac", {"divergence_form": "dual", "tune_beta": True}, {"action_head": "mixed"}),
]  # fmt: skip


def label(variant):
    name, settings, nets = variant
    return "-".join(
        [name, nets.get("action_head", "gaussian")] + (["all"] if "latent" in nets else [])
    )


every = pytest.mark.parametrize("variant", VARIANTS, ids=label)
each_name = pytest.mark.parametrize("name", ALGORITHMS.names())


@pytest.fixture
def make(build):
    def of(variant, seed=0, **settings):
        name, own, nets = variant
        warm = {"warm_start_steps": 1} if name != "bc" else {}  # updates see both sides of it
        return build(name, seed, nets=nets, **{**warm, **own, **settings})

    return of


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_every_algorithm_is_among_the_variants():
    assert {name for name, _, _ in VARIANTS} == set(ALGORITHMS.names())


@pytest.mark.slow
@every
def test_updates_fit_a_tiny_batch(variant, make, batch):
    """While it imitates: actor-critics by their warm start, bc always."""
    name = variant[0]
    rates = {f.name: 2e-3 for f in dataclasses.fields(config_class(name)) if f.name.endswith("_lr")}
    rates = {k: v for k, v in rates.items() if not k.startswith("discriminator")}
    warm = {"warm_start_steps": 99} if name != "bc" else {}
    algorithm = make(variant, actor_average=1.0, shift=0, **rates, **warm)
    torch.manual_seed(1)
    before = algorithm.probe(batch)
    losses = [algorithm.update(batch)["actor_loss"] for _ in range(60)]
    torch.manual_seed(1)
    after = algorithm.probe(batch)
    fell = float(sum(losses[:5]) - sum(losses[-5:])) / 5
    assert fell > 0.05  # with dropout little more
    assert after["data_log_prob"] > before["data_log_prob"] + 0.1
    if "td_error" in before:
        assert after["td_error"] < 0.7 * before["td_error"]


@every
def test_one_update_moves_every_trained_weight_and_counts_one_step(variant, make, batch, weights):
    algorithm = make(variant)
    names = {id(p): key for key, p in algorithm.named_parameters()}
    trained = [names[id(p)] for group in algorithm.optimizer.param_groups for p in group["params"]]
    assert len(set(trained)) == len(trained)
    before = weights(algorithm)
    algorithm.update(batch)
    after = weights(algorithm)
    assert algorithm.step == 1 and any(key.startswith("actor.") for key in trained)
    for key in trained:
        if key == "beta.log":  # waits for the end of the warm start
            continue
        # an input weight of a dead ReLU may get no gradient; a whole tensor may not
        assert not torch.equal(after[key], before[key]), key


@every
def test_metrics_are_detached_finite_scalars_with_stable_names(variant, make, batch):
    """Also over the end of the warm start: they are the columns of one table."""
    algorithm = make(variant)
    first, second, third = (algorithm.update(batch) for _ in range(3))
    assert list(first) == list(second) == list(third) and "actor_loss" in first
    for key, value in second.items():
        assert value.shape == () and not value.requires_grad and torch.isfinite(value), key
    for key, value in algorithm.probe(batch).items():
        assert isinstance(value, float) and math.isfinite(value), key


@pytest.mark.slow
@every
def test_same_seed_same_weights_and_another_seed_others(variant, make, batch, weights):
    def run(seed):
        algorithm = make(variant, seed, shift=2)
        for _ in range(3):
            algorithm.update(batch)
        return weights(algorithm)

    first = run(0)
    assert same(first, run(0)) and not same(first, run(1))


@every
def test_state_dict_holds_all_that_goes_on(variant, make, batch, weights):
    """Networks and dual variables: with it and the optimiser's state another object continues
    with the same numbers."""
    algorithm, other = make(variant), make(variant, seed=1)
    for _ in range(2):
        algorithm.update(batch)
    other.load_state_dict(algorithm.state_dict())
    other.step = algorithm.step
    for mine, its in zip(other.optimizers.values(), algorithm.optimizers.values()):
        mine.load_state_dict(copy.deepcopy(its.state_dict()))
    results = []
    for each in (algorithm, other):
        torch.manual_seed(2)
        metrics = each.update(batch)
        results.append((weights(each), metrics))
    assert same(results[0][0], results[1][0]) and same(results[0][1], results[1][1])


@every
def test_probe_is_deterministic_and_leaves_the_algorithm_alone(variant, make, batch, weights):
    algorithm = make(variant, shift=4)
    algorithm.update(batch)
    before, modes = weights(algorithm), [m.training for m in algorithm.modules()]
    torch.manual_seed(7)
    first = algorithm.probe(batch)
    torch.manual_seed(7)
    assert algorithm.probe(batch) == first
    assert same(weights(algorithm), before) and algorithm.step == 1
    assert [m.training for m in algorithm.modules()] == modes
    trained = [
        p for o in algorithm.optimizers.values() for g in o.param_groups for p in g["params"]
    ]
    assert trained and all(p.requires_grad for p in trained)


@every
def test_probe_of_a_single_transition_is_finite(variant, make, batch):
    """The last chunk of a probe set may hold one transition; no metric may become NaN by it."""
    one = batch.map(lambda values: values[:1])
    assert all(math.isfinite(v) for v in make(variant).probe(one).values())


@each_name
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


@each_name
def test_probe_measures_the_averaged_actor(name, build, batch):
    algorithm = build(name)
    before = algorithm.probe(batch)["action_mse"]
    with torch.no_grad():
        for parameter in algorithm.actor.parameters():
            parameter.add_(0.3)
    assert algorithm.probe(batch)["action_mse"] == before


def numbers(images):
    """Five float32 numbers from each image."""
    return images.reshape(12, -1)[:, :5].astype("float32")


@each_name
def test_float_observations_train_too(name, build, batch):
    """For data sets without images: the observation is its own code."""
    config = config_class(name)()  # a shift is of images, and leaves numbers as they are
    spec = dataclasses.replace(WIDOWX_ACTION, names=("a", "b"), units=("1",) * 2, scale=(1.0,) * 2)
    build = Build(NetConfig(hidden=(16,)), {STATE: (5,)}, spec, torch.device("cpu"))
    algorithm = make_algorithm(config, build)
    flat = dataclasses.replace(
        batch,
        observations={STATE: numbers(batch.observations["image"])},
        next_observations={STATE: numbers(batch.next_observations["image"])},
    )
    for _ in range(2):
        assert all(torch.isfinite(v) for v in algorithm.update(flat).values())
    assert all(math.isfinite(v) for v in algorithm.probe(flat).values())


@each_name
def test_both_images_of_a_transition_get_the_same_light(name, build, batch):
    algorithm = build(name, **LIGHT)
    batch = algorithm.load(batch)
    twice = dataclasses.replace(batch, next_observations=dict(batch.observations))
    noiseless = torch.ones(12, dtype=torch.bool)
    noiseless[[1, 9]] = False  # noise is of each picture by itself
    prepared = algorithm.prepare(twice, torch.float32)
    image, following = prepared.observations["image"], prepared.next_observations["image"]
    assert torch.equal(image[noiseless], following[noiseless])
    assert (image - pixels(batch.observations["image"])).abs().amax((1, 2, 3)).min() > 0.01
    assert torch.equal(twice.observations["image"], batch.observations["image"])


@each_name
def test_without_augmentation_images_are_only_cast(name, build, batch):
    algorithm = build(name)
    batch, state = algorithm.load(batch), torch.get_rng_state()
    prepared = algorithm.prepare(batch, torch.float32)
    assert torch.equal(prepared.observations["image"], pixels(batch.observations["image"]))
    assert torch.equal(torch.get_rng_state(), state)  # nor is a random number drawn


@each_name
def test_every_config_builds_with_its_defaults(name):
    build = Build(NetConfig(), {"image": (48, 48, 3)}, WIDOWX_ACTION, torch.device("cpu"))
    algorithm = make_algorithm(config_class(name)(), build)
    assert algorithm.config == config_class(name)()
