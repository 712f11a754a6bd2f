"""Stop a run at SIGTERM, which a cluster's scheduler and ``timeout`` send before they kill."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType
from typing import Iterator, Optional

EXIT_CODE = 128 + signal.SIGTERM  # 143, as a shell reports a process that SIGTERM ended


class Terminated(SystemExit):
    """Ends the program with exit code 143; the run was saved and can be resumed."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def take(self, number: int, frame: Optional[FrameType]) -> None:
        """Note a signal; the training loop looks after each step."""
        self.requested = True


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Have SIGTERM only set a flag inside the context, so that a step can be finished.

    Outside the main thread, where Python allows no signal handlers, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, request.take)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
