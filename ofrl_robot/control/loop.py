"""Run the control step: choose a command, limit it, apply it, watch, stop.

One process and ROS both go through :class:`ControlLoop`, so what is recorded as applied is what
the driver got, and no path to the arm goes round the limiter.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, List, Optional, Tuple

import numpy as np

from ofrl_robot.control.arbitration import PRIORITY, Arbiter, Choice
from ofrl_robot.control.health import StateMonitor
from ofrl_robot.control.limiter import RESYNC, Limited, limit, unusable
from ofrl_robot.control.pose import Pose
from ofrl_robot.control.protocols import Arm
from ofrl_robot.control.signals import (
    HOLD,
    AppliedAction,
    ArmState,
    Command,
    Sent,
    Setpoint,
    Tick,
)
from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.control.targets import TargetMemory
from ofrl_robot.errors import RobotError
from ofrl_robot.specs import ActionSpec

# One late answer must not stop an arm at a low rate (measured: a session of 5 Hz ended by one).
LEAST_SILENT_TICKS = 2
_TOLERANCE_S = 1e-6  # sums of periods are not exact


@dataclasses.dataclass
class LoopCounts:
    """Counts since the episode began."""

    ticks: int = 0
    held: int = 0
    late: int = 0
    limited: int = 0
    interventions: int = 0


class ControlLoop:
    """Commands an arm one tick at a time.

    :meth:`stop` may be called from any thread at any time. Everything else belongs to the control
    thread; a caller with several threads holds a lock around :meth:`offer` and :meth:`take`.

    Args:
        arm: the arm. Its timing says how long the actor may be silent.
        max_silence: seconds without a usable action after which the arm stops; None for the arm's,
            or two control periods if that is longer.
        sources: who may command.
        awaited: whose answers a tick waits for in lockstep; others only once they have spoken.
    """

    def __init__(
        self,
        arm: Arm,
        max_silence: Optional[float] = None,
        sources: Iterable[str] = PRIORITY,
        awaited: Iterable[str] = (),
    ) -> None:
        self.arm = arm
        least = LEAST_SILENT_TICKS / arm.control_rate_hz
        default = max(arm.timing.max_silence, least)
        self.max_silence = default if max_silence is None else max_silence
        self.counts = LoopCounts()
        self.duration = 0.0  # s that the last step takes, when longer than a control period
        self._monitor = StateMonitor(arm.health_limits, arm.joint_names, arm.timing.max_state_age)
        self._arbiter = Arbiter(sources, awaited)
        self._targets = TargetMemory()
        self._silence = 0.0
        self._previous: Optional[np.ndarray] = None
        self._faults: List[Fault] = []  # since the last re-arm; to append is atomic

    @property
    def fault(self) -> Optional[Fault]:
        """Why the arm is stopped, None while it is armed."""
        return self._faults[0] if self._faults else None

    @property
    def stopped(self) -> bool:
        """Whether the arm is stopped and must be re-armed before it may move."""
        return bool(self._faults)

    @property
    def stop_reason(self) -> str:
        """Reason of the stop, one of ``StopReason``; empty while the arm is armed."""
        return str(self.fault.reason) if self.fault else ""

    def begin(self) -> None:
        """Forget the commands, targets and counts of the episode before.

        Raises:
            RobotError: the arm is stopped.
        """
        self._require_armed()
        self.counts = LoopCounts()
        self._forget()

    def offer(self, command: Command) -> bool:
        """Take a command for its tick; False when its source may not command or it is old."""
        return self._arbiter.offer(command)

    def answered(self, stamp_ns: int, all_of_them: bool = True) -> bool:
        """Return whether the tick with this stamp is answered.

        Args:
            all_of_them: by everybody who is awaited; else by whoever has the arm.
        """
        if all_of_them:
            return self._arbiter.answered(stamp_ns)
        return self._arbiter.commanded(stamp_ns)

    def take(self, stamp_ns: int) -> Choice:
        """Return who commands the tick with this stamp; once per tick, before :meth:`apply`."""
        return self._arbiter.choose(stamp_ns)

    def apply(
        self,
        tick: Tick,
        dt: Optional[float] = None,
        choice: Optional[Choice] = None,
        latency: Optional[float] = None,
    ) -> AppliedAction:
        """Answer ``tick`` with the command of ``choice``, or hold; return what was applied.

        Args:
            dt: seconds since the command before; None for the control period.
            choice: of :meth:`take`; None to take it here.
            latency: seconds after the tick by which the action should have left; None in lockstep.

        Raises:
            RobotError: the arm is stopped, so nothing can move it.
        """
        self._require_armed()
        seconds = 1.0 / self.arm.control_rate_hz if dt is None else dt
        chosen = self._arbiter.choose(tick.stamp_ns) if choice is None else choice
        state = self.arm.state()
        fault = self._monitor.judge(state, self.arm.now_ns())
        if fault is not None:
            self.stop(fault.reason, fault.text)
        applied, setpoint = self._bounded(tick, chosen, state, seconds)
        present = chosen.present and (chosen.command is None or not applied.held)
        self._silence = 0.0 if present else self._silence + seconds
        if self._silence >= self.max_silence - _TOLERANCE_S:
            self.stop(StopReason.ACTOR_SILENT)
        if not self.stopped:
            applied = self._send(applied, setpoint)
            if self.stopped:  # it came while the driver was sending, so the last word is a stop
                self.arm.stop()
        if latency is not None and not applied.held:
            left_ns = tick.stamp_ns if applied.applied_ns is None else applied.applied_ns
            applied = dataclasses.replace(applied, late=left_ns - tick.stamp_ns > latency * 1e9)
        self._count(applied)
        return applied

    def stop(self, reason: StopReason, text: str = "") -> None:
        """Stop the arm; it stays stopped, with the first reason, until :meth:`rearm`.

        May be called from any thread, also while the driver is inside another call.
        """
        self._faults.append(Fault(reason, text))
        self.arm.stop()

    def rearm(self) -> None:
        """Make the arm ready and allow motion again; nothing moves until a new command.

        Old commands and targets are forgotten: the next action counts from the measured pose.

        Raises:
            RobotError: the arm cannot be made ready; it stays stopped.
        """
        known = len(self._faults)
        self.arm.rearm()
        self._forget()
        del self._faults[:known]  # a stop that came meanwhile stays

    def resume(self) -> None:
        """Go on after a pause: old commands and targets are forgotten, so nothing jumps."""
        self._require_armed()
        self._forget()

    def diagnostics(self) -> Dict[str, int]:
        """Return the counts since the episode began, by name."""
        return dataclasses.asdict(self.counts)

    def _bounded(
        self, tick: Tick, chosen: Choice, state: ArmState, dt: float
    ) -> Tuple[AppliedAction, Setpoint]:
        """Return what is applied unless the driver refuses it, and the setpoint for the driver."""
        arm, spec = self.arm, self.arm.action_spec
        command = chosen.command
        requested = np.zeros(spec.size) if command is None else command.action
        wrong = unusable(requested, spec)
        start, resynced = None, False
        if arm.relative_to_target:
            start, resynced = self._targets.start(state, arm.limits)
        limited: Limited = limit(requested, self._previous, start, state, dt, spec, arm.limits)
        if np.shape(requested) != (spec.size,):
            requested = np.full(spec.size, np.nan)  # recorded as "not usable"
        reasons = limited.reasons + ((RESYNC,) if resynced else ())
        applied = AppliedAction(
            stamp_ns=tick.stamp_ns,
            action=limited.action,
            requested=np.asarray(requested, np.float64),
            # nobody commands with an unusable action
            source=HOLD if command is None or wrong else command.source,
            reasons=reasons,
            intervention=chosen.intervention,
            applied_ns=arm.now_ns(),
        )
        setpoint = Setpoint(
            action=limited.action,
            position=np.asarray(limited.target.position, np.float64),
            orientation=np.asarray(limited.target.orientation, np.float64),
            gripper=gripper_of(limited.action, spec),
        )
        return applied, setpoint

    def _send(self, applied: AppliedAction, setpoint: Setpoint) -> AppliedAction:
        """Give the driver its setpoint; return what was applied, a hold when it refused."""
        sent: Sent = self.arm.command(setpoint)
        self.duration = sent.duration
        if sent.refused:
            held = np.zeros_like(applied.action)
            reasons = (*applied.reasons, sent.refused)
            self._previous = held
            return dataclasses.replace(applied, action=held, reasons=reasons)
        self._previous = applied.action
        self._targets.keep(Pose(setpoint.position, setpoint.orientation))
        return applied

    def _count(self, applied: AppliedAction) -> None:
        self.counts.ticks += 1
        self.counts.held += applied.held
        self.counts.late += applied.late
        self.counts.limited += applied.limited
        self.counts.interventions += applied.intervention

    def _forget(self) -> None:
        self._silence, self._previous = 0.0, None
        self._arbiter.clear()
        self._targets.clear()
        self._monitor.reset()

    def _require_armed(self) -> None:
        if self.stopped:
            raise RobotError(f"the robot is stopped ({self.fault})", "re-arm it first")


def gripper_of(action: np.ndarray, spec: ActionSpec) -> Optional[float]:
    """Return 1.0 when an action opens the gripper, 0.0 when it closes it, None to leave it."""
    if "gripper" not in spec.names:
        return None
    value = float(action[spec.names.index("gripper")])
    if value > spec.gripper_threshold:
        return 1.0
    return 0.0 if value < -spec.gripper_threshold else None
