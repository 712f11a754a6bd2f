"""Load an arm's limits and deadlines from a YAML file, checked field by field."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Type

from ofrl_robot.config import CONFIG
from ofrl_robot.control.health import HealthLimits
from ofrl_robot.control.limiter import Limits
from ofrl_robot.control.timing import Timing
from ofrl_robot.errors import ConfigError
from ofrl_robot.files import read_yaml
from ofrl_robot.specs import BASE, WORLD

_BOXES = ("workspace_low", "workspace_high", "rotation_low", "rotation_high")
# action_latency belongs to the data, not to safety; a frame or an orientation is not wider
_NOT_COMPARED = ("frame", "upright", "action_latency")


@dataclasses.dataclass(frozen=True)
class ArmFile:
    """What a file of ``config/robots/`` says.

    Attributes:
        limits, timing, health: see there.
        widened: names of the limits that allow more than the file that is shipped for this robot.
    """

    limits: Limits
    timing: Timing
    health: HealthLimits
    widened: Tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ArmConfig:
    """What an arm is built from; its factory in the registry gets one.

    Attributes:
        name: name in the registry (``robot:=name``).
        task: task id or name.
        file: limits and deadlines.
        lockstep: simulation only: time stands still until a tick is answered.
        stamps_from_zero: simulation in lockstep only: the stamps of every episode start at 0, so
            that it is a function of its seed; else at the wall clock, so that stamps are unique.
        settings: further settings of this kind of arm, by name.
    """

    name: str
    task: str
    file: ArmFile
    lockstep: bool = True
    stamps_from_zero: bool = False
    settings: Dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def limits(self) -> Limits:
        """What a command may ask for."""
        return self.file.limits

    @property
    def timing(self) -> Timing:
        """How long things may take."""
        return self.file.timing

    @property
    def health(self) -> HealthLimits:
        """What the arm may report of itself."""
        return self.file.health

    def stored(self) -> Dict[str, Any]:
        """Return what every episode must say of this configuration, beside ``settings``."""
        return {"limits_widened": list(self.file.widened)} if self.file.widened else {}


def load_arm_file(robot: str, path: Optional[Path] = None, widen: bool = False) -> ArmFile:
    """Read the limits, deadlines and health limits of a robot.

    Args:
        robot: its name; ``config/robots/<robot>.yaml`` of this package is read by default.
        path: another file to read.
        widen: allow ``path`` to permit more than the file that is shipped for the robot.

    Raises:
        ConfigError: no such file, a value that is missing, unknown or impossible, or a limit that
            is wider than the shipped one without ``widen``.
    """
    shipped = CONFIG / "robots" / f"{robot}.yaml"
    if path is None:
        if not shipped.is_file():
            raise ConfigError(
                f"there are no limits for robot {robot!r}",
                "name a limits file (limits:=FILE); copy config/robots/sim.yaml to begin with",
            )
        return _read(shipped)
    found = _read(path)
    if not shipped.is_file():
        return found
    wider = wider_limits(found, _read(shipped))
    if wider and not widen:
        raise ConfigError(
            f"allows more than {shipped.name} of this package in {', '.join(wider)}",
            "narrow it, or say that you mean it with widen_limits:=true",
            path,
        )
    return dataclasses.replace(found, widened=wider)


def wider_limits(file: ArmFile, shipped: ArmFile) -> Tuple[str, ...]:
    """Return the names of the values by which ``file`` allows more than ``shipped``."""
    wider = []
    for part, reference in (
        (file.limits, shipped.limits),
        (file.timing, shipped.timing),
        (file.health, shipped.health),
    ):
        for field in dataclasses.fields(part):
            if field.name in _NOT_COMPARED:
                continue
            mine, theirs = getattr(part, field.name), getattr(reference, field.name)
            if _wider(field.name, mine, theirs):
                wider.append(field.name)
    return tuple(wider)


def _wider(name: str, mine: Any, theirs: Any) -> bool:
    if theirs is None or theirs == {}:
        return False  # no limit there
    if mine is None or isinstance(theirs, dict):
        missing = mine is None or any(key not in mine for key in theirs)
        return missing or any(_wider(name, mine[key], theirs[key]) for key in theirs)
    if isinstance(theirs, tuple):
        if name.endswith("_low"):
            return any(a < b for a, b in zip(mine, theirs))
        if name.endswith("_high"):
            return any(a > b for a, b in zip(mine, theirs))
        return bool(mine[0] < theirs[0] or mine[1] > theirs[1])  # the (low, high) of a joint
    return bool(mine > theirs)


def _read(path: Path) -> ArmFile:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError("holds no settings", "write one `name: value` per line", path)
    parts = (Limits, Timing, HealthLimits)
    fields = {f.name: f for part in parts for f in dataclasses.fields(part)}
    unknown = [str(key) for key in data if key not in fields]
    required = [n for n, f in fields.items() if _has_no_default(f)]
    missing = [name for name in required if name not in data]
    if unknown:
        raise ConfigError(f"has unknown {', '.join(unknown)}", f"use {', '.join(fields)}", path)
    if missing:
        raise ConfigError(f"lacks {', '.join(missing)}", "add the missing limits", path)
    values = {name: _value(name, value, path) for name, value in data.items()}
    low, high = values["workspace_low"], values["workspace_high"]
    _require_box("workspace", "m", low, high, path)
    if ("rotation_low" in values) != ("rotation_high" in values):
        raise ConfigError("has one side of the rotation box", "give both or none", path)
    if "rotation_low" in values:
        _require_box("rotation", "deg", values["rotation_low"], values["rotation_high"], path)

    def part(kind: Type[Any]) -> Any:
        names = [field.name for field in dataclasses.fields(kind)]
        return kind(**{name: values[name] for name in names if name in values})

    return ArmFile(part(Limits), part(Timing), part(HealthLimits))


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _value(name: str, value: Any, path: Path) -> Any:
    """Return a checked value of the file."""
    if name == "frame":
        if value not in (WORLD, BASE):
            raise ConfigError(f"frame is {value!r}", f"use {WORLD} or {BASE}", path)
        return value
    if name in _BOXES:
        return _numbers(name, value, 3, path)
    if name == "upright":
        quaternion = _numbers(name, value, 4, path)
        if abs(sum(v * v for v in quaternion) - 1.0) > 1e-3:
            raise ConfigError(f"upright is {value!r}", "use a quaternion of length 1", path)
        return quaternion
    if name == "joints":
        return _joints(value, path)
    if name in ("joint_speeds", "efforts"):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} is {value!r}", f"write `{name}: {{joint: number}}`", path)
        return {str(key): _positive(f"{name} {key}", entry, path) for key, entry in value.items()}
    return _positive(name, value, path, zero=name == "action_latency")


def _positive(name: str, value: Any, path: Path, zero: bool = False) -> float:
    (number,) = _numbers(name, [value], 1, path)
    if number < 0 or (number == 0 and not zero):
        raise ConfigError(f"{name} is {value!r}", "use a number above 0", path)
    return number


def _require_box(
    name: str, unit: str, low: Tuple[float, ...], high: Tuple[float, ...], path: Path
) -> None:
    for axis, a, b in zip("xyz", low, high):
        if a >= b:
            raise ConfigError(
                f"{name} is empty along {axis} ({a:g} to {b:g} {unit})",
                f"give a {name}_low below {name}_high",
                path,
            )


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
