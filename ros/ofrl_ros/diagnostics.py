"""Make and publish DiagnosticStatus messages."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

PERIOD = 1.0  # s between two messages on /diagnostics (REP 107)


def status_reason(message: DiagnosticStatus) -> str:
    """Return why the robot is stopped, from ``robot/status``; empty while it is armed."""
    return _values(message).get("reason", "")


def status_paused(message: DiagnosticStatus) -> bool:
    """Return whether the episode is paused, from ``robot/status``."""
    return _values(message).get("paused", "0") != "0"


def _values(message: DiagnosticStatus) -> Dict[str, str]:
    return {pair.key: pair.value for pair in message.values}


def status_message(name: str, level: int, text: str, values: Dict[str, Any]) -> DiagnosticStatus:
    """Build a status; values are sent as text."""
    pairs = [KeyValue(key, str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=text, hardware_id="", values=pairs)


class Diagnostics:
    """Publishes one DiagnosticStatus on /diagnostics once a second.

    Args:
        name: of the status.
        describe: returns (level, text, values) when asked.
    """

    def __init__(self, name: str, describe: Callable[[], Tuple[int, str, Dict[str, Any]]]) -> None:
        self._name, self._describe = name, describe
        self._publisher = rospy.Publisher("/diagnostics", DiagnosticArray, queue_size=1)
        self._timer = threading.Thread(target=self._run, daemon=True)
        self._timer.start()

    def _run(self) -> None:
        wait = threading.Event().wait
        while not rospy.is_shutdown():
            level, text, values = self._describe()
            array = DiagnosticArray(status=[status_message(self._name, level, text, values)])
            array.header.stamp = rospy.Time.now()
            self._publisher.publish(array)
            wait(PERIOD)
