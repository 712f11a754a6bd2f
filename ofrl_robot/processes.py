"""Run work in child processes that may crash or hang, and keep Ctrl-C away from them."""

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
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def interrupt_postponed() -> Iterator[None]:
    """Postpone Ctrl-C to the end of the block; processes started inside ignore it for good.

    A terminal sends Ctrl-C to all of them, but the parent must end them. Main thread only.

    Raises:
        KeyboardInterrupt: at the end of the block, if Ctrl-C came inside.
    """
    received: List[int] = []
    resource_tracker.ensure_running()  # when it starts, it unblocks the signal
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if received:
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
    """Result of an item whose process died or hung, or whose work raised; ``reason`` says which."""

    reason: str


def watched_map(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    seconds: Callable[[Any], float],
    workers: int,
) -> Iterator[Tuple[int, Any]]:
    """Call ``work`` on every item in child processes.

    A child that dies or hangs costs only its own item. An earlier item can be the cause (a damaged
    heap), so an item that was not the first of its child is tried again in a new child. Call it
    from the main thread; closing the generator ends the children.

    Args:
        work: picklable, like items and results; its process may be killed at any time.
        items: what to work on.
        seconds: returns the time that an item may take, including the start of a process, s.
        workers: most processes at a time.

    Yields:
        (index, result or :class:`Lost`), in any order.
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
    """A process that works on one item at a time."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy HDF5 in mid-operation
        self.handed = 0  # items so far
        self.index, self.deadline = -1, 0.0
        self.pipe, far_end = context.Pipe()
        with interrupt_postponed():
            self._process = context.Process(target=_serve, args=(work, far_end), daemon=True)
            self._process.start()
        far_end.close()  # else the end of the process would not close the pipe

    def hand(self, index: int, item: Any, seconds: float) -> None:
        self.handed += 1
        self.index = index
        self._seconds = seconds
        self.deadline = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # it died: `result` reports it
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
    """Wait for the first child that has answered, died or run out of time; return all such."""
    left = min(child.deadline for child in busy) - time.monotonic()
    answered = wait([child.pipe for child in busy], max(0.0, left))
    now = time.monotonic()
    return [child for child in busy if child.pipe in answered or child.deadline <= now]


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """Work, in a child, on what comes through ``pipe`` until it is closed."""
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
