"""A task on a real arm: a person arranges the scene and says whether it succeeded."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from ofrl_robot.control.protocols import Outcome
from ofrl_robot.errors import ConfigError


class OperatorTask:
    """Implements :class:`~ofrl_robot.control.protocols.Task`.

    Rewards are not known while it runs: they are 0, and an episode that reaches its horizon stays
    unlabelled until a person (or a classifier) labels it.

    Args:
        name: stored as the task of every episode.
        horizon: steps after which an episode ends.
        instruction: the task in a sentence.
    """

    rewards_known = False
    has_ground_truth = False

    def __init__(self, name: str, horizon: int, instruction: str = "") -> None:
        if horizon < 1:
            raise ConfigError(f"horizon is {horizon}", "use 1 step or more")
        self.name, self.horizon = name, horizon
        self.instruction = instruction or name
        self.settings: Dict[str, Any] = {"instruction": instruction} if instruction else {}

    def arrange(self, seed: int) -> str:
        """Return what the person has to do; nothing moves here."""
        return f"arrange the scene for: {self.instruction}"

    def outcome(self, step: int) -> Outcome:
        """End the episode at its horizon."""
        return Outcome(truncated=step >= self.horizon)

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return nothing: a real scene has no ground truth."""
        return {}
