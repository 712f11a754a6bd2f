"""A process for each side of a comparison, pinned to one core, spoken to in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Callable, Dict, List, Optional

Order = Dict[str, Any]


def serve(prepare: Callable[[], Callable[[Order], Order]]) -> None:
    """In the process that is measured: answer every order until the input ends.

    Args:
        prepare: returns the function that answers. What it raises is answered instead of "ready":
            mostly that a package is not installed here.
    """
    # what the packages print must not come between the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(values: Order) -> None:
        answers.write(f"{json.dumps(values)}\n")
        answers.flush()

    try:
        act = prepare()
    except Exception as error:
        return answer({"error": f"{type(error).__name__}: {error}"})
    answer({"ready": True})
    for line in sys.stdin:
        answer(act(json.loads(line)))


class Contestant:
    """A script of this folder that serves one side, in an interpreter that has its packages.

    Attributes:
        error: why it cannot take part, or empty.
    """

    def __init__(self, python: str, script: str, words: List[str], core: Optional[int]) -> None:
        self._process = subprocess.Popen(
            [python, os.path.abspath(script), "--serve"] + words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, OMP_NUM_THREADS="1"),
            universal_newlines=True,
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})
        self.error: str = self._read().get("error", "")

    def ask(self, order: Order) -> Order:
        """Its answer; ends the whole benchmark where it fails."""
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            sys.exit(f"bench: {answer['error']}")
        return answer

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> Order:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        return {"error": f"its process died (exit code {self._process.wait()})"}


def last_core() -> Optional[int]:
    """The core to pin to, where processes can be pinned."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else None
