"""Settings of behaviour regularised actor critic."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal, Optional

from ofrl_robot.algos.configs.actor_critic import ActorCriticConfig
from ofrl_robot.algos.configs.base import refuse_unused, require
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import Head, NetConfig


@dataclasses.dataclass(frozen=True)
class BRACConfig(ActorCriticConfig):
    """Behaviour regularised actor critic (Wu et al. 2019, arXiv 1911.11361).

    As in its reference there is no entropy term: the KL to the data holds one.
    """

    name = "brac"
    algorithm_path = "ofrl_robot.algos.brac:BRAC"
    unused_parameters = True  # the behaviour policy, after the warm start

    initial_alpha: float = 0.0
    """Entropy temperature; 0 is none, as in BRAC's own code. With --tune-alpha: at the start."""
    tune_alpha: bool = False
    """Tune the entropy temperature to target_entropy; else it stays at initial_alpha."""
    warm_start_steps: int = 5000
    """Steps in which the actor only imitates and the behaviour policy is fitted."""

    divergence: Literal["kl", "mmd", "density", "wasserstein"] = "kl"
    """Divergence of the policy pi from the behaviour policy b: "kl", "mmd" (Laplacian kernel),
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
    penalty_ramp_steps: int = 1000
    """Steps after the warm start in which value_penalty grows to its full weight, for a behaviour
    policy that is fitted; from the first step on for one that is given, and for the dual form."""
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
            require(self, name, 0.0, low_open=True)
        for name in ("divergence_samples", "discriminator_steps"):
            require(self, name, 1)
        for name in ("gradient_penalty", "target_divergence", "penalty_ramp_steps"):
            require(self, name, 0.0)

    def check(self, nets: NetConfig) -> None:
        """Raise ConfigError for settings that exclude each other, or that would do nothing."""
        super().check(nets)
        forms = {"primal": ("kl", "mmd", "density"), "dual": ("kl", "wasserstein")}
        if self.divergence not in forms[self.divergence_form]:
            raise ConfigError(
                f"divergence {self.divergence} has no {self.divergence_form} form",
                f"choose one of {', '.join(forms[self.divergence_form])}",
            )
        if self.divergence_form == "dual":
            for name in ("behavior_path", "behavior_head", "divergence_samples"):
                refuse_unused(self, "--divergence-form primal", name)
        else:
            for name in ("discriminator_lr", "discriminator_steps", "gradient_penalty"):
                refuse_unused(self, "--divergence-form dual", name)
            if self.behavior_path is not None:
                refuse_unused(self, "a behaviour policy that is fitted", "behavior_head")
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
        if not self.fits_behavior:
            refuse_unused(self, "a behaviour policy that is fitted", "penalty_ramp_steps")
        if not self.value_penalty:
            refuse_unused(self, "--value-penalty", "penalty_ramp_steps")
        if self.divergence != "mmd":
            refuse_unused(self, "--divergence mmd", "mmd_sigma")
        if not self.tune_beta:
            refuse_unused(self, "--tune-beta", "target_divergence")

    @property
    def fits_behavior(self) -> bool:
        """Whether the behaviour policy is fitted during the warm start."""
        return self.divergence_form == "primal" and self.behavior_path is None

    @property
    def holds_out(self) -> bool:
        """Whether it needs held-out episodes: for the choice of the behaviour policy."""
        return self.fits_behavior

    @property
    def settling_steps(self) -> int:
        """Steps of warm start and ramp, and three time constants of the target critics."""
        if not (self.value_penalty and self.fits_behavior):
            return self.warm_start_steps
        follow = math.ceil(3.0 / self.target_rate)
        return self.warm_start_steps + self.penalty_ramp_steps + follow

    @property
    def behavior_checkpoint(self) -> Optional[Path]:
        """Run folder or checkpoint of the behaviour policy, None when it is fitted."""
        return self.behavior_path

    def distributed_refusal(self) -> str:
        """Return why torchrun is refused: the discriminator has an optimiser of its own."""
        if self.divergence_form == "dual":
            return "BRAC's dual form does not train in several processes"
        return ""

    def values_may_be_negative(self, reward_scale: float, reward_bias: float) -> bool:
        """Return True: the divergence penalty lowers values without a bound."""
        return True
