"""Settings of conservative Q-learning."""

from __future__ import annotations

import dataclasses
from typing import Literal, Tuple

from ofrl_robot.algos.configs.actor_critic import ActorCriticConfig
from ofrl_robot.algos.configs.base import refuse, refuse_unused, require
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig


@dataclasses.dataclass(frozen=True)
class CQLConfig(ActorCriticConfig):
    """Conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779)."""

    name = "cql"
    algorithm_path = "ofrl_robot.algos.cql:CQL"

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
    """Correct each value for the density its action was drawn with (variant "h"; the papers'
    code: min_q_version 3; without: 2)."""
    cql_temperature: float = 1.0
    """T of the soft maximum T log sum exp(Q/T)."""
    lagrange: bool = False
    """Tune a multiplier of the conservative term so that it stays near lagrange_gap."""
    lagrange_gap: float = 5.0
    """Threshold as the papers count it: of cql_weight * (R + cql_temperature * log K), K the
    sampled actions. Their soft maximum is a log-sum, that in R a log-mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.cql_samples) < 0 or sum(self.cql_samples) == 0:
            raise ConfigError(
                f"cql_samples {' '.join(map(str, self.cql_samples))} has a number below 0, "
                "or no action",
                "e.g. 4 4 4",
            )
        if self.cql_variant == "rho" and self.cql_samples[1] == 0:
            raise ConfigError("cql_variant rho needs actions of the policy", "e.g. 0 4 0")
        require(self, "cql_weight", 0.0)
        require(self, "cql_temperature", 0.0, low_open=True)

    def check(self, nets: NetConfig) -> None:
        """Raise ConfigError for settings that exclude each other, or that would do nothing."""
        super().check(nets)
        if not self.lagrange:
            refuse_unused(self, "--lagrange", "lagrange_gap")
        if self.cql_variant == "rho":
            if not self.importance_sampling:
                refuse("importance_sampling", "--cql-variant h")
            if self.cql_samples[0] or self.cql_samples[2]:
                if self.cql_samples != CQLConfig.cql_samples:
                    refuse("cql_samples of uniform and next actions", "--cql-variant h")
