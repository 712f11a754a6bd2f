"""The threads that watch while the control thread works: deadlines, and the motors' health."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Dict, Iterator, Optional

import rospy
from std_msgs.msg import Empty

from ofrl_robot.control.health import Health, hot_motors, judge_health
from ofrl_robot.control.protocols import Arm
from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.control.watchdog import CallWatch, Heartbeat
from ofrl_ros.speakers import Speaker

POLL = 0.02  # s between two looks: how late a watchdog can be
HEALTH_PERIOD = 1.0  # s between two looks at the motors: each is a read on their bus
MAX_HEALTH_CALL = 5.0  # s for that
HEARTBEAT_PERIOD = 0.1  # s between two signs of life of this node
ROBOT_HEARTBEAT, RECORDER_HEARTBEAT = "robot/heartbeat", "episode/heartbeat"

Stop = Callable[[StopReason, str], None]


class Watchdogs:
    """Everything that is watched beside the control thread.

    Args:
        arm: whose driver and motors.
        stop: stops the arm; called from these threads.
        real_time: also watch how long the driver takes; a simulation in lockstep may take long.
    """

    def __init__(self, arm: Arm, stop: Stop, real_time: bool) -> None:
        self._arm, self._stop = arm, stop
        timing = arm.timing
        self._call = CallWatch(StopReason.ARM_BLOCKED, "a call of the driver", timing.max_call)
        self._health_call = CallWatch(
            StopReason.MOTOR_SILENT, "the look at the motors", MAX_HEALTH_CALL
        )
        self._recorder = Heartbeat(
            StopReason.RECORDER_SILENT, "recorder", timing.max_recorder_silence
        )
        self._real_time = real_time
        self._running = False  # an episode
        self._raised: Optional[Fault] = None  # not again until clear()
        self._health = Health()
        self._alive = rospy.Publisher(ROBOT_HEARTBEAT, Empty, queue_size=1, tcp_nodelay=True)
        Speaker(RECORDER_HEARTBEAT, Empty, self._on_recorder)
        for loop in (self._watch, self._ask_motors):
            threading.Thread(target=loop, name=loop.__name__, daemon=True).start()

    def begin(self) -> None:
        """Note that an episode runs. While a reset waited for a person, the recorder waited too."""
        self._recorder.grant(time.monotonic())
        self._running = True

    def end(self) -> None:
        """Note that no episode runs any more."""
        self._running = False

    def clear(self) -> None:
        """Allow the same fault to be raised again, after a re-arm."""
        self._raised = None

    @property
    def driver_call(self) -> "contextlib.AbstractContextManager[None]":
        """Watch what is done inside as one call of the driver."""
        return self._calling()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        self._call.enter(time.monotonic())
        try:
            yield
        finally:
            self._call.leave()

    def values(self) -> Dict[str, Any]:
        """Return the temperatures, for diagnostics."""
        return {f"temperature/{m}": f"{c:.0f}" for m, c in self._health.temperatures.items()}

    def _on_recorder(self, _message: Empty) -> None:
        self._recorder.hear(time.monotonic())

    def _watch(self) -> None:
        told = 0.0
        while not rospy.is_shutdown():
            now = time.monotonic()
            fault = self._call.fault(now) if self._real_time else None
            fault = fault or self._health_call.fault(now)
            if self._running:
                fault = fault or self._recorder.fault(now)
            self._raise(fault)
            if now - told >= HEARTBEAT_PERIOD:
                told = now
                with contextlib.suppress(rospy.ROSException):  # closed at shutdown
                    self._alive.publish()
            time.sleep(POLL)

    def _ask_motors(self) -> None:
        wait = threading.Event().wait
        while not rospy.is_shutdown():
            self._health_call.enter(time.monotonic())
            try:
                self._health = self._arm.health()
                fault = judge_health(self._health, self._arm.health_limits)
            except (Exception, SystemExit) as error:  # whatever it is, the motors are not known
                fault = Fault(StopReason.MOTOR_SILENT, f"{type(error).__name__}: {error}")
            finally:
                self._health_call.leave()
            for motor in hot_motors(self._health, self._arm.health_limits):
                rospy.logwarn_throttle(60, "motor %s is hot: let the arm rest", motor)
            self._raise(fault)
            wait(HEALTH_PERIOD)

    def _raise(self, fault: Optional[Fault]) -> None:
        """Stop the arm for a fault, once until the next re-arm."""
        if fault is not None and (self._raised is None or self._raised.reason != fault.reason):
            self._raised = fault
            self._stop(fault.reason, fault.text)
