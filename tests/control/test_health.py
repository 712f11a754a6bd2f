"""When measured states and motors must stop an arm, on the clock of the states."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ofrl_robot.control.health import (
    Health,
    HealthLimits,
    StateMonitor,
    hot_motors,
    judge_health,
)
from ofrl_robot.control.signals import ArmState
from ofrl_robot.control.stops import Fault, StopReason

MS = 1_000_000
LIMITS = HealthLimits(efforts={"elbow": 100.0}, max_effort_time=0.3, max_stuck_time=1.0)
GOOD = ArmState(0, np.zeros(3), np.zeros(3), np.array([0, 0, 0, 1.0]), {"elbow": 0.5, "wrist": 1.0})


def at(ms, **changes):
    return dataclasses.replace(GOOD, stamp_ns=ms * MS, **changes)


def monitor():
    return StateMonitor(LIMITS, ("elbow", "wrist"), max_age=0.25)


@pytest.mark.parametrize(("age_ms", "stale"), [(0, False), (250, False), (251, True), (-300, True)])
def test_a_state_that_is_too_old_or_of_the_future_is_stale(age_ms, stale):
    fault = monitor().judge(at(1000), (1000 + age_ms) * MS)
    assert (fault is not None and fault.reason == StopReason.STATE_STALE) == stale


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"joint_positions": {"elbow": 0.5}}, "wrist missing"),
        ({"joint_positions": {"elbow": np.nan, "wrist": 1.0}}, "joint positions not finite"),
        ({"position": np.array([0, np.inf, 0])}, "position not finite"),
        ({"orientation": np.full(4, np.nan)}, "orientation not finite"),
        ({"vector": np.array([np.nan, 0, 0])}, "state not finite"),
    ],
)
def test_a_state_that_cannot_be_right_is_invalid(changes, words):
    fault = monitor().judge(at(0, **changes), 0)
    assert fault == Fault(StopReason.STATE_INVALID, words)


def test_a_jump_that_no_motor_makes_is_invalid():
    watch = monitor()
    assert watch.judge(at(0), 0) is None
    far = {"elbow": 0.5 + 3.1, "wrist": 1.0}
    fault = watch.judge(at(100, joint_positions=far), 100 * MS)
    assert fault is not None and fault.reason == StopReason.STATE_INVALID
    assert "elbow jumped 3.10 in 0.100 s" in fault.text


def test_after_a_reset_a_new_place_is_no_jump():
    watch = monitor()
    watch.judge(at(0), 0)
    watch.reset()
    assert watch.judge(at(100, joint_positions={"elbow": 3.0, "wrist": -3.0}), 100 * MS) is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_effort_counts_with_both_signs_and_only_when_it_lasts(sign):
    """Two stacks that ran for months tested max(effort), and so missed negative efforts."""
    watch, pushing = monitor(), {"elbow": sign * 150.0}
    assert watch.judge(at(0, joint_efforts=pushing), 0) is None
    assert watch.judge(at(200, joint_efforts=pushing), 200 * MS) is None
    assert watch.judge(at(250), 250 * MS) is None, "it let go: counted anew"
    assert watch.judge(at(300, joint_efforts=pushing), 300 * MS) is None
    fault = watch.judge(at(600, joint_efforts=pushing), 600 * MS)
    assert fault is not None and fault.reason == StopReason.EFFORT and "elbow" in fault.text


def test_a_joint_far_from_its_target_for_too_long_is_stuck():
    watch, far = monitor(), {"wrist": 1.2}
    for ms in range(0, 1000, 100):
        assert watch.judge(at(ms, joint_targets=far), ms * MS) is None
    fault = watch.judge(at(1000, joint_targets=far), 1000 * MS)
    assert fault == Fault(StopReason.STUCK, "wrist 0.20 rad from its target")


def test_motors_are_judged_by_their_faults_and_temperatures():
    assert judge_health(Health({"a": 65.0}), LIMITS) is None
    fault = judge_health(Health({"a": 20.0, "b": 66.0}), LIMITS)
    assert fault is not None and fault.reason == StopReason.OVERHEATED and "b 66 C" in fault.text
    assert judge_health(Health({"a": float("nan")}), LIMITS) is not None, "unknown is not cool"
    error = Fault(StopReason.MOTOR_ERROR, "elbow: overload")
    assert judge_health(Health({"b": 99.0}, (error,)), LIMITS) == error
    assert hot_motors(Health({"a": 20.0, "b": 56.0}), LIMITS) == ("b",)
