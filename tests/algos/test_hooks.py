"""What an algorithm answers to the training loop, and the hooks that a new algorithm fills."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ofrl_robot.algos.actor_critic import ActorCritic
from ofrl_robot.algos.base import Algorithm, Losses
from ofrl_robot.algos.build import make_algorithm
from ofrl_robot.algos.configs.actor_critic import ActorCriticConfig
from ofrl_robot.algos.configs.base import AlgoConfig
from ofrl_robot.algos.cql import CQL
from ofrl_robot.algos.registry import ALGORITHMS, config_class
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.specs import STATE

each_name = pytest.mark.parametrize("name", ALGORITHMS.names())
DUAL = {"divergence_form": "dual"}


# -- what the loop asks -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("bc", {}, ("bc", 1, 1.0, 0, False)),
        ("cql", {"n_step": 3, "discount": 0.9}, ("cql", 3, 0.9, 2000, True)),
        ("brac", {"warm_start_steps": 7}, ("brac", 1, 0.99, 7, True)),
    ],
)
def test_a_config_answers_what_the_training_loop_asks(name, settings, expected):
    config = config_class(name)(**settings)
    got = (config.name, config.n_step, config.discount, config.warm_start_steps)
    assert (*got, config.learns_values) == expected


def test_brac_names_the_checkpoint_of_its_behavior_and_the_others_none():
    assert config_class("brac")(behavior_path=Path("b")).behavior_checkpoint == Path("b")
    assert all(config_class(name)().behavior_checkpoint is None for name in ALGORITHMS.names())


def test_only_the_dual_form_is_refused_under_torchrun():
    assert "dual" in config_class("brac")(**DUAL).distributed_refusal()
    assert [config_class(name)().distributed_refusal() for name in ALGORITHMS.names()] == [""] * 3


@pytest.mark.parametrize(
    ("name", "settings", "rewards", "negative"),
    [
        ("bc", {}, (1.0, 0.0), False),
        ("cql", {}, (1.0, 0.0), False),
        ("cql", {}, (1.0, -1.0), True),
        ("cql", {}, (-2.0, 0.0), True),
        ("cql", {"entropy_backup": True}, (1.0, 0.0), True),
        ("brac", {}, (1.0, 0.0), True),
    ],
)
def test_values_below_0_are_sound_for_some(name, settings, rewards, negative):
    assert config_class(name)(**settings).values_may_be_negative(*rewards) == negative


@each_name
def test_value_limits_and_networks_of_a_checkpoint(name, build):
    algorithm = build(name, options={"reward_range": (-1.0, 0.0)})
    networks = algorithm.checkpoint_networks()
    assert networks["actor"] is algorithm.average_actor
    if name == "bc":
        assert algorithm.value_limits is None and list(networks) == ["actor"]
    else:
        assert algorithm.value_limits == pytest.approx((-100.0, 0.0))
        assert list(networks) == ["actor", "critic"] and networks["critic"] is algorithm.critic


@each_name
def test_the_phase_is_the_key_of_what_a_step_computes(name, build, batch):
    warm = {} if name == "bc" else {"warm_start_steps": 2}
    algorithm, phases = build(name, **warm), []
    for _ in range(4):
        phases.append(algorithm.phase)
        algorithm.update(batch)
    assert phases == (["train"] * 4 if name == "bc" else ["warm_start"] * 2 + ["train"] * 2)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [("bc", {}, ["main"]), ("cql", {}, ["main"]), ("brac", DUAL, ["main", "discriminator"])],
)
def test_every_optimiser_is_named_and_can_be_recorded_on_a_gpu(
    name, settings, expected, build, monkeypatch
):
    """Fused, so that the step counts are on the device; tests/training/test_graph.py records."""
    made, plain = [], torch.optim.Adam

    def spy(*args, **options):
        made.append(options["fused"])
        return plain(*args, **options)

    monkeypatch.setattr(torch.optim, "Adam", spy)
    algorithm = build(name, **settings)
    assert list(algorithm.optimizers) == expected and made == [True] * len(expected)
    owned = [v for v in vars(algorithm).values() if isinstance(v, torch.optim.Optimizer)]
    assert owned == list(algorithm.optimizers.values())


def test_configs_and_registry_need_no_torch():
    """`ofrl train --help` lists every setting before torch is imported."""
    code = (
        "import sys; from ofrl_robot.algos.registry import ALGORITHMS, config_class\n"
        "[config_class(name)() for name in ALGORITHMS.names()]; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


# -- observations -----------------------------------------------------------------------------


@pytest.fixture
def many(batch):
    """A batch of two cameras and a state of 3 entries, one of which never varies."""
    rng = np.random.default_rng(5)

    def observed(images):
        state = rng.normal((3.0, -50.0, 0.2), (1.0, 20.0, 0.0), (12, 3)).astype(np.float32)
        return {"image": images, "wrist": images[:, ::2].copy(), STATE: state}

    return dataclasses.replace(
        batch,
        observations=observed(batch.observations["image"]),
        next_observations=observed(batch.next_observations["image"]),
    )


MANY = {"image": (16, 16, 3), "wrist": (8, 16, 3), STATE: (3,)}
STATS = (np.array([3.0, -50.0, 0.2]), np.array([1.0, 20.0, 0.0]))


@pytest.mark.parametrize(
    ("name", "settings"), [("bc", {}), ("cql", {"dr3_feat": True}), ("brac", {}), ("brac", DUAL)]
)
def test_cameras_and_state_train_together(name, settings, build, many, weights):
    options = {"shapes": MANY, "state_stats": STATS, "bf16": True}
    algorithm = build(name, shift=2, options=options, **settings)
    before = weights(algorithm)
    for _ in range(2):
        assert all(torch.isfinite(value) for value in algorithm.update(many).values())
    assert all(math.isfinite(value) for value in algorithm.probe(many).values())
    after = weights(algorithm)
    for camera in ("cameras.0", "cameras.1"):
        moved = [k for k in after if camera in k and k.startswith("actor.")]
        assert moved and not any(torch.equal(after[k], before[k]) for k in moved)


@each_name
def test_every_network_normalises_the_state_by_the_datas_statistics(name, build):
    algorithm = build(name, options={"shapes": MANY, "state_stats": STATS})
    state = algorithm.state_dict()
    means = [value for key, value in state.items() if key.endswith("state_mean")]
    stds = [value for key, value in state.items() if key.endswith("state_std")]
    assert len(means) == len(stds) == {"bc": 2, "cql": 4, "brac": 6}[name]
    assert all(mean.tolist() == pytest.approx([3.0, -50.0, 0.2]) for mean in means)
    assert all(std.tolist() == [1.0, 20.0, 1.0] for std in stds)
    plain = build(name, options={"shapes": MANY})
    assert plain.state_dict()["actor.encoder.state_std"].tolist() == [1.0, 1.0, 1.0]


def test_dr3_without_a_camera_is_refused(build):
    with pytest.raises(ConfigError, match="dr3_feat.*observe a camera"):
        build("cql", dr3_feat=True, options={"shapes": {STATE: (3,)}})


# -- a new algorithm --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RegressionConfig(AlgoConfig):
    """A deterministic policy, a network of its own, and a phase before the training."""

    name = "regression"
    algorithm_path = "tests.algos.test_hooks:Regression"
    needs_densities = False

    model_lr: float = 1e-2
    """Learning rate of the model."""


class Regression(Algorithm):
    """Least squares; a model of the rewards is trained first."""

    def __init__(self, config, build):
        super().__init__(config, build)
        self.model = nn.Linear(build.action.size, 1).to(self.device)
        self.train_network(self.model, config.model_lr)

    @property
    def pretraining_steps(self):
        return 3

    def pretrain_losses(self, batch):
        error = (self.model(batch.actions).squeeze(1) - batch.rewards).square().mean()
        metrics = {"actor_loss": torch.zeros(()), "model_loss": error.detach()}
        return Losses({"model": error}, metrics)

    def losses(self, batch):
        dist = self.actor(batch.observations)
        loss = (dist.mode - batch.actions).square().mean()
        metrics = {"actor_loss": loss.detach(), "model_loss": torch.zeros(())}
        return Losses({"actor": loss}, metrics)

    def checkpoint_networks(self):
        return {**super().checkpoint_networks(), "model": self.model}


@pytest.fixture
def regression(build, monkeypatch):
    """Registered as another package would register it."""
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS._entries))
    ALGORITHMS.register("regression", "tests.algos.test_hooks:RegressionConfig")
    return build("regression", nets={"action_head": "deterministic"}, actor_lr=1e-2)


def moved(algorithm, batch, weights):
    before = weights(algorithm)
    algorithm.update(batch)
    after = weights(algorithm)
    return {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}


def test_a_new_algorithm_pretrains_its_own_network_and_then_its_policy(regression, batch, weights):
    phases = []
    for _ in range(5):
        phases.append((regression.phase, moved(regression, batch, weights)))
    assert phases[:3] == [("pretrain", {"model"})] * 3
    assert phases[3:] == [("train", {"actor", "average_actor"})] * 2
    assert list(regression.checkpoint_networks()) == ["actor", "model"]
    losses = [float(regression.update(batch)["actor_loss"]) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_deterministic_policy_has_one_action_and_no_density(regression, batch):
    observations = regression.load(batch).observations
    dist = regression.actor(observations)
    actions, log_prob = dist.sample(3)
    assert actions.shape == (12, 3, 2) and (log_prob == 0).all()
    assert torch.equal(actions[:, 1], dist.mode) and dist.mode.abs().max() < 1.0
    with pytest.raises(ConfigError, match="deterministic policy has no density"):
        dist.log_prob(actions)
    probe = regression.probe(batch)
    assert "data_log_prob" not in probe and math.isfinite(probe["action_mse"])


@each_name
def test_a_deterministic_policy_is_refused_where_densities_are_needed(name, build):
    with pytest.raises(ConfigError, match=f"deterministic has no density, which {name} needs"):
        build(name, nets={"action_head": "deterministic"})


def test_an_entry_that_is_no_config_of_that_name_is_refused(monkeypatch):
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS._entries))
    ALGORITHMS.register("other", "tests.algos.test_hooks:RegressionConfig")
    with pytest.raises(ConfigError, match="'other' is registered as.*RegressionConfig"):
        config_class("other")


def test_an_algorithm_that_cannot_be_imported_is_refused(build):
    @dataclasses.dataclass(frozen=True)
    class Broken(AlgoConfig):
        name = "broken"
        algorithm_path = "no_such_package:Broken"

    with pytest.raises(ConfigError, match="'broken' cannot be loaded.*no_such_package"):
        make_algorithm(Broken(), None)


@dataclasses.dataclass(frozen=True)
class TwinConfig(ActorCriticConfig):
    """Twin critics and a deterministic policy, without entropy."""

    name = "twin"
    algorithm_path = "tests.algos.test_hooks:Twin"
    needs_densities = False


class Twin(ActorCritic):
    """TD3's skeleton: the parts without a density of the actor-critic step are enough."""


def test_a_deterministic_actor_climbs_q_without_an_entropy(build, batch, monkeypatch):
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS._entries))
    ALGORITHMS.register("twin", TwinConfig)
    algorithm = build(
        "twin", nets={"action_head": "deterministic"}, tune_alpha=False, warm_start_steps=0
    )
    observations = algorithm.load(batch).observations

    def value():
        with torch.no_grad():
            encoded = algorithm.critic.encode(observations)
            actions = algorithm.actor(observations).mode.unsqueeze(1)
            return float(algorithm.critic.q(encoded, actions).min(0).values.mean())

    metrics = algorithm.update(batch)
    assert all(torch.isfinite(v) for v in metrics.values())
    assert float(metrics["actor_loss"]) == pytest.approx(-value(), abs=0.05)
    assert all(math.isfinite(v) for v in algorithm.probe(batch).values())


def test_the_regulariser_sees_the_returns_and_which_proposals_are_uniform(build, batch):
    """What calibrated Q-learning needs: max(Q, return) at the policy's actions only."""
    seen = []

    class Calibrated(CQL):
        def regulariser(self, batch, data_q, q, proposals):
            seen.append((batch.returns, q.shape, proposals))
            policy_q = torch.maximum(q[..., proposals.n_uniform :], batch.returns[:, None])
            q = torch.cat([q[..., : proposals.n_uniform], policy_q], -1)
            return super().regulariser(batch, data_q, q, proposals)

    algorithm = build("cql", cql_samples=(2, 3, 4))
    algorithm.__class__ = Calibrated
    algorithm.update(batch)
    ((returns, shape, proposals),) = seen
    assert torch.equal(returns, torch.from_numpy(batch.returns)) and shape == (2, 12, 9)
    assert proposals.n_uniform == 2
    assert torch.allclose(proposals.log_density[:, :2], torch.tensor(-2 * math.log(2.0)))


# -- bounds of the networks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": (10**9,)}, "hidden 1000000000 is not a number of units from 1 to 65536"),
        ({"hidden": (4,) * 65}, "hidden has 65 layers, not 1 to 64"),
        ({"hidden": (True,)}, "hidden True"),
        ({"latent": 10**9}, "latent 1000000000 is not in 0 to 65536"),
        ({"n_critics": 51}, "n_critics 51 is not in 1 to 50"),
        ({"bottleneck_size": 10**9}, "bottleneck_size"),
        ({"components": 10**9}, "components"),
        ({"encoder": "huge"}, "encoder 'huge' is unknown; use strided"),
        ({"action_head": 3}, "action_head 3 is not a str"),
        ({"dropout": float("nan")}, "dropout nan"),
    ],
    ids=str,
)
def test_networks_that_no_memory_holds_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words) as caught:
        NetConfig(**settings)
    assert "\n" not in str(caught.value)
