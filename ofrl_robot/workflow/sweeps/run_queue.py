"""Run the jobs of a sweep, a few at a time, on any executor."""

from __future__ import annotations

import collections
import dataclasses
import io
import time
from pathlib import Path
from typing import Callable, Deque, Dict, Iterator, Sequence, Tuple

from ofrl_robot.processes import interrupt_postponed
from ofrl_robot.workflow.sweeps.executors import PROMPT, Executor

_POLL = 0.2  # s between two looks at the running jobs
_LOG_END = 1 << 16  # bytes of a log that are read for the error message
_ERROR_PREFIX = "ofrl: "  # how the command line begins the one line of an error


@dataclasses.dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        words: of the command line, after ``ofrl``.
        log: file that its output is added to.
    """

    name: str
    words: Tuple[str, ...]
    log: Path


def run_all(
    jobs: Sequence[Job],
    executor: Executor,
    workers: int,
    on_poll: Callable[[Sequence[str]], None],
) -> Iterator[Tuple[str, str]]:
    """Run all jobs, ``workers`` at a time; yield (name, error) when a job ends, "" if it is good.

    Call it in the main thread. No job is left running when it ends, Ctrl-C included.

    Args:
        on_poll: called several times a second with the names of the running jobs.
    """
    waiting: Deque[Job] = collections.deque(jobs)
    running: Dict[str, Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.popleft()
                running[job.name] = job
                executor.submit(job.name, job.words, job.log)
            for name, ending in executor.ended().items():
                job = running.pop(name)
                yield name, error_text(job.log, ending) if ending else ""
            on_poll(list(running))
            if running:
                time.sleep(_POLL)
    finally:
        with interrupt_postponed():
            executor.close()


def error_text(log: Path, ending: str) -> str:
    """Return why a job failed: the error line of its command, else how its process ended.

    Characters that a terminal would obey are escaped.
    """
    latest = _end_of(log).rpartition(f"\n{PROMPT}")[2]
    lines = [_printable(line.strip()) for line in latest.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(_ERROR_PREFIX)]
    if errors:
        return errors[-1][len(_ERROR_PREFIX) :]
    return f"{ending}; last line: {lines[-1]}" if lines else ending


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _end_of(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(0, io.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_END))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
