"""Find the launch files and check the arguments that they are given.

roslaunch takes any argument name and drops the ones that no file declares, so that a misspelt one
starts a session with the default.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Iterator, List, Mapping, NamedTuple, Optional, Sequence
from xml.etree import ElementTree

from ofrl_robot.errors import ConfigError

PACKAGE = "ofrl_robot"
CLONE = Path(__file__).resolve().parents[2]  # of this package, where it is not installed elsewhere


class Argument(NamedTuple):
    """An argument of a launch file.

    Attributes:
        name: what stands before ``:=``.
        default: as written in the file; None for one that must be given.
        doc: what it means.
    """

    name: str
    default: Optional[str]
    doc: str


def arguments(file: Path) -> List[Argument]:
    """Return the arguments that a launch file declares, in its order.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        root = ElementTree.parse(str(file)).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigError(
            f"cannot be read ({error})", "give the path of a launch file", file
        ) from error
    return [
        Argument(str(arg.get("name")), arg.get("default"), str(arg.get("doc") or ""))
        for arg in root.findall("arg")
        if arg.get("value") is None
    ]


def require_known(given: Sequence[str], file: Path, help_command: str = "") -> None:
    """Refuse names that a launch file does not declare.

    Args:
        given: names, without ``:=``.
        file: the launch file.
        help_command: lists the arguments; empty for roslaunch's own.

    Raises:
        ConfigError: a name is unknown; names the nearest one.
    """
    names = [argument.name for argument in arguments(file)]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            listing = help_command or f"roslaunch {PACKAGE} {file.name} --ros-args"
            fix = f"did you mean {close[0]}:=" if close else f"see {listing}"
            raise ConfigError(f"{file.name} has no argument {name!r}", fix)


def given_names(words: Sequence[str]) -> List[str]:
    """Return the names of the words that have the form ``name:=value``, ROS's own apart."""
    names = [word.partition(":=")[0] for word in words if ":=" in word]
    return [name for name in names if not name.startswith("_")]


def find_package(environment: Mapping[str, str]) -> Path:
    """Return the folder that holds ``launch/`` and the nodes.

    The clone that this code runs from comes first, then ``ROS_PACKAGE_PATH`` (catkin's source
    spaces) and ``CMAKE_PREFIX_PATH`` (what catkin has installed).

    Raises:
        ConfigError: there is none.
    """
    for folder in _candidates(environment):
        if (folder / "launch").is_dir() and (folder / "package.xml").is_file():
            return folder
    raise ConfigError(
        "the launch files are not found",
        "source the clone's scripts/env.sh, or the setup.bash of your catkin workspace",
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    yield CLONE
    for text in filter(None, environment.get("ROS_PACKAGE_PATH", "").split(os.pathsep)):
        if Path(text).name == PACKAGE:
            yield Path(text)
        yield Path(text) / PACKAGE
    for text in filter(None, environment.get("CMAKE_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(text) / "share" / PACKAGE
