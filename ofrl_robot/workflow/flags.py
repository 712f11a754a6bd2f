"""Settings as flags of ``ofrl train``."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping


def to_flags(settings: Mapping[str, Any]) -> List[str]:
    """Return settings as words that ``ofrl train`` reads.

    Args:
        settings: setting name (with underscores) -> value. True and False become ``--name`` and
            ``--no-name``; a list or tuple becomes one word for each entry.
    """
    words: List[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{flag}", *(str(entry) for entry in value)]
        elif str(value).startswith("-"):  # "-1e-05" alone would be read as a flag
            words.append(f"--{flag}={value}")
        else:
            words += [f"--{flag}", str(value)]
    return words


def changed_settings(config: Any) -> Dict[str, Any]:
    """Return the fields of a settings dataclass that differ from their defaults."""
    default = type(config)()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}
