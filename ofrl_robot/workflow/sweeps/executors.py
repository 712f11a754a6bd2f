"""Executors start the runs of a sweep; this one as processes of this computer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Dict, Optional, Protocol, Sequence

from ofrl_robot import files
from ofrl_robot.processes import exit_code_text, terminate

PROMPT = "$ ofrl "  # before the flags, at the head of what a run adds to its log


class Executor(Protocol):
    """Starts each run in a process of its own."""

    def submit(self, name: str, words: Sequence[str], log: Path) -> None:
        """Start ``ofrl WORDS`` now or when there is room; append its output to ``log``."""

    def ended(self) -> Dict[str, str]:
        """Return the runs that ended since the last call: name -> "" if good, else how it ended."""

    def close(self) -> None:
        """End all runs that are still running, and wait for them."""


class LocalExecutor:
    """Starts every run at once, as a child of this process."""

    def __init__(self) -> None:
        self._processes: Dict[str, subprocess.Popen] = {}

    def submit(self, name: str, words: Sequence[str], log: Path) -> None:
        """Start ``ofrl WORDS`` and append its output to ``log``."""
        self._processes[name] = start(words, log)

    def ended(self) -> Dict[str, str]:
        """Return the runs that ended since the last call, see :class:`Executor`."""
        endings = {}
        for name, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                endings[name] = ending(code)
                del self._processes[name]
        return endings

    def close(self) -> None:
        """End all runs that are still running, and wait for them."""
        terminate(list(self._processes.values()))
        self._processes.clear()


def start(words: Sequence[str], log: Path, folder: Optional[Path] = None) -> subprocess.Popen:
    """Start ``ofrl WORDS`` in ``folder`` (default: here), with the interpreter that runs this.

    The child stays in the terminal's process group, so that Ctrl-C reaches it even after its
    parent was killed.

    Raises:
        OutputError: the log cannot be written, or the process cannot be started.
    """
    try:
        with open(log, "ab") as output:
            output.write(f"\n{PROMPT}{' '.join(words)}\n".encode())
            output.flush()
            return subprocess.Popen(
                [sys.executable, "-m", "ofrl_robot.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
    except OSError as error:
        raise files.output_error(error, log) from error


def ending(code: int) -> str:
    """Return how a process with this return code ended, "" for a good end."""
    if code == 0:
        return ""
    text = exit_code_text(code)
    return f"killed by {text}" if code < 0 else text
