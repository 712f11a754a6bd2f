"""Settings: out of range is refused by name, and so is what excludes or does nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofrl_robot.algos.configs.base import plain
from ofrl_robot.algos.configs.brac import BRACConfig
from ofrl_robot.algos.registry import config_class
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bc", {"actor_average": 0.0}),
        ("bc", {"actor_average": 1.5}),
        ("bc", {"shift": -1}),
        ("bc", {"brightness": 300.0}),  # stronger than the picture
        ("bc", {"brightness": -1.0}),
        ("cql", {"contrast": 1.0}),
        ("cql", {"color": NAN}),
        ("cql", {"illumination": 2.0}),
        ("brac", {"blur": 1.5}),
        ("brac", {"pixel_noise": 200.0}),
        ("bc", {"actor_lr": 0.0}),
        ("bc", {"actor_lr": -1.0}),
        ("bc", {"actor_lr": NAN}),
        ("bc", {"bottleneck_const": -1.0}),
        ("cql", {"discount": 0.0}),
        ("cql", {"discount": 1.0}),
        ("cql", {"n_step": 0}),
        ("cql", {"critic_lr": -1.0}),
        ("cql", {"target_rate": 0.0}),
        ("cql", {"target_rate": 1.5}),
        ("cql", {"target_samples": 0}),
        ("cql", {"backup_actions": 0}),
        ("cql", {"ensemble_lambda": 1.1}),
        ("cql", {"initial_alpha": 0.0}),
        ("cql", {"initial_alpha": -1.0, "tune_alpha": False}),
        ("brac", {"penalty_ramp_steps": -1}),
        ("brac", {"initial_alpha": 0.0, "tune_alpha": True}),
        ("cql", {"warm_start_steps": -1}),
        ("cql", {"actor_bc_weight": -0.1}),
        ("cql", {"dr3_weight": -1.0}),
        ("cql", {"regularization_const": NAN}),
        ("cql", {"target_entropy": NAN}),
        ("cql", {"lagrange_gap": float("inf")}),
        ("cql", {"cql_samples": (0, 0, 0)}),
        ("cql", {"cql_samples": (4, -1, 4)}),
        ("cql", {"cql_weight": -1.0}),
        ("cql", {"cql_temperature": 0.0}),
        ("brac", {"beta": 0.0}),
        ("brac", {"mmd_sigma": 0.0}),
        ("brac", {"divergence_samples": 0}),
        ("brac", {"discriminator_steps": 0}),
        ("brac", {"discriminator_lr": 0.0}),
        ("brac", {"gradient_penalty": -1.0}),
        ("brac", {"target_divergence": -1.0}),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_by_name(name, settings):
    with pytest.raises(ConfigError, match=list(settings)[0]):
        config_class(name)(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_critics": 0},
        {"components": 0},
        {"bottleneck_size": 0},
        {"latent": -1},
        {"hidden": ()},
        {"hidden": (4, 0)},
        {"log_std_min": 3.0},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
    ids=str,
)
def test_a_network_setting_out_of_range_is_refused_by_name(settings):
    with pytest.raises(ConfigError, match=list(settings)[0]):
        NetConfig(**settings)


MIXED = {"action_head": "mixed"}


@pytest.mark.parametrize(
    ("name", "settings", "nets", "words"),
    [
        # a constant of what is off
        ("bc", {"bottleneck_const": 0.5}, {}, "bottleneck_const.*--bottleneck"),
        ("bc", {}, {"bottleneck_size": 8}, "bottleneck_size.*--bottleneck"),
        ("cql", {}, {"bottleneck_place": "policy"}, "bottleneck_place.*--bottleneck"),
        ("bc", {}, {"components": 3}, "components.*--action-head mixture"),
        ("cql", {"dr3_weight": 0.1}, {}, "dr3_weight.*--dr3-feat"),
        ("brac", {"regularization_const": 1.0}, {}, "regularization_const.*--regularization"),
        ("cql", {"backup_actions": 4}, {}, "backup_actions.*--max-backup"),
        ("cql", {"tune_alpha": False, "target_entropy": -2.0}, {}, "target_entropy.*--tune-alpha"),
        ("cql", {"actor_bc_entries": "pose"}, MIXED, "actor_bc_entries.*--actor-bc-weight"),
        ("cql", {"actor_bc_entries": "pose", "actor_bc_weight": 0.2}, {},
         "actor_bc_entries.*--action-head mixed"),
        ("cql", {"ensemble_lambda": 0.5}, {"n_critics": 1}, "ensemble_lambda.*--n-critics"),
        ("cql", {"lagrange_gap": 1.0}, {}, "lagrange_gap.*--lagrange"),
        ("brac", {"mmd_sigma": 1.0}, {}, "mmd_sigma.*--divergence mmd"),
        ("brac", {"target_divergence": 1.0}, {}, "target_divergence.*--tune-beta"),
        ("brac", {"discriminator_steps": 1}, {}, "discriminator_steps.*dual"),
        ("brac", {"divergence_form": "dual", "divergence_samples": 1}, {},
         "divergence_samples.*primal"),
        ("brac", {"divergence_form": "dual", "behavior_path": Path("b")}, {},
         "behavior_path.*primal"),
        ("brac", {"behavior_path": Path("b"), "behavior_head": "mixture"}, {},
         "behavior_head.*fitted"),
        # a part that the algorithm has not
        ("bc", {}, {"bottleneck": True}, "bc has no critic.*--bottleneck-place policy"),
        ("bc", {}, {"resnet_enc": True}, "bc has no critic.*--resnet-policy"),
        # two that exclude each other
        ("cql", {"max_backup": "max_min", "target_samples": 2}, {}, "target_samples.*max-backup"),
        ("cql", {"max_backup": "max_min", "entropy_backup": True}, {},
         "max_backup.*entropy_backup"),
        ("brac", {"max_backup": "min_max", "ensemble_lambda": 0.5}, {},
         "max_backup.*ensemble_lambda"),
        ("cql", {"cql_variant": "rho", "importance_sampling": False}, {},
         "importance_sampling.*--cql-variant h"),
        ("cql", {"cql_variant": "rho", "cql_samples": (1, 4, 0)}, {},
         "cql_samples.*--cql-variant h"),
        ("brac", {"divergence": "wasserstein"}, {}, "wasserstein has no primal.*kl, mmd, density"),
        ("brac", {"divergence": "mmd", "divergence_form": "dual"}, {},
         "mmd has no dual.*kl, wasserstein"),
        ("brac", {"warm_start_steps": 0}, {}, "fitted during the warm start.*--behavior-path"),
        ("brac", {"behavior_head": "mixed"}, {}, "gaussian and behavior_head mixed"),
        ("brac", {"behavior_head": "mixture"}, MIXED, "mixed and behavior_head mixture"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused_with_the_reason(name, settings, nets, words):
    config = config_class(name)(**settings)
    with pytest.raises(ConfigError, match=words) as caught:
        config.check(NetConfig(**nets))
    assert "\n" not in str(caught.value)


def test_a_variant_that_looks_at_no_action_of_its_own_is_refused():
    with pytest.raises(ConfigError, match="cql_variant rho"):
        config_class("cql")(cql_variant="rho", cql_samples=(4, 0, 4))


@pytest.mark.parametrize(
    ("name", "settings", "nets"),
    [
        ("bc", {}, {}),
        ("bc", {"bottleneck_const": 0.5}, {"bottleneck": True, "bottleneck_place": "policy"}),
        ("cql", {}, {"bottleneck": True, "resnet_enc": True, "dropout": 0.4}),
        ("cql", {"dr3_feat": True, "dr3_weight": 0.0, "regularization": "l1"}, MIXED),
        ("cql", {"max_backup": "max_min", "backup_actions": 4}, {}),
        ("cql", {"cql_variant": "rho"}, {}),
        ("cql", {"cql_variant": "rho", "cql_samples": (0, 10, 0)}, {}),
        ("cql", {"lagrange": True, "lagrange_gap": -1.0}, {}),
        ("cql", {}, {"components": 3, "action_head": "mixture"}),
        ("brac", {"behavior_head": "mixture"}, {}),
        ("brac", {"behavior_path": Path("b"), "warm_start_steps": 0}, {}),
        ("brac", {"divergence_form": "dual", "warm_start_steps": 0}, MIXED),
        ("brac", {"divergence_form": "dual", "divergence": "wasserstein"}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_go_together_pass(name, settings, nets):
    config_class(name)(**settings).check(NetConfig(**nets))


def test_an_unknown_algorithm_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'sac' is unknown.*bc, brac, cql"):
        config_class("sac")


def test_a_config_is_plain_json_with_its_paths_as_text():
    values = plain(BRACConfig(behavior_path=Path("runs/bc")))
    assert json.loads(json.dumps(values))["behavior_path"] == "runs/bc"
    assert plain(BRACConfig())["behavior_path"] is None
