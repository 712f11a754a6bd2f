"""Bounds of a normal episode, read from ``config/data/limits.yaml``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Optional, Tuple

from ofrl_robot.config import CONFIG
from ofrl_robot.errors import ConfigError
from ofrl_robot.files import read_yaml

DEFAULT_FILE = CONFIG / "data" / "limits.yaml"


@dataclasses.dataclass(frozen=True)
class QualityLimits:
    """Bounds of a normal episode; ``config/data/limits.yaml`` gives units and meaning."""

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


def load_limits(path: Optional[Path] = None) -> Tuple[QualityLimits, Path]:
    """Read limits from a file; return them and the file.

    Args:
        path: YAML file of ``name: value`` lines; None for the file of this package. A limit that
            the file does not set has its built-in value.

    Raises:
        ConfigError: the file cannot be read, or sets anything but known limits >= 0.
    """
    path = path or DEFAULT_FILE
    values = read_yaml(path) or {}
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
    return QualityLimits(**values), path
