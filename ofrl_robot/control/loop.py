"""Run the control step: choose a command, limit it, apply it, watch for silence, stop.

One process and ROS both go through :class:`ControlLoop`, so what is recorded as applied is what
the driver got, and no path to the arm goes round the limiter.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional

import numpy as np

from ofrl_robot.control.arbitration import Arbiter
from ofrl_robot.control.limiter import limit
from ofrl_robot.control.protocols import Arm
from ofrl_robot.control.signals import HOLD, AppliedAction, Command, Tick
from ofrl_robot.errors import RobotError

# Reasons for a stop, as published on ``robot/status``.
OPERATOR, ACTOR_SILENT, ROBOT_FAULT = "operator", "actor_silent", "robot_fault"
_TOLERANCE_S = 1e-6  # sums of periods are not exact


@dataclasses.dataclass
class LoopCounts:
    """Counts since the episode began."""

    ticks: int = 0
    held: int = 0
    limited: int = 0
    interventions: int = 0


class ControlLoop:
    """Commands an arm one tick at a time. Not thread-safe; the caller holds a lock.

    Args:
        arm: the arm. Its limits say how long the actor may be silent.
        max_silence: seconds without an action after which the arm stops; None for the limits'.
    """

    def __init__(self, arm: Arm, max_silence: Optional[float] = None) -> None:
        self.arm = arm
        self.max_silence = arm.limits.max_silence if max_silence is None else max_silence
        self.stop_reason = ""
        self.counts = LoopCounts()
        self._arbiter = Arbiter()
        self._silence = 0.0
        self._previous: Optional[np.ndarray] = None

    @property
    def stopped(self) -> bool:
        """Whether the arm is stopped and must be re-armed before it may move."""
        return bool(self.stop_reason)

    def begin(self) -> None:
        """Forget the commands and counts of the episode before.

        Raises:
            RobotError: the arm is stopped.
        """
        self._require_armed()
        self._arbiter.clear()
        self.counts = LoopCounts()
        self._silence, self._previous = 0.0, None

    def offer(self, command: Command) -> bool:
        """Take a command for its tick; False when its source is unknown or it is out of order."""
        return self._arbiter.offer(command)

    def answered(self, stamp_ns: int) -> bool:
        """Return whether an actor has answered the tick with this stamp."""
        return self._arbiter.choose(stamp_ns)[0] is not None

    def apply(self, tick: Tick, dt: Optional[float] = None) -> AppliedAction:
        """Answer ``tick`` with the best command on offer, or hold; return what was applied.

        Args:
            dt: seconds since the command before; None for the control period.

        Raises:
            RobotError: the arm is stopped, so nothing can move it.
        """
        self._require_armed()
        seconds = 1.0 / self.arm.control_rate_hz if dt is None else dt
        command, intervention = self._arbiter.choose(tick.stamp_ns)
        applied = self._bounded(tick, command, intervention, seconds)
        self.counts.ticks += 1
        self.counts.limited += applied.limited
        self.counts.interventions += applied.intervention
        self.counts.held += applied.held
        self._silence = self._silence + seconds if applied.held else 0.0
        self._previous = applied.action
        if self._silence >= self.max_silence - _TOLERANCE_S:
            self.stop(ACTOR_SILENT)
        else:
            self.arm.command(applied.action)
        return applied

    def _bounded(
        self, tick: Tick, command: Optional[Command], intervention: bool, dt: float
    ) -> AppliedAction:
        arm, spec = self.arm, self.arm.action_spec
        requested = np.zeros(spec.size) if command is None else command.action
        action, reasons = limit(requested, self._previous, arm.state(), dt, spec, arm.limits)
        if np.shape(requested) != (spec.size,):
            requested = np.full(spec.size, np.nan)  # recorded as "not usable"
        return AppliedAction(
            stamp_ns=tick.stamp_ns,
            action=action,
            requested=np.asarray(requested, np.float64),
            source=HOLD if command is None else command.source,
            reasons=reasons,
            intervention=intervention,
            applied_ns=arm.now_ns(),
        )

    def stop(self, reason: str) -> None:
        """Stop the arm; it stays stopped, with the first reason, until :meth:`rearm`."""
        self.stop_reason = self.stop_reason or reason
        self.arm.stop()

    def rearm(self) -> None:
        """Allow motion again. Old commands are forgotten: nothing moves until a new one."""
        self.stop_reason = ""
        self._silence, self._previous = 0.0, None
        self._arbiter.clear()

    def diagnostics(self) -> Dict[str, int]:
        """Return the counts since the episode began, by name."""
        return dataclasses.asdict(self.counts)

    def _require_armed(self) -> None:
        if self.stopped:
            raise RobotError(f"the robot is stopped ({self.stop_reason})", "re-arm it first")
