"""Speak the topics of a Sawyer's gripper: signals as JSON, commands acknowledged by their time."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Tuple

import rospy

from ofrl_ros.twin.sawyer_model import MAX_OPENING

NAME = "right_gripper"
_PATH = "/io/end_effector/"
_REMEMBERED = 20  # times of commands that a state repeats
_EVERY = 5  # of the 100 Hz: a state each 50 ms
_MOVING, _TOUCHING = 0.005, 0.002  # m/s, m


class GripperIO:
    """The gripper as a device of the robot's input and output.

    Args:
        core: the vendor's messages.
        move: called with the opening (m) that a command asks for.

    Attributes:
        acknowledges: whether commands are answered (a fault, when not).
    """

    def __init__(self, core: Any, move: Callable[[float], None]) -> None:
        self._core, self._move = core, move
        self.acknowledges = True
        self._target, self._calibrated, self._error = MAX_OPENING, True, False
        self._times: List[rospy.Time] = []
        self._count = 0
        node = core.IONodeConfiguration(time=rospy.Time.now())
        node.devices = [core.IOComponentConfiguration(name=NAME)]
        self._nodes = _publisher(_PATH + "config", core.IONodeConfiguration)
        self._nodes.publish(node)
        self._configs = _publisher(_PATH + NAME + "/config", core.IODeviceConfiguration)
        self._configs.publish(core.IODeviceConfiguration(time=rospy.Time.now()))
        self._states = _publisher(_PATH + NAME + "/state", core.IODeviceStatus)
        rospy.Subscriber(_PATH + NAME + "/command", core.IOComponentCommand, self._on_command)

    def publish(self, opening: float, speed: float) -> None:
        """Send the state; every fifth call does."""
        self._count += 1
        if self._count % _EVERY:
            return
        moving = abs(speed) > _MOVING
        gripping = not moving and opening - self._target > _TOUCHING
        signals: Dict[str, Tuple[str, Any]] = {
            "position_m": ("float", self._target),
            "position_response_m": ("float", opening),
            "speed_mps": ("float", 0.2),
            "force_response_n": ("float", 15.0 if gripping else 0.0),
            "is_calibrated": ("bool", self._calibrated),
            "is_moving": ("bool", moving),
            "is_gripping": ("bool", gripping),
            "has_error": ("bool", self._error),
            "calibrate": ("bool", False),
            "reboot": ("bool", False),
            "go": ("bool", True),
        }
        message = self._core.IODeviceStatus(time=rospy.Time.now(), commands=list(self._times))
        message.signals = [
            self._core.IODataStatus(
                name=name,
                format=json.dumps({"type": kind, "role": "output"}),
                data=json.dumps([value]),
            )
            for name, (kind, value) in signals.items()
        ]
        self._states.publish(message)

    def _on_command(self, message: Any) -> None:
        if not self.acknowledges:
            return
        if message.time not in self._times:  # the client repeats it until it is acknowledged
            self._times = (self._times + [message.time])[-_REMEMBERED:]
            for name, value in json.loads(message.args).get("signals", {}).items():
                self._set(name, value["data"][0])

    def _set(self, name: str, value: Any) -> None:
        if name == "position_m":
            self._target = min(max(float(value), 0.0), MAX_OPENING)
            self._move(self._target)
        elif name == "calibrate":
            self._calibrated = True
        elif name == "reboot":
            self._error, self._calibrated = False, False


def _publisher(topic: str, kind: Any) -> rospy.Publisher:
    return rospy.Publisher(topic, kind, queue_size=10, tcp_nodelay=True, latch=True)
