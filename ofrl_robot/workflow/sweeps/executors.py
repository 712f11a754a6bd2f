"""Where the runs of a sweep are made: processes of this computer here, Ray in ray_executor."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, Optional, Protocol, Sequence

from ofrl_robot.errors import ConfigError

PROMPT = "$ ofrl "  # before the flags, at the head of what a run adds to its log
END_TIMEOUT = 10.0  # s that a process has to end after SIGTERM


class Executor(Protocol):
    """Makes runs in processes of their own."""

    def submit(self, name: str, words: Sequence[str], log: Path) -> None:
        """Start ``ofrl WORDS``, all it prints added to ``log``, or have it start when it can."""

    def ended(self) -> Dict[str, str]:
        """Those that ended since the last call, with how: "" for well, else a few words."""

    def close(self) -> None:
        """End all that still run, and wait for it."""


class LocalExecutor:
    """Starts every run at once, as a child of this process."""

    def __init__(self) -> None:
        self._processes: Dict[str, subprocess.Popen] = {}

    def submit(self, name: str, words: Sequence[str], log: Path) -> None:
        self._processes[name] = start(words, log)

    def ended(self) -> Dict[str, str]:
        codes = {name: process.poll() for name, process in self._processes.items()}
        endings = {name: ending(code) for name, code in codes.items() if code is not None}
        for name in endings:
            del self._processes[name]
        return endings

    def close(self) -> None:
        end(*self._processes.values())
        self._processes.clear()


def start(words: Sequence[str], log: Path, folder: Optional[Path] = None) -> subprocess.Popen:
    """``ofrl WORDS`` in ``folder`` (default: here), by the interpreter that runs this.

    Stays in the terminal's group, so that Ctrl-C reaches it also where its parent is killed.
    """
    try:
        with open(str(log), "ab") as output:
            output.write(f"\n{PROMPT}{' '.join(words)}\n".encode())
            output.flush()
            return subprocess.Popen(
                [sys.executable, "-m", "ofrl_robot.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=None if folder is None else str(folder),
            )
    except OSError as error:
        raise ConfigError(
            f"cannot be run ({error.strerror})", "choose another --out", log
        ) from error


def end(*processes: subprocess.Popen) -> None:
    """SIGTERM, then SIGKILL; a run that is killed loses nothing up to its last checkpoint."""
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT)
        process.kill()
        process.wait()


def ending(code: int) -> str:
    """How a process with this return code ended, "" for well."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}" if code else ""
