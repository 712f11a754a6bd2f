"""The control step: choose, limit, apply, count silence, stop with a reason.

Both backends and both worlds (one process, ROS) go through :class:`ControlLoop`, so what is
recorded as applied is what the driver got, and no path to the arm goes round the limiter.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Protocol

import numpy as np

from ofrl_robot.control.arbitration import Arbiter
from ofrl_robot.control.limiter import Limits, limit
from ofrl_robot.control.signals import HOLD, AppliedAction, Command, Tick
from ofrl_robot.errors import RobotError
from ofrl_robot.specs import ActionSpec, ObservationSpec

# Reasons for a stop, as published on ``robot/status``.
OPERATOR, ACTOR_SILENT, ROBOT_FAULT = "operator", "actor_silent", "robot_fault"


class Robot(Protocol):
    """One arm, real or simulated. :meth:`apply` returns at once on hardware.

    ``environment`` holds the settings of a simulator, to be stored with its episodes.
    """

    name: str
    task: str
    horizon: int
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    control_rate_hz: float
    limits: Limits
    environment: Dict[str, Any]

    def reset(self, seed: int) -> None:
        """Go to the start of an episode; ``seed`` places the simulated objects."""

    def observe(self) -> Tick:
        """The newest observation."""

    def now_ns(self) -> int:
        """Time now by the clock that stamps its ticks, ns."""

    def ee_position(self) -> np.ndarray:
        """Measured end-effector position (3,) in m, base frame."""

    def joints(self) -> Dict[str, float]:
        """Measured joint positions by name, rad (fingers: m)."""

    def apply(self, action: np.ndarray) -> None:
        """Carry out one limited action (A,)."""

    def stop(self) -> None:
        """Hold still, now."""

    def close(self) -> None:
        """Release the arm or the simulator."""


@dataclasses.dataclass
class LoopCounts:
    """Counts since the last reset."""

    ticks: int = 0
    held: int = 0
    limited: int = 0
    interventions: int = 0


class ControlLoop:
    """Runs a robot one tick at a time.

    Args:
        robot: the arm.
        max_silent_ticks: ticks in a row without an action after which the robot stops.
    """

    def __init__(self, robot: Robot, max_silent_ticks: int = 5) -> None:
        self.robot, self.arbiter = robot, Arbiter()
        self.max_silent_ticks = max_silent_ticks
        self.stop_reason = ""
        self.counts = LoopCounts()
        self._silent = 0

    @property
    def stopped(self) -> bool:
        return bool(self.stop_reason)

    def reset(self, seed: int) -> Tick:
        """Reset the robot and return tick 0. Raises RobotError while stopped."""
        if self.stopped:
            raise RobotError(f"the robot is stopped ({self.stop_reason})", "re-arm it first")
        self.arbiter.clear()
        self.counts, self._silent = LoopCounts(), 0
        self.robot.reset(seed)
        return self.robot.observe()

    def apply(self, tick: Tick) -> AppliedAction:
        """Answer ``tick`` with the best command on offer, or hold; returns what was applied.

        Raises RobotError while stopped, so nothing can move a stopped arm.
        """
        if self.stopped:
            raise RobotError(f"the robot is stopped ({self.stop_reason})", "re-arm it first")
        command, intervention = self.arbiter.choose(tick.stamp_ns)
        applied = self._bounded(tick, command, intervention)
        self.counts.ticks += 1
        self.counts.limited += applied.limited
        self.counts.interventions += applied.intervention
        self._silent = self._silent + 1 if command is None else 0
        self.counts.held += command is None
        if self._silent >= self.max_silent_ticks:
            self.stop(ACTOR_SILENT)
        else:
            self.robot.apply(applied.action)
        return applied

    def _bounded(self, tick: Tick, command: Optional[Command], intervention: bool) -> AppliedAction:
        robot = self.robot
        requested = np.zeros(robot.action_spec.size) if command is None else command.action
        action, reasons = limit(requested, robot.ee_position(), robot.action_spec, robot.limits)
        if len(np.shape(requested)) != 1 or len(requested) != len(action):
            requested = np.full(len(action), np.nan)  # recorded as "not usable"
        return AppliedAction(
            stamp_ns=tick.stamp_ns,
            action=action,
            requested=np.asarray(requested, np.float64),
            source=HOLD if command is None else command.source,
            reasons=reasons,
            intervention=intervention,
            applied_ns=robot.now_ns(),
        )

    def stop(self, reason: str) -> None:
        """Stop the robot; it stays stopped, with the first reason, until :meth:`rearm`."""
        self.stop_reason = self.stop_reason or reason
        self.robot.stop()

    def rearm(self) -> None:
        """Allow motion again. Old commands are forgotten: nothing moves until a new one."""
        self.stop_reason = ""
        self._silent = 0
        self.arbiter.clear()

    def diagnostics(self) -> Dict[str, int]:
        return dataclasses.asdict(self.counts)
