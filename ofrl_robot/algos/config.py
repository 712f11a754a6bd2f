"""Public settings of the algorithms. Importing this imports no torch."""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, Type

from ofrl_robot.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class AlgoConfig:
    """What every algorithm has."""

    actor_lr: float = 3e-4
    """Adam learning rate of the actor (per step)."""
    shift: int = 1
    """Random shift of training images (pixels; 0 = off)."""
    actor_average: float = 0.002
    """Rate per step of the Polyak average of the actor that is probed and deployed (1 = deploy
    the actor itself). Averaging over ~500 steps takes much of the lottery out of the choice of
    the checkpoint (docs/experiments.md)."""

    def __post_init__(self) -> None:
        if not 0.0 < self.actor_average <= 1.0:
            raise ConfigError(
                "actor_average {} is not in (0, 1]".format(self.actor_average),
                "use 1 to deploy the actor itself",
            )
        if self.shift < 0:
            raise ConfigError("shift {} is negative".format(self.shift), "use 0 for no shift")
        require_positive(self, "actor_lr")


@dataclasses.dataclass(frozen=True)
class BCConfig(AlgoConfig):
    """Behavioural cloning: maximum likelihood of a tanh-Gaussian."""


@dataclasses.dataclass(frozen=True)
class CQLConfig(AlgoConfig):
    """Conservative Q-learning, CQL(H) (Kumar et al. 2020, arXiv 2006.04779)."""

    discount: float = 0.99
    """Discount per control step; 1 / (1 - discount) should be about the length of the task."""
    cql_weight: float = 1.0
    """Weight of the conservative term R = E[logsumexp_a Q(s,a)] - E[Q(s,a_data)]."""
    cql_samples: int = 4
    """Actions sampled per state from each of: uniform, policy at s, policy at s'."""
    target_samples: int = 1
    """Next actions averaged in the target. 1 is the plain algorithm; a conservative Q is steep
    around the data, so one sample is a noisy target (docs/experiments.md)."""
    actor_bc_weight: float = 0.0
    """Weight of -log pi(a_data|s) kept in the actor loss after the warm start. 0 is the plain
    algorithm; 0.2 keeps the actor near the data where Q is flat (docs/experiments.md)."""
    initial_alpha: float = 1.0
    """Entropy temperature at the start; it is then tuned to a target entropy of -A. SAC's 1.0
    keeps the policy wide for thousands of steps, and value does not travel back through wide
    sampled next actions: 0.1 does (docs/experiments.md)."""
    target_entropy: float = -1.0
    """Entropy per action entry to which the temperature is tuned (nats); SAC's -1."""
    warm_start_steps: int = 2000
    """Steps in which the actor only imitates, before it follows Q."""
    critic_lr: float = 3e-4
    """Adam learning rate of the critics (per step)."""
    target_rate: float = 0.005
    """Polyak rate of the target critics (per step)."""
    clip_targets: bool = True
    """Clip targets to [0, 1/(1-discount)], the range of returns when rewards are 0 or 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.discount < 1.0:
            raise ConfigError("discount {} is not in (0, 1)".format(self.discount))
        for name in ("cql_samples", "target_samples"):
            if getattr(self, name) < 1:
                raise ConfigError("{} {} is below 1".format(name, getattr(self, name)))
        if not 0.0 < self.target_rate <= 1.0:
            raise ConfigError("target_rate {} is not in (0, 1]".format(self.target_rate))
        require_positive(self, "critic_lr")
        require_positive(self, "initial_alpha")
        for name in ("cql_weight", "actor_bc_weight", "warm_start_steps"):
            if not getattr(self, name) >= 0:
                raise ConfigError("{} {} is negative".format(name, getattr(self, name)))


def require_positive(config: AlgoConfig, name: str) -> None:
    """Raise ConfigError unless that setting is a number above 0."""
    if not 0.0 < getattr(config, name) < math.inf:
        raise ConfigError("{} {} is not above 0".format(name, getattr(config, name)))


CONFIGS: Dict[str, Type[AlgoConfig]] = {"bc": BCConfig, "cql": CQLConfig}


def config_class(name: str) -> Type[AlgoConfig]:
    """Config of an algorithm by name; ConfigError names the known ones."""
    if name not in CONFIGS:
        raise ConfigError(
            "unknown algorithm {!r}".format(name), "choose one of {}".format(", ".join(CONFIGS))
        )
    return CONFIGS[name]
