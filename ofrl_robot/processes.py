"""Child processes: how many, kept from Ctrl-C, watched, and how one died."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import time
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Callable, Deque, Iterator, List, Optional, Sequence, Set, Tuple

END_TIMEOUT = 1.0  # s that a process whose pipe was closed has to end by itself
TERMINATE_TIMEOUT = 10.0  # s that a process has to end after SIGTERM


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def interrupt_postponed() -> Iterator[None]:
    """Ctrl-C inside takes effect at the end; processes started inside never hear of it.

    A terminal sends it to all of them, but ending them is the parent's job. Main thread only.
    """
    heard: List[int] = []
    resource_tracker.ensure_running()  # when it starts, it unblocks the signal
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def exit_text(process: BaseProcess) -> str:
    """Return how a process has ended: the signal's name or the exit code."""
    return exit_code_text(process.exitcode)


def exit_code_text(code: Optional[int]) -> str:
    """Return the name of the signal that ended a process (``code`` below 0), or its exit code."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


def terminate(processes: Sequence[subprocess.Popen], seconds: float = TERMINATE_TIMEOUT) -> None:
    """End processes: SIGTERM to all, then SIGKILL to those that still run after ``seconds``."""
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.wait()


# -- watched work ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Lost:
    """Why an item has no result: its process died, hung, or the work raised."""

    reason: str


def watched_map(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    seconds: Callable[[Any], float],
    workers: int,
) -> Iterator[Tuple[int, Any]]:
    """``work`` on every item, in child processes; (index, result or :class:`Lost`), in any order.

    A child that dies or hangs costs its own item only. What a child did before can be the cause
    (a damaged heap), so an item that was not its first is tried again in a new one.
    To be called from the main thread; closing the generator ends the children.

    Args:
        work: picklable, as are items and results; its process may be killed at any time.
        seconds: that an item may take, the start of its process included.
        workers: most processes at work at a time.
    """
    waiting: Deque[int] = collections.deque(range(len(items)))
    again: Set[int] = set()
    idle: List[_Child] = []
    busy: List[_Child] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                index = waiting.popleft()
                child = idle.pop() if idle and index not in again else _Child(work)
                busy.append(child)
                child.hand(index, items[index], seconds(items[index]))
            for child in _ready(busy):
                busy.remove(child)
                result = child.result()
                if not isinstance(result, Lost):
                    idle.append(child)
                else:
                    child.end()
                    if child.handed > 1:
                        again.add(child.index)
                        waiting.appendleft(child.index)
                        continue
                yield child.index, result
    finally:
        with interrupt_postponed():
            for child in idle + busy:
                child.end()


class _Child:
    """A process that works on what it is handed, one item at a time."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would have HDF5 half-alive
        self.handed, self.index, self.deadline = 0, -1, 0.0
        self.pipe, far_end = context.Pipe()
        with interrupt_postponed():
            self._process = context.Process(target=_serve, args=(work, far_end), daemon=True)
            self._process.start()
        far_end.close()  # or the end of the process would not close the pipe

    def hand(self, index: int, item: Any, seconds: float) -> None:
        self.handed, self.index = self.handed + 1, index
        self._seconds, self.deadline = seconds, time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # it died: its pipe will say so
            self.pipe.send(item)

    def result(self) -> Any:
        if not self.pipe.poll():
            return Lost(f"no result within {self._seconds:.0f} s")
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(END_TIMEOUT)
            return Lost(f"the process that read it died ({exit_text(self._process)})")

    def end(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _ready(busy: Sequence[_Child]) -> List[_Child]:
    """Those that have answered, died or run out of time; waits for the first."""
    left = min(child.deadline for child in busy) - time.monotonic()
    answered = wait([child.pipe for child in busy], max(0.0, left))
    now = time.monotonic()
    return [child for child in busy if child.pipe in answered or child.deadline <= now]


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """A child: works on what comes through ``pipe`` until it is closed."""
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            result = work(item)
        except Exception as error:
            result = Lost(f"{type(error).__name__}: {error}")
        pipe.send(result)
