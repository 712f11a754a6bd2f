"""Settings of the WidowX driver (``settings:="{name: value}"``), checked one by one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Dict, Tuple

from ofrl_robot.errors import ConfigError

# waist, shoulder, elbow, forearm_roll, wrist_angle, wrist_rotate, rad, in the vendor's signs
START_POSES: Dict[str, Tuple[float, ...]] = {
    # gripper down, where bridge_data_robot starts (its NEUTRAL_JOINTS)
    "neutral": (-0.1319, -0.7624, 0.4449, -0.0199, 1.7564, -0.1595),
    # gripper down over the left of the base: roboverse's reset pose, for the twin
    "roboverse": (1.57, -0.6, 0.6, 0.0, 1.57, 0.0),
}


@dataclasses.dataclass(frozen=True)
class WidowXSettings:
    """What the driver is told beside its limits.

    Attributes:
        robot_name: namespace of the vendor's driver (``/wx250s/joint_states``).
        model: the vendor's name of the arm, which gives the kinematics.
        control_rate_hz: commands per second: 5, 10 or 20.
        action_scale: m and deg per step of an action entry of 1.
        start_joints: start pose of an episode, rad, in the order of the vendor's group ``arm``;
            or the name of one of ``START_POSES``.
        move_speed: fastest joint in a homing move, rad/s.
        arrival_tolerance: a joint this near its goal has arrived, rad.
        profile_factor: duration of the motors' profile in control periods. bridge_data_robot
            uses 1.25: with 1 or less the arm stops between two targets.
        gripper_pressure: 0 to 1, from 150 to 350 PWM. More heats the motor on a held object.
        service_timeout: s after which a service of the vendor's driver is given up.
        connect_timeout: s to wait for the vendor's driver.
        sleep_on_close: move to the sleep pose and switch the torque off at the end. Without it
            the arm holds where it is.
    """

    robot_name: str = "wx250s"
    model: str = "wx250s"
    control_rate_hz: float = 5.0
    action_scale: Tuple[float, ...] = (0.05, 14.0)
    start_joints: Tuple[float, ...] = START_POSES["neutral"]
    move_speed: float = 0.6
    arrival_tolerance: float = 0.1
    profile_factor: float = 1.25
    gripper_pressure: float = 0.5
    service_timeout: float = 1.0
    connect_timeout: float = 10.0
    sleep_on_close: bool = True

    @property
    def period(self) -> float:
        """Seconds between two commands."""
        return 1.0 / self.control_rate_hz

    @property
    def profile(self) -> Tuple[float, float]:
        """Duration of a motor's motion and of its acceleration, s (bridge's ratio 1.25 to 0.5)."""
        duration = self.profile_factor * self.period
        return duration, 0.4 * duration

    @staticmethod
    def from_dict(values: Dict[str, Any]) -> "WidowXSettings":
        """Check settings by name. Raises ConfigError for an unknown name or a wrong value."""
        given: Dict[str, Any] = {}
        for name, value in values.items():
            if name not in _CHECKS:
                known = ", ".join(_CHECKS)
                raise ConfigError(f"the widowx driver has no setting {name!r}", f"use {known}")
            if name == "start_joints" and isinstance(value, str):
                value = list(START_POSES.get(value, ()))
            valid, fix = _CHECKS[name]
            if not valid(value):
                raise ConfigError(f"{name} is {values[name]!r}", fix, "settings of widowx")
            given[name] = tuple(map(float, value)) if isinstance(value, (list, tuple)) else value
        return WidowXSettings(**given)


def _is_number(value: Any) -> bool:
    whole_or_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return whole_or_real and math.isfinite(value)


def _numbers(count: int, low: float) -> Callable[[Any], bool]:
    def valid(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == count
            and all(_is_number(entry) and entry > low for entry in value)
        )

    return valid


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and low <= value <= high


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and not value.startswith("/")


_CHECKS: Dict[str, Tuple[Callable[[Any], bool], str]] = {
    "robot_name": (_is_name, "use the vendor's robot_name, e.g. wx250s"),
    "model": (_is_name, "use the vendor's robot_model, e.g. wx250s"),
    "control_rate_hz": (lambda v: _is_number(v) and v in (5, 10, 20), "use 5, 10 or 20"),
    "action_scale": (_numbers(2, 0.0), "use [m, deg], both above 0"),
    "start_joints": (
        _numbers(6, -math.inf),
        f"use six angles in rad, or {' or '.join(START_POSES)}",
    ),
    "move_speed": (_between(0.05, 2.0), "use 0.05 to 2 rad/s"),
    "arrival_tolerance": (_between(0.01, 0.5), "use 0.01 to 0.5 rad"),
    "profile_factor": (_between(0.5, 5.0), "use 0.5 to 5 periods"),
    "gripper_pressure": (_between(0.0, 1.0), "use 0 to 1"),
    "service_timeout": (_between(0.05, 30.0), "use 0.05 to 30 s"),
    "connect_timeout": (_between(0.1, 120.0), "use 0.1 to 120 s"),
    "sleep_on_close": (lambda v: isinstance(v, bool), "use true or false"),
}
