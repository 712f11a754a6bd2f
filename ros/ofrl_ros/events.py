"""Queue what callbacks receive, for one thread to work on."""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Any, Optional, Tuple

import rospy

from ofrl_ros.node import raise_on_shutdown


class Events:
    """Received messages in order of arrival.

    Errors of the working thread are the node's own: they reach ``run_node``, which a callback's
    would not.
    """

    def __init__(self) -> None:
        self._queue: "queue.Queue[Tuple[str, Any]]" = queue.Queue()

    def put(self, kind: str, payload: Any) -> None:
        """Append an event; any thread may call."""
        self._queue.put((kind, payload))

    def subscribe(self, topic: str, kind: type, name: str) -> rospy.Subscriber:
        """Queue every message of ``topic`` as (name, message)."""
        return rospy.Subscriber(
            topic, kind, lambda message: self.put(name, message), tcp_nodelay=True
        )

    def get(self, timeout: float) -> Tuple[Optional[str], Any]:
        """Return the next (kind, payload), or (None, None) after ``timeout`` s.

        Raises:
            ROSInterruptException: the session ends.
        """
        deadline = time.monotonic() + timeout
        while True:
            raise_on_shutdown()
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=0.1)
            if time.monotonic() > deadline:
                return None, None

    @property
    def waiting(self) -> bool:
        """Whether an event is queued."""
        return not self._queue.empty()
