"""Public settings of the algorithms. Importing this imports no torch."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Tuple, Type

from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import Head, NetConfig


@dataclasses.dataclass(frozen=True)
class AlgoConfig:
    """What every algorithm has."""

    actor_lr: float = 3e-4
    """Adam learning rate of the actor (per step)."""
    shift: int = 1
    """Random shift of training images (pixels; 0 = off; the papers' random crop is 4)."""
    actor_average: float = 0.002
    """Rate per step of the Polyak average of the actor that is probed and deployed (1 = deploy
    the actor itself). Averaging over ~500 steps takes much of the lottery out of the choice of
    the checkpoint (docs/experiments.md)."""
    bottleneck_const: float = 1e-3
    """Weight of the bottleneck's rate (mean KL in nats) in the loss, with --bottleneck."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{field.name} {value} is not finite")
        _require(self, "actor_average", 0.0, 1.0, low_open=True, fix="1 deploys the actor itself")
        if self.shift < 0:
            raise ConfigError(f"shift {self.shift} is negative", "use 0 for no shift")
        _require(self, "actor_lr", 0.0, low_open=True)
        _require(self, "bottleneck_const", 0.0)

    def check(self, nets: NetConfig) -> None:
        """Raise ConfigError for settings that exclude each other, or that would do nothing."""
        if not nets.bottleneck:
            _pointless(self, "--bottleneck", "bottleneck_const")
            for name in ("bottleneck_place", "bottleneck_size"):
                if getattr(nets, name) != getattr(NetConfig, name):
                    _refuse(name, "--bottleneck")
        if nets.action_head != "mixture" and nets.components != NetConfig.components:
            _refuse("components", "--action-head mixture")


@dataclasses.dataclass(frozen=True)
class BCConfig(AlgoConfig):
    """Behavioural cloning: maximum likelihood."""

    def check(self, nets: NetConfig) -> None:
        super().check(nets)
        if nets.bottleneck and nets.bottleneck_place == "critic":
            raise ConfigError("bc has no critic to bottleneck", "use --bottleneck-place policy")
        if nets.resnet_enc:
            raise ConfigError("bc has no critic for --resnet-enc", "use --resnet-policy")


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig(AlgoConfig):
    """What CQL and BRAC share."""

    discount: float = 0.99
    """Discount per control step; 1 / (1 - discount) should be about the length of the task."""
    n_step: int = 1
    """Rewards summed before the target looks at a next image (cut at the episode's end)."""
    critic_lr: float = 3e-4
    """Adam learning rate of the critics (per step)."""
    target_rate: float = 0.005
    """Polyak rate of the target critics (per step)."""
    target_samples: int = 1
    """Next actions averaged in the target. 1 is the plain algorithm; a conservative Q is steep
    around the data, so one sample is a noisy target (docs/experiments.md)."""
    max_backup: Literal["off", "max_min", "min_max"] = "off"
    """Take the best of backup_actions next actions in the target: "max_min" the maximum over
    actions per critic, then the minimum over critics (COG); "min_max" the other way round."""
    backup_actions: int = 10
    """Next actions of max_backup."""
    ensemble_lambda: float = 1.0
    """Critics count as lambda * min + (1 - lambda) * max, in target and actor loss."""
    entropy_backup: bool = False
    """Subtract temperature * log pi of the next action in the target. Off is what the papers'
    code calls deterministic backup (its next action is sampled all the same)."""
    clip_targets: bool = True
    """Clip targets to the range of returns that the rewards allow, e.g. [0, 1/(1-discount)] for
    rewards of 0 and 1. Entropy and penalties come after."""
    initial_alpha: float = 1.0
    """Entropy temperature at the start; it is then tuned to a target entropy of -A. SAC's 1.0
    keeps the policy wide for thousands of steps, and value does not travel back through wide
    sampled next actions: 0.1 does (docs/experiments.md)."""
    tune_alpha: bool = True
    """Tune the entropy temperature; else it stays at initial_alpha."""
    target_entropy: float = -1.0
    """Entropy per continuous action entry to which the temperature is tuned (nats); SAC's -1.
    Discrete entries (action_head mixed) count 0."""
    warm_start_steps: int = 2000
    """Steps in which the actor only imitates, before it follows Q."""
    actor_bc_weight: float = 0.0
    """Weight of -log pi(a_data|s) kept in the actor loss after the warm start. 0 is the plain
    algorithm; 0.2 keeps the actor near the data where Q is flat (docs/experiments.md)."""
    dr3_feat: bool = False
    """DR3 (underfitting correction): keep the critic's features of image and next image from
    growing alike (Kumar et al. 2022, arXiv 2112.04716)."""
    dr3_weight: float = 1e-3
    """Weight of DR3's term, the mean of the features' inner product."""
    regularization: Literal["off", "l1", "l2"] = "off"
    """Penalty on the critics' weights (overfitting correction): "l1" the sum over tensors of the
    mean absolute weight, "l2" Adam's weight decay, both as in the workflow paper's code."""
    regularization_const: float = 1e-3
    """Weight of that penalty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.discount < 1.0:
            raise ConfigError(f"discount {self.discount} is not in (0, 1)")
        for name in ("target_samples", "n_step", "backup_actions"):
            _require(self, name, 1)
        _require(self, "target_rate", 0.0, 1.0, low_open=True)
        _require(self, "ensemble_lambda", 0.0, 1.0)
        for name in ("critic_lr", "initial_alpha"):
            _require(self, name, 0.0, low_open=True)
        for name in ("actor_bc_weight", "warm_start_steps", "dr3_weight", "regularization_const"):
            _require(self, name, 0.0)

    def check(self, nets: NetConfig) -> None:
        super().check(nets)
        if not self.dr3_feat:
            _pointless(self, "--dr3-feat", "dr3_weight")
        if self.regularization == "off":
            _pointless(self, "--regularization l1 or l2", "regularization_const")
        if self.max_backup == "off":
            _pointless(self, "--max-backup max_min or min_max", "backup_actions")
        else:
            _pointless(self, "--max-backup off", "target_samples")
            if self.ensemble_lambda != 1.0 or self.entropy_backup:
                raise ConfigError(
                    "max_backup takes the minimum over critics and no entropy",
                    "drop it, or ensemble_lambda and entropy_backup",
                )
        if not self.tune_alpha:
            _pointless(self, "--tune-alpha", "target_entropy")
        if nets.ensemble == 1 and self.ensemble_lambda != 1.0:
            _refuse("ensemble_lambda", "--ensemble 2 or more")


@dataclasses.dataclass(frozen=True)
class CQLConfig(ActorCriticConfig):
    """Conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779)."""

    cql_weight: float = 1.0
    """Weight of the conservative term R = E[soft maximum over actions of Q(s,.)] - E[Q(s,a_data)]
    (the papers' code: min_q_weight, alpha)."""
    cql_variant: Literal["h", "rho"] = "h"
    """Soft maximum over all actions ("h": log of the integral of exp Q) or over those the policy
    takes ("rho": log of its mean of exp Q)."""
    cql_samples: Tuple[int, int, int] = (4, 4, 4)
    """Actions per state that estimate it: uniform, of the policy here, of the policy at the next
    image. Variant "rho" has only the policy's."""
    importance_sampling: bool = True
    """Correct each value for the density its action was drawn with (variant "h")."""
    cql_temperature: float = 1.0
    """T of the soft maximum T log sum exp(Q/T)."""
    lagrange: bool = False
    """Tune a multiplier of the conservative term so that cql_weight * R stays near
    lagrange_gap."""
    lagrange_gap: float = 5.0
    """See lagrange."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.cql_samples) < 0 or sum(self.cql_samples) == 0:
            raise ConfigError(
                "cql_samples {} {} {}: none below 0, at least one action".format(*self.cql_samples),
                "e.g. 4 4 4",
            )
        if self.cql_variant == "rho" and self.cql_samples[1] == 0:
            raise ConfigError("cql_variant rho needs actions of the policy", "e.g. 0 4 0")
        _require(self, "cql_weight", 0.0)
        _require(self, "cql_temperature", 0.0, low_open=True)

    def check(self, nets: NetConfig) -> None:
        super().check(nets)
        if not self.lagrange:
            _pointless(self, "--lagrange", "lagrange_gap")
        if self.cql_variant == "rho":
            if not self.importance_sampling:
                _refuse("importance_sampling", "--cql-variant h")
            if self.cql_samples[0] or self.cql_samples[2]:
                if self.cql_samples != CQLConfig.cql_samples:
                    _refuse("cql_samples of uniform and next actions", "--cql-variant h")


@dataclasses.dataclass(frozen=True)
class BRACConfig(ActorCriticConfig):
    """Behaviour regularised actor critic (Wu et al. 2019, arXiv 1911.11361)."""

    divergence: Literal["kl", "mmd", "density", "wasserstein"] = "kl"
    """How far the policy pi is from the behaviour policy b: "kl", "mmd" (Laplacian kernel),
    "density" (-log b alone, with the entropy apart: the workflow paper's BRAC) or
    "wasserstein"."""
    divergence_form: Literal["primal", "dual"] = "primal"
    """Estimated with a fitted behaviour policy (primal: kl, mmd, density) or with a discriminator
    between data and policy actions (dual: kl, wasserstein)."""
    beta: float = 1.0
    """Weight of the divergence (BRAC's alpha, the workflow's beta)."""
    tune_beta: bool = False
    """Tune beta so that the mean divergence stays near target_divergence."""
    target_divergence: float = 0.0
    """See tune_beta."""
    value_penalty: bool = True
    """Divergence in target and actor loss (BRAC-v); off: in the actor loss only (BRAC-p)."""
    divergence_samples: int = 4
    """Actions per state of pi, and of b for mmd."""
    mmd_sigma: float = 20.0
    """Width of the Laplacian kernel exp(-|a - b|_1 / sigma)."""
    behavior_path: Optional[Path] = None
    """Run folder or checkpoint (e.g. of --algo bc) that is b (default: b is fitted during the warm
    start, with networks of its own)."""
    behavior_head: Optional[Head] = None
    """Action head of the b that is fitted (default: as action_head)."""
    discriminator_lr: float = 1e-3
    """Adam learning rate of the dual's discriminator (per step)."""
    discriminator_steps: int = 3
    """Its steps per step of the others, on the same batch with fresh actions."""
    gradient_penalty: float = 5.0
    """Weight of its one-sided gradient penalty max(|grad_a c| - 1, 0)^2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "mmd_sigma", "discriminator_lr"):
            _require(self, name, 0.0, low_open=True)
        for name in ("divergence_samples", "discriminator_steps"):
            _require(self, name, 1)
        for name in ("gradient_penalty", "target_divergence"):
            _require(self, name, 0.0)

    def check(self, nets: NetConfig) -> None:
        super().check(nets)
        forms = {"primal": ("kl", "mmd", "density"), "dual": ("kl", "wasserstein")}
        if self.divergence not in forms[self.divergence_form]:
            raise ConfigError(
                f"divergence {self.divergence} has no {self.divergence_form} form",
                f"choose one of {', '.join(forms[self.divergence_form])}",
            )
        if self.divergence_form == "dual":
            for name in ("behavior_path", "behavior_head", "divergence_samples"):
                _pointless(self, "--divergence-form primal", name)
        else:
            for name in ("discriminator_lr", "discriminator_steps", "gradient_penalty"):
                _pointless(self, "--divergence-form dual", name)
            if self.behavior_path is not None:
                _pointless(self, "a behaviour policy that is fitted", "behavior_head")
            elif self.warm_start_steps == 0:
                raise ConfigError(
                    "the behaviour policy is fitted during the warm start, which has 0 steps",
                    "raise --warm-start-steps or give --behavior-path",
                )
            head = self.behavior_head or nets.action_head
            if self.behavior_path is None and (head == "mixed") != (nets.action_head == "mixed"):
                raise ConfigError(
                    f"action_head {nets.action_head} and behavior_head {head} have "
                    "different action spaces",
                    "use mixed for both or for neither",
                )
        if self.divergence != "mmd":
            _pointless(self, "--divergence mmd", "mmd_sigma")
        if not self.tune_beta:
            _pointless(self, "--tune-beta", "target_divergence")


def _require(
    config: AlgoConfig, name: str, low: float, high: float = math.inf, low_open: bool = False,
    fix: str = "",
) -> None:  # fmt: skip
    """Raise ConfigError unless that setting is a finite number from ``low`` to ``high``."""
    value = getattr(config, name)
    if low_open and high == math.inf and not low < value < high:
        raise ConfigError(f"{name} {value} is not above {low:g}", fix)
    if high == math.inf and not low <= value < high:
        raise ConfigError(f"{name} {value} is below {low:g}", fix)
    if not (low < value <= high or (not low_open and value == low)):
        raise ConfigError(
            f"{name} {value} is not in {'(' if low_open else '['}{low:g}, {high:g}]",
            fix,
        )


def _pointless(config: AlgoConfig, needs: str, name: str) -> None:
    """Refuse a setting that was changed although what reads it is off."""
    default = {f.name: f.default for f in dataclasses.fields(config)}[name]
    if getattr(config, name) != default:
        _refuse(name, needs)


def _refuse(name: str, needs: str) -> None:
    raise ConfigError(f"{name} does nothing without {needs}", "give both or leave it away")


CONFIGS: Dict[str, Type[AlgoConfig]] = {"bc": BCConfig, "cql": CQLConfig, "brac": BRACConfig}


def config_class(name: str) -> Type[AlgoConfig]:
    """Config of an algorithm by name; ConfigError names the known ones."""
    if name not in CONFIGS:
        raise ConfigError(f"unknown algorithm {name!r}", f"choose one of {', '.join(CONFIGS)}")
    return CONFIGS[name]


def plain(config: Any) -> Dict[str, Any]:
    """A config dataclass as JSON-able values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
