"""Load an arm's limits from a YAML file, checked field by field."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from ofrl_robot.config import CONFIG
from ofrl_robot.control.limiter import Limits
from ofrl_robot.errors import ConfigError
from ofrl_robot.files import read_yaml
from ofrl_robot.specs import BASE, WORLD

_OPTIONAL = ("max_speed", "max_change", "joints")


@dataclasses.dataclass(frozen=True)
class ArmConfig:
    """What an arm is built from; its factory in the registry gets one.

    Attributes:
        name: name in the registry (``robot:=name``).
        task: task id or name.
        limits: what a command may ask for.
        lockstep: simulation only: time stands still until a tick is answered.
        stamps_from_zero: simulation in lockstep only: the stamps of every episode start at 0, so
            that it is a function of its seed; else at the wall clock, so that stamps are unique.
        settings: further settings of this kind of arm, by name.
    """

    name: str
    task: str
    limits: Limits
    lockstep: bool = True
    stamps_from_zero: bool = False
    settings: Dict[str, Any] = dataclasses.field(default_factory=dict)


def load_limits(robot: str, path: Optional[Path] = None) -> Limits:
    """Read the limits of a robot.

    Args:
        robot: its name; ``config/robots/<robot>.yaml`` of this package is read by default.
        path: another file to read.

    Raises:
        ConfigError: no such file, or a value that is missing, unknown or impossible.
    """
    if path is None:
        path = CONFIG / "robots" / f"{robot}.yaml"
        if not path.is_file():
            raise ConfigError(
                f"there are no limits for robot {robot!r}",
                "name a limits file (limits:=FILE); copy config/robots/sim.yaml to begin with",
            )
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError("holds no settings", "write one `name: value` per line", path)
    names = [field.name for field in dataclasses.fields(Limits)]
    unknown = [str(key) for key in data if key not in names]
    missing = [name for name in names if name not in data and name not in _OPTIONAL]
    if unknown:
        raise ConfigError(f"has unknown {', '.join(unknown)}", f"use {', '.join(names)}", path)
    if missing:
        raise ConfigError(f"lacks {', '.join(missing)}", "add the missing limits", path)
    values: Dict[str, Any] = {"frame": data["frame"]}
    if data["frame"] not in (WORLD, BASE):
        raise ConfigError(f"frame is {data['frame']!r}", f"use {WORLD} or {BASE}", path)
    for name in ("workspace_low", "workspace_high"):
        values[name] = _numbers(name, data[name], 3, path)
    for axis, low, high in zip("xyz", values["workspace_low"], values["workspace_high"]):
        if low >= high:
            raise ConfigError(
                f"workspace is empty along {axis} ({low:g} to {high:g} m)",
                "give a workspace_low below workspace_high",
                path,
            )
    for name in ("max_translation", "max_rotation", "max_silence", "max_speed", "max_change"):
        if name in data:
            (values[name],) = _numbers(name, [data[name]], 1, path)
            if values[name] <= 0:
                raise ConfigError(f"{name} is {data[name]!r}", "use a number above 0", path)
    values["joints"] = _joints(data.get("joints", {}), path)
    return Limits(**values)


def _numbers(name: str, value: Any, count: int, path: Path) -> Tuple[float, ...]:
    def finite(entry: Any) -> bool:
        number = isinstance(entry, (int, float)) and not isinstance(entry, bool)
        return number and math.isfinite(entry)

    if not isinstance(value, list) or len(value) != count or not all(map(finite, value)):
        fix = "use a number" if count == 1 else f"use a list of {count} numbers"
        raise ConfigError(f"{name} is {value!r}", fix, path)
    return tuple(float(entry) for entry in value)


def _joints(value: Any, path: Path) -> Dict[str, Tuple[float, float]]:
    if not isinstance(value, dict):
        raise ConfigError(f"joints is {value!r}", "write `joints: {name: [low, high]}`", path)
    joints = {}
    for name, pair in value.items():
        low, high = _numbers(f"joint {name}", pair, 2, path)
        if low >= high:
            raise ConfigError(f"joint {name} is {pair!r}", "give low below high", path)
        joints[str(name)] = (low, high)
    return joints
