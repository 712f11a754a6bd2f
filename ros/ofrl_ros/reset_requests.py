"""Hand reset requests from service threads to the control thread, the newest one only."""

from __future__ import annotations

import dataclasses
import threading
from typing import Optional, Tuple

import rospy


@dataclasses.dataclass
class _Request:
    seed: int
    answer: Optional[Tuple[bool, str]] = None


class ResetRequests:
    """At most one reset at a time; a newer request takes the place of an older one.

    Args:
        changed: the node's condition; notified when a request is made or answered.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._asked: Optional[_Request] = None  # not taken yet
        self._running: Optional[_Request] = None  # taken by the control thread

    @property
    def superseded(self) -> bool:
        """Whether a newer request waits while one is carried out."""
        return self._asked is not None

    def ask(self, seed: int) -> Tuple[bool, str]:
        """Ask for a reset and wait for its answer (in a service thread).

        Returns:
            (whether tick 0 is there, why not).
        """
        with self._changed:
            if self._asked is not None:
                self._asked.answer = (False, "another reset was asked for")
            self._asked = request = _Request(seed)
            self._changed.notify_all()
            while request.answer is None:
                if rospy.is_shutdown():
                    return False, "shutting down"
                self._changed.wait(0.1)
            return request.answer

    def wait(self, seconds: float) -> Optional[int]:
        """Wait for a request; return its seed, or None when there is none (control thread)."""
        with self._changed:
            if self._asked is None:
                self._changed.wait(seconds)
            self._running, self._asked = self._asked, None
            return None if self._running is None else self._running.seed

    def answer(self, success: bool, text: str) -> None:
        """Answer the request that :meth:`wait` returned; only the first answer counts.

        A service thread may wake up so late that the episode is over by then (measured at a load
        of 29): its answer is still that of the reset.
        """
        with self._changed:
            if self._running is not None and self._running.answer is None:
                self._running.answer = (success, text)
            self._changed.notify_all()
