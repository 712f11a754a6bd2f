"""Refuse misspelt arguments of the roslaunch that started this node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional, Sequence

from ofrl_robot.errors import ConfigError
from ofrl_robot.sessions.launch_files import PACKAGE, find_package, given_names, require_known


def require_known_arguments() -> None:
    """Check the arguments of the roslaunch that started this node, if one of ours did.

    Raises:
        ConfigError: one is not declared by the launch file.
    """
    words = _parent_command()
    launch = our_launch_file(words)
    if launch is not None:
        require_known(given_names(words), launch)


def _parent_command() -> List[str]:
    """Return the words of the parent's command line, empty where they cannot be read."""
    try:
        raw = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:  # not Linux, or another user's
        return []
    return [word.decode(errors="replace") for word in raw.split(b"\0") if word]


def our_launch_file(words: Sequence[str]) -> Optional[Path]:
    """Return the launch file of this package that a roslaunch command names, if it does."""
    if not any(Path(word).name == "roslaunch" for word in words[:3]):
        return None
    try:
        folder = find_package(os.environ) / "launch"
    except ConfigError:  # started by a launch file that is somewhere else
        return None
    for word in words:
        path = folder / Path(word).name
        named_by_package = PACKAGE in words and "/" not in word
        if (
            word.endswith(".launch")
            and path.is_file()
            and (named_by_package or Path(word).resolve() == path.resolve())
        ):
            return path
    return None
