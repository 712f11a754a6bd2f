"""The grid of a sweep: all combinations of the values of the varied settings."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re
from typing import Any, Dict, List, Sequence

from ofrl_robot.errors import ConfigError

_LONGEST_NAME = 200  # of a folder; file systems allow 255 with what is added to it
_EXAMPLE = "give --vary NAME=VALUE,VALUE,... such as --vary seed=0,1,2"


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of a grid.

    Attributes:
        texts: setting name (with underscores) -> value as typed.
    """

    texts: Dict[str, str]

    @property
    def name(self) -> str:
        """Name of its run folder, e.g. ``cql_weight=5,seed=1``, safe in a file name."""
        named = ",".join(f"{name}={text}" for name, text in self.texts.items())
        return re.sub(r"[^\w.,=+-]+", "-", named, flags=re.ASCII)

    @property
    def settings(self) -> Dict[str, Any]:
        """The same as values for ``to_flags``: switches as bool, values with blanks as lists."""
        return {name: _value(text) for name, text in self.texts.items()}


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    entries = text.split()
    return entries if len(entries) > 1 else text


def grid(axes: Sequence[str]) -> List[Point]:
    """Return all combinations of axes such as ``seed=0,1,2``; the last axis varies fastest.

    Raises:
        ConfigError: an axis cannot be read, is there twice, or has a value twice.
    """
    values: Dict[str, List[str]] = {}
    for axis in axes:
        name, equals, text = axis.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        entries = [" ".join(entry.split()) for entry in text.split(",")]
        if not (name and equals and all(entries)):
            raise ConfigError(f"--vary {axis!r} is not NAME=VALUE,VALUE,...", _EXAMPLE)
        if name in values:
            raise ConfigError(f"{name} is varied twice", "give all its values in one --vary")
        values[name] = entries
    if not values:
        raise ConfigError("nothing to vary", _EXAMPLE)
    points = [Point(dict(zip(values, chosen))) for chosen in itertools.product(*values.values())]
    _require_distinct_names(points)
    return points


def _require_distinct_names(points: Sequence[Point]) -> None:
    counts = collections.Counter(point.name for point in points)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise ConfigError(f"{count} runs would be named {name}", "give each value once")
    longest = max(counts, key=len)
    if len(longest) > _LONGEST_NAME:
        raise ConfigError(
            f"the folder name {longest[:40]}... has {len(longest)} characters, at most "
            f"{_LONGEST_NAME} are allowed",
            "vary fewer settings, or settings with shorter values",
        )
