"""Faults of the arm, its driver and its motors."""

from __future__ import annotations

import functools
import time
from typing import Callable, List, Tuple

from ofrl_robot.control.stops import StopReason
from ofrl_robot.control.timing import Timing
from ofrl_robot.robots import rehearsal as faults
from ofrl_ros.rehearsal.scenario import Outcome, Scenario, stops, within
from ofrl_ros.rehearsal.stage import Stage

GROUP = "Arm and driver"
# fault, reason, bound in s, what is promised
_TABLE: Tuple[Tuple[str, StopReason, Callable[[Timing], float], str], ...] = (
    (faults.RAISES, StopReason.ROBOT_FAULT, within(0.3), "an error of the driver stops the arm"),
    (faults.EXITS, StopReason.ROBOT_FAULT, within(0.3), "SystemExit of a vendor's client too"),
    (
        faults.BLOCKS,
        StopReason.ARM_BLOCKED,
        within(0.5, "max_call"),
        "a call that does not return stops the arm",
    ),
    (
        faults.STALE,
        StopReason.STATE_STALE,
        within(0.4, "max_state_age"),
        "an arm that reports nothing new is stopped",
    ),
    (faults.NAN_JOINTS, StopReason.STATE_INVALID, within(0.3), "NaN in the joints stops the arm"),
    (faults.MISSING_JOINT, StopReason.STATE_INVALID, within(0.3), "a missing joint stops the arm"),
    (faults.JUMP, StopReason.STATE_INVALID, within(0.4), "a joint that jumps stops the arm"),
    (
        faults.EFFORT,
        StopReason.EFFORT,
        within(0.8),
        "an effort beyond its limit for 0.3 s stops the arm",
    ),
    (
        faults.STUCK,
        StopReason.STUCK,
        within(1.5),
        "a joint far from its target for 1 s stops the arm",
    ),
    (faults.HOT, StopReason.OVERHEATED, within(1.5), "a motor that is too hot stops the arm"),
    (
        faults.MOTOR_ERROR,
        StopReason.MOTOR_ERROR,
        within(1.5),
        "an error bit of a motor stops the arm",
    ),
    (faults.TORQUE_OFF, StopReason.TORQUE_OFF, within(1.5), "a motor without torque stops the arm"),
    (
        faults.MOTOR_SILENT,
        StopReason.MOTOR_SILENT,
        within(1.5),
        "a motor that is silent stops the arm",
    ),
    (
        faults.HEALTH_HANGS,
        StopReason.MOTOR_SILENT,
        within(6.5),
        "motors that cannot be asked stop the arm",
    ),
)


def _stops(stage: Stage, bound: float, fault: str, reason: StopReason) -> Outcome:
    stage.run(3)
    since = stage.break_with(fault)
    outcome = stops(stage, since, reason, bound)
    stage.mend()
    return outcome


def _refused(stage: Stage, _bound: float) -> Outcome:
    stage.run(3)
    stage.break_with(faults.REFUSES)
    before = len(stage.applied)
    stage.wait(lambda: len(stage.applied) >= before + 4, "four more steps")
    newest = stage.applied[-1]
    half = len(newest.axes) // 2
    kept = not any(newest.axes[:half]) and newest.buttons[0] != 0 and not stage.reason()
    return Outcome(kept, None, "recorded as no motion, with the reason; the episode goes on")


def _stop_while_blocked(stage: Stage, bound: float) -> Outcome:
    """Call stop while the driver blocks: it must not wait for the driver."""
    stage.run(3)
    stage.break_with(faults.BLOCKS)
    commands = len(stage.applied)
    stage.wait(lambda: len(stage.ticks) > commands, "a tick")
    since = time.time()
    stage.call("stop")
    answered = time.time() - since
    outcome = stops(stage, since, StopReason.OPERATOR, bound, faults.BLOCK_SECONDS + 0.5)
    last = [c.call for c in stage.calls()][-1]
    kept = outcome.kept or (outcome.seconds is not None and outcome.seconds <= bound)
    stage.mend()
    return Outcome(
        kept and answered < 0.5 and last == "stop", outcome.seconds,
        f"answered after {answered:.3f} s; the last call of the driver is {last}",
    )  # fmt: skip


def _rearm(stage: Stage, _bound: float) -> Outcome:
    stage.run(3)
    since = stage.break_with(faults.MOTOR_ERROR)
    outcome = stops(stage, since, StopReason.MOTOR_ERROR, 1.5)
    stage.mend()
    refused = not stage.call("reset").success
    rearmed = stage.call("rearm").success
    since = time.time()
    moved = stage.motions(since)
    stage.run(2)
    return Outcome(
        outcome.kept and refused and rearmed and not moved, None,
        "reset is refused until rearm, rearm moves nothing, then an episode runs",
    )  # fmt: skip


def scenarios() -> List[Scenario]:
    """Return the faults of this group."""
    table = [
        Scenario(
            fault, GROUP, promise, bound,
            functools.partial(_stops, fault=fault, reason=reason),
        )
        for fault, reason, bound, promise in _TABLE
    ]  # fmt: skip
    return [
        *table,
        Scenario(
            faults.REFUSES, GROUP, "is an outcome and no error: no motion, recorded", None,
            _refused,
        ),
        Scenario(
            "stop while the driver blocks", GROUP,
            "the stop does not wait for the driver, and has the last word", within(0.1),
            _stop_while_blocked,
        ),
        Scenario(
            "re-arm after a motor error", GROUP,
            "nothing moves before rearm and a new reset", None, _rearm,
        ),
    ]  # fmt: skip
