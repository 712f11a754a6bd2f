"""What is normal for an episode, as set in ``config/data/limits.yaml``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Optional, Tuple

import yaml

from ofrl_robot.config import CONFIG
from ofrl_robot.errors import ConfigError

DEFAULT_FILE = CONFIG / "data" / "limits.yaml"
BUILT_IN = "built-in"  # where the limits come from when there is no file


@dataclasses.dataclass(frozen=True)
class QualityLimits:
    """Bounds of a normal episode; units and meaning are in ``config/data/limits.yaml``."""

    rate_tolerance: float = 0.1
    max_gap_fraction: float = 0.02
    max_late_fraction: float = 0.05
    max_held_fraction: float = 0.05
    max_skew_ms: float = 200.0
    max_frame_age_ms: float = 200.0
    max_frame_lead_ms: float = 5.0
    max_repeated_run: float = 5
    max_blank_fraction: float = 0.0
    blank_contrast: float = 8


def load_limits(path: Optional[Path] = None) -> Tuple[QualityLimits, str]:
    """(limits, where they come from).

    Args:
        path: YAML file of ``name: value`` lines; None for ``config/data/limits.yaml`` of this
            clone, or the built-in values, which are the same, where the package lies alone.

    Raises ConfigError naming file and line when the file holds anything but known limits >= 0.
    """
    if path is None and not DEFAULT_FILE.exists():
        return QualityLimits(), BUILT_IN
    path = path or DEFAULT_FILE
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"cannot be read ({' '.join(str(error).split())})", "give a YAML file", path
        ) from error
    if not isinstance(values, dict):
        raise ConfigError("not a list of `name: value` lines", "see config/data/limits.yaml", path)
    known = [field.name for field in dataclasses.fields(QualityLimits)]
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown limit {name!r}", f"use {', '.join(known)}", path)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ConfigError(
                f"{name} is {value!r}", "use a number of 0 or more (.inf: no limit)", path
            )
    return QualityLimits(**values), str(path)
