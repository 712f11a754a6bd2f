"""Define ``ofrl launch``: run a session over ROS and say how it ended.

It runs roslaunch on a launch file of this package. What it adds: argument names are checked before
anything moves, the nodes' own lines are all that is printed, and the exit code is honest.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import tyro
from typing_extensions import Annotated, Literal

from ofrl_robot.cli.output import PipeClosed
from ofrl_robot.errors import ConfigError, OutputError, RobotError
from ofrl_robot.sessions import launch_files, session_log

ENDING = 20.0  # s for the nodes to end after roslaunch: they save the running episode
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # of prctl(2)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m|\x1b\]2;[^\x07]*\x07")
# What roslaunch itself says; the rest is from the nodes. A line that is not known here is shown.
_NOISE = re.compile(
    r"""^\s*(
      $ | =+$ | =+REQUIRED\ process | Initiating\ shutdown | log\ file:
      | process\ has\ (died|finished) | \[[\w/.-]+\]\ (killing\ on\ exit|process\ has)
      | process\[[\w/.-]+\]:\ started | \.\.\.\ (logging\ to|shutting\ down)
      | shutting\ down\ processing | started\ (roslaunch\ server|core\ service)
      | auto-starting\ new\ master | ROS_MASTER_URI= | setting\ /run_id | done$
    )""",
    re.VERBOSE,
)


@dataclasses.dataclass(frozen=True)
class Launch:
    """Collect or deploy over ROS: run the nodes, show what they say, end with an honest exit code.

    `ofrl launch collect --help` lists the arguments of a session. Exit code 0: all episodes were
    saved; 2: not all of them; 130: Ctrl-C, and the running episode was saved as aborted.
    """

    session: tyro.conf.Positional[Literal["collect", "deploy"]]
    """What to do: record demonstrations, or trials of a policy."""
    arguments: Annotated[
        tyro.conf.Positional[Tuple[str, ...]], tyro.conf.arg(metavar="NAME:=VALUE")
    ] = ()
    """Arguments of the launch file, as roslaunch takes them."""

    def run(self) -> None:
        """Run the session.

        Raises:
            ConfigError: an argument is unknown, or ROS is not there.
            RobotError: not everything that was asked for was saved.
            KeyboardInterrupt: Ctrl-C ended it.
        """
        folder = launch_files.find_package(os.environ)
        file = folder / "launch" / f"{self.session}.launch"
        _require_arguments(self.arguments, file, self.session)
        environment = _environment(folder)
        roslaunch = shutil.which("roslaunch", path=environment["PATH"])
        if roslaunch is None:
            raise ConfigError(
                "roslaunch is not found",
                "install ROS 1, or source its setup.bash (/opt/ros/noetic/setup.bash)",
            )
        words = [roslaunch, "--no-summary", "--skip-log-check", "--disable-title", str(file)]
        try:
            descriptor, name = tempfile.mkstemp(prefix="ofrl-session-")
        except OSError as error:
            raise OutputError(
                f"no temporary file can be made ({error})", "free space, or set TMPDIR"
            ) from error
        os.close(descriptor)
        log = Path(name)
        environment[session_log.FILE_VARIABLE] = name
        try:
            interrupted = _run([*words, *self.arguments], environment)
            outcome = session_log.read(log)
        finally:
            log.unlink()
        if outcome.complete:
            return
        if interrupted:
            raise KeyboardInterrupt
        raise RobotError(outcome.line())


def prepare_launch(words: Sequence[str]) -> List[str]:
    """Return the words that the parser is to read: unchanged, unless help is asked for.

    Raises:
        ConfigError: the launch file is not there.
        SystemExit: the arguments of a launch file were printed.
    """
    words = list(words)
    asked = {"--help", "-h"} & set(words)
    if words[:1] == ["launch"] and asked and words[1:2] in (["collect"], ["deploy"]):
        print(_help(words[1]))
        raise SystemExit(0)
    return words


def _help(session: str) -> str:
    file = launch_files.find_package(os.environ) / "launch" / f"{session}.launch"
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    lines = [f"usage: ofrl launch {session} [NAME:=VALUE ...]", ""]
    for argument in launch_files.arguments(file):
        shown = "must be given" if argument.default is None else argument.default
        if "$(optenv" in shown:
            shown = "here"
        shown = re.sub(r"\$\(arg (\w+)\)", r"[\1]", shown)
        lines += textwrap.wrap(
            f"{argument.doc} [{shown}]",
            width,
            initial_indent=f"  {argument.name + ':=':<18}",
            subsequent_indent=" " * 20,
            break_long_words=False,
        )
    return "\n".join(lines)


def _require_arguments(words: Sequence[str], file: Path, session: str) -> None:
    """Refuse what is not ``name:=value``, unknown names, and required ones that are missing."""
    for word in words:
        if not word.partition(":=")[0] or ":=" not in word:
            raise ConfigError(
                f"argument {word!r} is not name:=value", "write, for example, out:=DIR"
            )
    names = launch_files.given_names(words)
    launch_files.require_known(names, file, f"ofrl launch {session} --help")
    for argument in launch_files.arguments(file):
        if argument.default is None and argument.name not in names:
            raise ConfigError(
                f"{argument.name}:= is missing ({argument.doc})", f"give {argument.name}:=VALUE"
            )


def _environment(folder: Path) -> Dict[str, str]:
    """Return the environment of roslaunch: nodes run in this Python, from this package."""
    environment = dict(os.environ, PWD=os.getcwd(), PYTHONUNBUFFERED="1")
    _prepend(environment, "PATH", str(Path(sys.executable).parent))
    _prepend(environment, "ROS_PACKAGE_PATH", str(folder))
    environment.setdefault("ROSCONSOLE_FORMAT", "[${severity}] ${node}: ${message}")
    return environment


def _prepend(environment: Dict[str, str], name: str, entry: str) -> None:
    entries = [e for e in environment.get(name, "").split(os.pathsep) if e and e != entry]
    environment[name] = os.pathsep.join([entry, *entries])


def _run(words: Sequence[str], environment: Dict[str, str]) -> bool:
    """Run roslaunch until all its nodes have ended; return whether a signal ended it.

    The nodes hold the pipe as long as they live, also when roslaunch was killed.
    """
    # A session of its own: the terminal's Ctrl-C would reach roslaunch a second time.
    process = subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_parent,
    )  # fmt: skip
    received: List[int] = []
    unwritable: List[Exception] = []  # why our own output cannot be written

    def pass_on(number: int, _frame: Any) -> None:
        received.append(number)
        if len(received) == 1:  # a second one would cut roslaunch's own ending short
            process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        for line in _lines(process):
            if unwritable:
                continue  # still read: a full pipe would block the nodes
            try:
                print(line, flush=True)
            except (PipeClosed, OutputError) as error:
                unwritable.append(error)
                process.send_signal(signal.SIGINT)
    finally:
        process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if unwritable:
        raise unwritable[0]
    return bool(received)


def _die_with_parent() -> None:
    """Give roslaunch a Ctrl-C when this process is killed; in the child, before it starts."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """Yield the lines that the nodes print, until all have ended."""
    assert process.stdout is not None
    rest, ended = b"", 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not ended or time.monotonic() - ended < ENDING:
            if process.poll() is not None and not ended:
                ended = time.monotonic()
            if not selector.select(0.2):
                continue
            read = os.read(process.stdout.fileno(), 65536)
            if not read:
                break
            *whole, rest = (rest + read).split(b"\n")
            yield from filter(None, map(_shown, whole))
    yield from filter(None, [_shown(rest)])


def _shown(line: bytes) -> str:
    """Return a line as it is printed; empty when it is roslaunch's own."""
    text = _COLOUR.sub("", line.decode(errors="replace")).rstrip()
    return "" if _NOISE.match(text) else text
