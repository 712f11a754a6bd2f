"""Read the settings of a Sawyer, checked."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, Optional, Tuple

from ofrl_robot.errors import ConfigError

HEADER, ARRIVAL = "header", "arrival"
_RATES = (5.0, 10.0, 20.0)


@dataclasses.dataclass(frozen=True)
class SawyerSettings:
    """What can be set of a Sawyer (``settings:="{name: value}"``).

    Attributes:
        action_scale: displacement (m) and rotation (deg) of an action entry of 1.
        control_rate_hz: commands per second: 5, 10 or 20.
        speed_ratio: share of the joint velocity limits that a command may use. 0.5 is what the
            lab stack `sawyer_control` caps its arms at.
        home_speed: share of the joint velocity limits used on the way to the start pose.
        start_joints: start pose of an episode, rad, right_j0 to right_j6; None for the neutral
            pose of the robot.
        lift: m that the hand is raised before it goes to the start pose, where that is possible.
        tip: point of the arm that is measured and commanded.
        gripper: whether the electric gripper is there.
        ik_timeout: s after which an inverse kinematics request is given up.
        stamps: "header": the robot's clock stamps what is measured; "arrival": the time at which
            it arrives here, for a robot whose clock is not synchronised.
        disable_on_close: whether the motors are switched off at the end.
    """

    action_scale: Tuple[float, float] = (0.05, 14.0)
    control_rate_hz: float = 5.0
    speed_ratio: float = 0.5
    home_speed: float = 0.15
    start_joints: Optional[Tuple[float, ...]] = None
    lift: float = 0.1
    tip: str = "right_hand"
    gripper: bool = True
    ik_timeout: float = 0.15
    stamps: str = HEADER
    disable_on_close: bool = True

    @staticmethod
    def from_dict(values: Dict[str, Any]) -> "SawyerSettings":
        """Build settings from those given by name.

        Raises:
            ConfigError: a name is unknown or a value impossible.
        """
        names = [field.name for field in dataclasses.fields(SawyerSettings)]
        for name in values:
            if name not in names:
                raise ConfigError(f"Sawyer has no setting {name!r}", f"use {', '.join(names)}")
        checked: Dict[str, Any] = {}
        for name, value in values.items():
            checked[name] = _CHECKS[name](name, value)
        return SawyerSettings(**checked)

    def to_dict(self) -> Dict[str, Any]:
        """Return the settings as JSON values."""
        return dataclasses.asdict(self)


def _number(name: str, value: Any, low: float, high: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and low <= value <= high):
        raise ConfigError(f"{name} is {value!r}", f"use a number from {low:g} to {high:g}")
    return float(value)


def _scale(name: str, value: Any) -> Tuple[float, float]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ConfigError(f"{name} is {value!r}", "use [m, deg]")
    return _number(name, value[0], 0.001, 0.2), _number(name, value[1], 0.1, 45.0)


def _rate(name: str, value: Any) -> float:
    if value not in _RATES or isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}", "use 5, 10 or 20")
    return float(value)


def _joints(name: str, value: Any) -> Optional[Tuple[float, ...]]:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 7:
        raise ConfigError(f"{name} is {value!r}", "use a list of 7 angles (rad)")
    return tuple(_number(name, angle, -2 * math.pi, 2 * math.pi) for angle in value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}", "use true or false")
    return value


def _tip(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} is {value!r}", "use the name of a link, such as right_hand")
    return value


def _stamps(name: str, value: Any) -> str:
    if value not in (HEADER, ARRIVAL):
        raise ConfigError(f"{name} is {value!r}", f"use {HEADER} or {ARRIVAL}")
    return str(value)


_CHECKS: Dict[str, Any] = {
    "action_scale": _scale,
    "control_rate_hz": _rate,
    "speed_ratio": lambda name, value: _number(name, value, 0.05, 1.0),
    "home_speed": lambda name, value: _number(name, value, 0.02, 0.5),
    "start_joints": _joints,
    "lift": lambda name, value: _number(name, value, 0.0, 0.3),
    "tip": _tip,
    "gripper": _flag,
    "ik_timeout": lambda name, value: _number(name, value, 0.01, 1.0),
    "stamps": _stamps,
    "disable_on_close": _flag,
}
