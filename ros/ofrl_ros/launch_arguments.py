"""Refuse misspelt arguments of roslaunch, which itself takes any name and drops it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import List, Optional, Sequence, Tuple
from xml.etree import ElementTree

from ofrl_robot.errors import ConfigError

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


def argument_names(file: Path) -> Tuple[str, ...]:
    """Return the arguments that a launch file declares.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        root = ElementTree.parse(str(file)).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigError(
            f"cannot be read ({error})", "give the path of a launch file", file
        ) from error
    return tuple(str(arg.get("name")) for arg in root.findall("arg") if arg.get("value") is None)


def require_known(given: Sequence[str], file: Path) -> None:
    """Raise ConfigError unless a launch file declares every name of ``given``."""
    names = argument_names(file)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            fix = f"did you mean {close[0]}:=" if close else f"roslaunch {file.name} --ros-args"
            raise ConfigError(f"{file.name} has no argument {name!r}", fix)


def require_known_arguments() -> None:
    """Check the arguments of the roslaunch that started this node, if one of ours did.

    Raises:
        ConfigError: one is not declared by the launch file.
    """
    words = _parent_command()
    launch = _our_launch_file(words)
    if launch is not None:
        given = [word.partition(":=")[0] for word in words if ":=" in word]
        require_known([name for name in given if not name.startswith("_")], launch)


def _parent_command() -> List[str]:
    """Return the words of the parent's command line, empty where they cannot be read."""
    try:
        raw = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:  # not Linux, or another user's
        return []
    return [word.decode(errors="replace") for word in raw.split(b"\0") if word]


def _our_launch_file(words: Sequence[str]) -> Optional[Path]:
    """Return the launch file of this package that a roslaunch command names, if it does."""
    if not any(Path(word).name == "roslaunch" for word in words[:3]):
        return None
    for word in words:
        path = LAUNCH / Path(word).name
        named_by_package = "ofrl_robot" in words and "/" not in word
        if (
            word.endswith(".launch")
            and path.is_file()
            and (named_by_package or Path(word).resolve() == path)
        ):
            return path
    return None
