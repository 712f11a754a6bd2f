"""Settings that CQL and BRAC share."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ofrl_robot.algos.configs.base import AlgoConfig, refuse, refuse_unused, require
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig(AlgoConfig):
    """Settings of every algorithm with an actor, critics and an entropy temperature."""

    learns_values = True

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
    code calls deterministic backup (its next action is sampled nevertheless)."""
    clip_targets: bool = False
    """Clip targets to the range of returns that the rewards allow, e.g. [0, 1/(1-discount)] for
    rewards of 0 and 1. Entropy and penalties come after. A fall of dataset Q, by which overfitting
    is told, ends at the clip: beyond 5 % of clipped targets there is no verdict."""
    initial_alpha: float = 1.0
    """Entropy temperature at the start; it is then tuned to a target entropy of -A. SAC's 1.0
    keeps the policy wide for thousands of steps, and value does not travel back through wide
    sampled next actions: 0.1 does (docs/experiments.md). 0, with --no-tune-alpha: no entropy."""
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
    actor_bc_entries: Literal["all", "pose"] = "all"
    """What that imitates: all action entries, or the pose only, so that Q alone decides about
    gripper and neutral (needs --action-head mixed). The data closes the gripper in one step of
    many; imitating that keeps the policy hovering although Q prefers to close."""
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
            require(self, name, 1)
        require(self, "target_rate", 0.0, 1.0, low_open=True)
        require(self, "ensemble_lambda", 0.0, 1.0)
        require(self, "critic_lr", 0.0, low_open=True)
        require(self, "initial_alpha", 0.0, low_open=self.tune_alpha, fix="0 needs --no-tune-alpha")
        for name in ("actor_bc_weight", "warm_start_steps", "dr3_weight", "regularization_const"):
            require(self, name, 0.0)

    def check(self, nets: NetConfig) -> None:
        """Raise ConfigError for settings that exclude each other, or that would do nothing."""
        super().check(nets)
        if not self.dr3_feat:
            refuse_unused(self, "--dr3-feat", "dr3_weight")
        if self.regularization == "off":
            refuse_unused(self, "--regularization l1 or l2", "regularization_const")
        if self.max_backup == "off":
            refuse_unused(self, "--max-backup max_min or min_max", "backup_actions")
        else:
            refuse_unused(self, "--max-backup off", "target_samples")
            if self.ensemble_lambda != 1.0 or self.entropy_backup:
                raise ConfigError(
                    "max_backup takes the minimum over critics and no entropy",
                    "drop it, or ensemble_lambda and entropy_backup",
                )
        if not self.actor_bc_weight:
            refuse_unused(self, "--actor-bc-weight above 0", "actor_bc_entries")
        if nets.action_head != "mixed":
            refuse_unused(self, "--action-head mixed", "actor_bc_entries")
        if not self.tune_alpha:
            refuse_unused(self, "--tune-alpha", "target_entropy")
        if nets.n_critics == 1 and self.ensemble_lambda != 1.0:
            refuse("ensemble_lambda", "--n-critics 2 or more")

    def values_may_be_negative(self, reward_scale: float, reward_bias: float) -> bool:
        """Return whether sound Q-values of rewards 0 and 1, scaled and shifted, may be below 0."""
        return self.entropy_backup or min(reward_scale, reward_bias) < 0
