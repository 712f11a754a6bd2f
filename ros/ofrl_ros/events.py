"""Queue what callbacks receive, for one thread to work on."""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any, Callable, List, Optional, Tuple

from ofrl_ros.node import raise_on_shutdown
from ofrl_ros.speakers import Speaker


class Events:
    """Received messages in order of arrival.

    Errors of the working thread are the node's own: they reach ``run_node``, which a callback's
    would not.
    """

    def __init__(self) -> None:
        self._queue: "queue.Queue[Tuple[str, Any]]" = queue.Queue()
        self._poll: Callable[[], None] = lambda: None

    def put(self, kind: str, payload: Any) -> None:
        """Append an event; any thread may call."""
        self._queue.put((kind, payload))

    def subscribe(self, topic: str, kind: type, name: str, node: str) -> Speaker:
        """Queue every message that ``node`` publishes on ``topic``, as (name, message)."""
        return Speaker(topic, kind, lambda message: self.put(name, message), node)

    def poll_with(self, poll: Callable[[], None]) -> None:
        """Call ``poll`` in the working thread at least ten times a second while it waits."""
        self._poll = poll

    def drain(self) -> List[Tuple[str, Any]]:
        """Return what is queued, also after the session has ended."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._queue.get_nowait())
        return found

    def get(self, timeout: float) -> Tuple[Optional[str], Any]:
        """Return the next (kind, payload), or (None, None) after ``timeout`` s.

        Raises:
            ROSInterruptException: the session ends.
        """
        deadline = time.monotonic() + timeout
        while True:
            raise_on_shutdown()
            self._poll()
            left = deadline - time.monotonic()
            with contextlib.suppress(queue.Empty):
                return self._queue.get(left > 0, min(max(left, 0.0), 0.1))
            if left <= 0:
                return None, None

    @property
    def waiting(self) -> bool:
        """Whether an event is queued."""
        return not self._queue.empty()
