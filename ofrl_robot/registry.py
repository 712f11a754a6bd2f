"""Find arms, cameras, teleoperation devices and algorithms by name, ours and other packages'."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import Any, Dict, List

from ofrl_robot.errors import ConfigError


class Registry:
    """A table of named things, loaded when they are asked for.

    Built-in entries are given as ``"module:attribute"``, so that a name costs no import. Another
    package adds its own through an entry point of the same group, without touching this one::

        [options.entry_points]
        ofrl_robot.arms =
            myarm = my_package.my_arm:MyArm

    Code that runs in the same process may call :meth:`register` instead.

    Args:
        kind: what the entries are, for messages ("arm").
        group: entry point group ("ofrl_robot.arms").
        builtin: name -> "module:attribute".
    """

    def __init__(self, kind: str, group: str, builtin: Dict[str, str]) -> None:
        self.kind, self.group = kind, group
        self._entries: Dict[str, Any] = dict(builtin)

    def register(self, name: str, entry: Any) -> None:
        """Add an entry: the thing itself, or ``"module:attribute"``.

        Raises:
            ConfigError: the name is taken by another entry.
        """
        if self._entries.get(name, entry) != entry:
            raise ConfigError(f"{self.kind} {name!r} is registered already", "choose another name")
        self._entries[name] = entry

    def names(self) -> List[str]:
        """Return all names, sorted; nothing is imported."""
        return sorted({*self._entries, *self._plugins()})

    def load(self, name: str) -> Any:
        """Return the entry called ``name``, importing it if need be.

        Raises:
            ConfigError: there is no such name, or its package cannot be imported.
        """
        entry = self._entries.get(name)
        if entry is None:
            entry = self._plugins().get(name)
        if entry is None:
            raise ConfigError(
                f"{self.kind} {name!r} is unknown", f"use one of: {', '.join(self.names())}"
            )
        if not isinstance(entry, str):
            return entry
        module, _, attribute = entry.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{self.kind} {name!r} cannot be loaded from {entry} ({error})",
                "install the package that it needs",
            ) from error

    def _plugins(self) -> Dict[str, str]:
        if sys.version_info >= (3, 10):
            found = metadata.entry_points(group=self.group)
        else:
            found = metadata.entry_points().get(self.group, [])
        return {point.name: point.value for point in found}
