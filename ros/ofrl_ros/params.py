"""Read private parameters of a node, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import rospy

from ofrl_robot.errors import ConfigError
from ofrl_ros.messages import ACTION_TOPICS


def seconds_param(name: str, default: float) -> float:
    """Return a positive number of seconds; "auto" is the default. Raises ConfigError otherwise."""
    if rospy.get_param("~" + name, "auto") == "auto":
        return default
    return _number_param(name, default, float, "use seconds > 0", lambda value: value > 0)


def optional_seconds_param(name: str) -> Optional[float]:
    """Return a positive number of seconds, None for "auto". Raises ConfigError otherwise."""
    if rospy.get_param("~" + name, "auto") == "auto":
        return None
    return seconds_param(name, 0.0)


def int_param(name: str, default: int, low: int, high: Optional[int] = None) -> int:
    """Return a whole number from ``low`` to ``high``. Raises ConfigError otherwise."""
    range_text = f"of {low} or more" if high is None else f"from {low} to {high}"
    return _number_param(
        name,
        default,
        int,
        f"use a whole number {range_text}",
        lambda value: low <= value and (high is None or value <= high),
    )


def bool_param(name: str, default: bool) -> bool:
    """Return true or false. Raises ConfigError otherwise: any text would count as true."""
    value = rospy.get_param("~" + name, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{_full(name)} is {value!r}", "use true or false")
    return value


def sources_param() -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    """Return who may command and whose answers are awaited, from ``~actors``.

    ``~actors`` names actor nodes ("teleop", "policy", or both), which all are awaited. Without it
    anybody may command, and is awaited once he has spoken.

    Raises:
        ConfigError: another name.
    """
    value = str(rospy.get_param("~actors", ""))
    known = {topic.split("/")[0]: source for topic, source in ACTION_TOPICS.items()}
    names = value.replace(",", " ").split()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"{_full('actors')} is {value!r}", f"use {' or '.join(known)}, or both")
    chosen = tuple(known[name] for name in names)
    return (chosen or tuple(known.values())), chosen


def choice_param(name: str, choices: Sequence[str]) -> str:
    """Return one of ``choices``; the first by default. Raises ConfigError otherwise."""
    value = str(rospy.get_param("~" + name, choices[0]))
    if value not in choices:
        raise ConfigError(f"{_full(name)} is {value!r}", f"use {' or '.join(choices)}")
    return value


def dict_param(name: str) -> Dict[str, Any]:
    """Return settings by name, empty when there are none. Raises ConfigError otherwise."""
    value = rospy.get_param("~" + name, {})
    if value in ("", None):
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{_full(name)} is {value!r}", "use a YAML mapping {name: value}")
    return value


def path_param(name: str) -> Optional[Path]:
    """Return a path, relative to where roslaunch ran; None when it is empty or "auto".

    roslaunch starts nodes in ~/.ros, so a relative path means nothing there by itself.
    """
    text = str(rospy.get_param("~" + name, "") or "")
    if text in ("", "auto"):  # roslaunch calls an argument with an empty default a required one
        return None
    return Path(str(rospy.get_param("~cwd", "."))) / text


def _number_param(name: str, default: Any, kind: type, fix: str, valid: Callable) -> Any:
    value = rospy.get_param("~" + name, default)
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or isinstance(value, bool) or number != value or not valid(number):
        raise ConfigError(f"{_full(name)} is {value!r}", fix)
    return number


def _full(name: str) -> str:
    return rospy.resolve_name("~" + name)
