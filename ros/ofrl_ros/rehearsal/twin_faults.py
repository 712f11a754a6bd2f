"""Faults behind the vendor's driver, injected into the arm's twin."""

from __future__ import annotations

import functools
import signal
import time
from typing import Callable, Dict, List, Tuple

import rospy

from ofrl_robot.control.stops import StopReason
from ofrl_robot.control.timing import Timing
from ofrl_ros.rehearsal.scenario import Outcome, Scenario, stops, within
from ofrl_ros.rehearsal.stage import Stage

GROUP = "Behind the vendor's client (twin)"
_STALE, _AT_ONCE, _ASKED = within(0.4, "max_state_age"), within(0.4), within(1.5)
# by arm: fault of the twin, reason, bound, what it is
_TABLE: Dict[str, Tuple[Tuple[str, StopReason, Callable[[Timing], float], str], ...]] = {
    "widowx": (
        ("states_silent", StopReason.STATE_STALE, _STALE, "the driver sends no joint states"),
        ("states_nan:elbow", StopReason.STATE_INVALID, _AT_ONCE, "NaN in the joint states"),
        ("states_garbage:elbow", StopReason.STATE_INVALID, _AT_ONCE, "a failed read, sent as -pi"),
        ("overload:shoulder", StopReason.MOTOR_ERROR, _ASKED, "the overload bit of a motor"),
        ("motor_silent:elbow", StopReason.MOTOR_SILENT, _ASKED, "a list of registers too short"),
        ("hot:shoulder", StopReason.OVERHEATED, _ASKED, "71 degrees C"),
    ),
    "sawyer": (
        ("joints_silent", StopReason.STATE_STALE, _STALE, "the robot sends no joint states"),
        ("joints_nan", StopReason.STATE_INVALID, _AT_ONCE, "NaN in the joint states"),
        ("estop", StopReason.EMERGENCY_STOP, _ASKED, "the emergency stop is pressed"),
        ("error", StopReason.MOTOR_ERROR, _ASKED, "the robot reports an error"),
        ("disabled", StopReason.TORQUE_OFF, _ASKED, "the robot is disabled"),
        ("collision", StopReason.COLLISION, _ASKED, "the robot reports a collision"),
    ),
}


def _inject(stage: Stage, text: str) -> float:
    """Begin a fault of the twin; return when, s since the epoch."""
    rospy.set_param(f"{stage.namespace}/twin/next_fault", text)
    since = time.time()
    answer = stage.call("twin/fault")
    assert answer.success, answer.message
    return since


def _play(stage: Stage, bound: float, fault: str, reason: StopReason) -> Outcome:
    stage.run(3)
    return stops(stage, _inject(stage, fault), reason, bound)


def _vendor_dies(stage: Stage, bound: float) -> Outcome:
    stage.run(3)
    since = time.time()
    stage.twin.send_signal(signal.SIGKILL)
    # its camera is gone with it, and one of the two is noticed first
    outcome = stops(stage, since, StopReason.STATE_STALE, bound)
    return outcome if outcome.kept else stops(stage, since, StopReason.CAMERA, bound)


def scenarios(arm: str) -> List[Scenario]:
    """Return the faults of an arm's twin; none for an arm without one."""
    if arm not in _TABLE:
        return []
    table = [
        Scenario(
            fault, GROUP, f"{what}: the arm is stopped", bound,
            functools.partial(_play, fault=fault, reason=reason), own_stage=True,
        )
        for fault, reason, bound, what in _TABLE[arm]
    ]  # fmt: skip
    dies = "the arm is stopped, the node lives on"
    killed = "kill -9 of the vendor's node"
    return [*table, Scenario(killed, GROUP, dies, _STALE, _vendor_dies, own_stage=True)]
