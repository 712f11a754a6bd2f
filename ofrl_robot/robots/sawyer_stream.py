"""Send joint targets to an arm at a fixed rate, from one thread.

A Sawyer falls back to holding its position 0.2 s after the last command, so at 5 Hz a command has
to be repeated; and the vendor's client fills one message object for every command, so only one
thread may send.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional

import numpy as np

STOPPED_WITHIN = 1.0  # s that closing waits for the thread


class TargetStream:
    """Moves a joint target from where it is to where it is wanted, and sends it all the time.

    A target is reached in the time given for it, at constant speed, so it never jumps; ``smooth``
    moves start and end at rest.

    Args:
        send: called with the target (J,) rad in the stream's thread, ``rate_hz`` times a second.
        start: first target (J,), rad.
        rate_hz: messages per second.
    """

    def __init__(
        self, send: Callable[[np.ndarray], None], start: np.ndarray, rate_hz: float = 100.0
    ) -> None:
        self._send, self._period = send, 1.0 / rate_hz
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._error: Optional[BaseException] = None
        self._holds = 0
        self._from = self._to = np.array(start, np.float64)
        self._begun, self._duration, self._smooth = 0.0, 0.0, False
        self._thread = threading.Thread(target=self._run, daemon=True, name="joint targets")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def holds(self) -> int:
        """How often :meth:`hold` was called: pass it to :meth:`move`, so that a stop wins."""
        return self._holds

    @property
    def error(self) -> Optional[BaseException]:
        """What ended the stream, None while it runs."""
        return self._error

    def setpoint(self) -> np.ndarray:
        """Return the target now, (J,) rad."""
        with self._lock:
            return self._at(time.monotonic())

    def goal(self) -> np.ndarray:
        """Return the target at the end of the move, (J,) rad."""
        with self._lock:
            return self._to.copy()

    def move(
        self, goal: np.ndarray, duration: float, holds: Optional[int] = None, smooth: bool = False
    ) -> bool:
        """Move the target to ``goal`` (J,) rad within ``duration`` s, from where it is now.

        Args:
            holds: :attr:`holds` when the move was decided. When there was a hold since, nothing
                moves.

        Returns:
            Whether it moves.
        """
        with self._lock:
            if holds is not None and holds != self._holds:
                return False
            now = time.monotonic()
            self._from, self._to = self._at(now), np.array(goal, np.float64)
            self._begun, self._duration, self._smooth = now, duration, smooth
            return True

    def hold(self, joints: Optional[np.ndarray] = None) -> None:
        """Stay at ``joints`` (J,) rad from now on; None for the target of this moment."""
        with self._lock:
            self._holds += 1
            self._to = self._at(time.monotonic()) if joints is None else np.array(joints)
            self._from, self._duration = self._to, 0.0

    def close(self) -> None:
        """Send no more. Calling it again does nothing."""
        self._closed.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(STOPPED_WITHIN)

    def _at(self, now: float) -> np.ndarray:
        passed = 1.0 if self._duration <= 0.0 else (now - self._begun) / self._duration
        share = min(max(passed, 0.0), 1.0)
        if self._smooth:
            share = share * share * (3.0 - 2.0 * share)
        return self._from + share * (self._to - self._from)

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._closed.is_set():
                self._send(self.setpoint())
                due = max(due + self._period, time.monotonic() - self._period)
                self._closed.wait(max(due - time.monotonic(), 0.0))
        except Exception as error:  # a thread has nobody to raise to: ``error`` tells
            self._error = error
