"""Actors: whatever answers a tick with an action. Teleoperation and policies are the same thing.

A :class:`~ofrl_robot.policy.policy.Policy` is an actor as it stands.
"""

from __future__ import annotations

from typing import Any, Dict, Protocol

import numpy as np

from ofrl_robot.control.signals import HUMAN, Tick
from ofrl_robot.errors import RobotError
from ofrl_robot.sim.scripted import make_scripted


class Actor(Protocol):
    """Answers ticks. ``source`` decides its priority (``HUMAN`` over ``POLICY``)."""

    source: str

    def reset(self, seed: int) -> None:
        """Start an episode."""

    def act(self, tick: Tick) -> np.ndarray:
        """Normalised action (A,) for this tick."""


class ScriptedActor:
    """A scripted policy in the teleoperator's seat; reads the simulator's ground truth.

    Args:
        task: simulator task id.
        noise: standard deviation of the action noise (1 = full scale).
        policy: name of the scripted policy; empty for the one that solves the task.
    """

    source = HUMAN

    def __init__(self, task: str, noise: float = 0.1, policy: str = "") -> None:
        self._policy = make_scripted(task, noise, policy)

    @property
    def settings(self) -> Dict[str, Any]:
        """What to store with the episodes: name of the policy, noise."""
        return {"policy": self._policy.name, "noise": self._policy.noise}

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def act(self, tick: Tick) -> np.ndarray:
        if not tick.ground_truth:
            raise RobotError(
                "the tick carries no ground truth", "scripted actors work in simulation only"
            )
        return self._policy.act(tick.ground_truth)
