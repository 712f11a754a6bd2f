"""Command a gripper from a thread of its own, so that a slow one never blocks the control step."""

from __future__ import annotations

import threading
from typing import Callable, Optional

from ofrl_robot.errors import RobotError

OPEN_ABOVE, CLOSE_BELOW = 0.6, 0.4  # between the two a gripper stays as it is


class GripperThread:
    """Tells a gripper to open or close, on change only.

    Args:
        move: opens (True) or closes (False); may block. Called in this object's thread.
        open_now: how the gripper stands at the start.
    """

    def __init__(self, move: Callable[[bool], None], open_now: bool) -> None:
        self._move = move
        self._changed = threading.Condition()
        self._told: Optional[bool] = None  # what the gripper was told; None: nothing yet
        self._wanted = open_now
        self._pending = self._closed = False
        self._error: Optional[Exception] = None
        self._thread = threading.Thread(target=self._run, name="gripper", daemon=True)
        self._thread.start()

    @property
    def open(self) -> bool:
        """Whether it was last told to open; at the start, whether it stood open."""
        return self._wanted

    def set(self, value: float) -> None:
        """Ask for a state: above 0.6 opens, below 0.4 closes, anything else changes nothing.

        Returns at once. It is told only when that differs from what it was told last.
        """
        if CLOSE_BELOW <= value <= OPEN_ABOVE:
            return
        with self._changed:
            self._wanted = value > OPEN_ABOVE
            self._pending = self._wanted != self._told
            self._changed.notify_all()

    def forget(self) -> None:
        """Forget what it was told: after a reboot the next :meth:`set` is sent in any case."""
        with self._changed:
            self._told = None

    def require_alive(self) -> None:
        """Raise RobotError if the gripper's driver raised an error."""
        if self._error is not None:
            error, self._error = self._error, None
            raise RobotError(f"the gripper failed ({error})", "look at its driver") from error

    def close(self) -> None:
        """End the thread; a call that blocks is left behind. Calling it again does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(0.2)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._pending or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                self._pending, self._told = False, self._wanted
                wanted = self._wanted
            try:
                self._move(wanted)
            except Exception as error:  # raised again in the control thread, by require_alive
                self._error = error
