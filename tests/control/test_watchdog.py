"""Deadlines on a simulated clock."""

from __future__ import annotations

from ofrl_robot.control.stops import StopReason
from ofrl_robot.control.watchdog import CallWatch, Heartbeat


def test_what_was_never_heard_of_is_not_missed():
    beat = Heartbeat(StopReason.RECORDER_SILENT, "recorder", 1.0)
    assert beat.fault(1e9) is None
    beat.grant(5.0)
    assert beat.fault(1e9) is None


def test_silence_is_a_fault_until_the_next_beat():
    beat = Heartbeat(StopReason.RECORDER_SILENT, "recorder", 1.0)
    beat.hear(10.0)
    assert beat.fault(11.0) is None
    fault = beat.fault(11.1)
    assert fault is not None and fault.reason == StopReason.RECORDER_SILENT
    assert "recorder for 1.1 s" in fault.text
    beat.hear(12.0)
    assert beat.fault(12.5) is None
    beat.grant(20.0)
    assert beat.fault(20.9) is None and beat.fault(21.1) is not None


def test_a_call_that_does_not_return_is_a_fault_until_it_does():
    call = CallWatch(StopReason.ARM_BLOCKED, "a call of the driver", 0.5)
    assert call.fault(0.0) is None
    call.enter(1.0)
    assert call.fault(1.5) is None
    fault = call.fault(1.6)
    assert fault is not None and "has not returned for 0.6 s" in fault.text
    call.leave()
    assert call.fault(99.0) is None
