"""Call what may never return, in a thread of its own, and give up after a time.

rospy's service calls have no time-out: a node that took a request and hangs blocks its caller
without end. A driver must not hang with it.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, List, Optional

from ofrl_robot.errors import RobotError


class BoundedCalls:
    """Runs calls one at a time, each bounded in time.

    A call that was given up goes on in its thread. Until it returns, further calls are refused at
    once: no threads pile up, and no late answer is taken for that to a newer request.

    Args:
        what: what is called, for messages ("the IK service").
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._pending: Optional[threading.Thread] = None

    @property
    def hangs(self) -> bool:
        """Whether a call that was given up has not returned yet."""
        pending = self._pending
        return pending is not None and pending.is_alive()

    def call(self, function: Callable[[], Any], timeout: float) -> Any:
        """Return what ``function`` returns.

        Args:
            timeout: seconds after which the call is given up.

        Raises:
            RobotError: it did not return in time, or an earlier one still has not, or another
                thread is calling, or it ended the process (SystemExit).
            Exception: what ``function`` raised.
        """
        if not self._lock.acquire(timeout=timeout):
            raise RobotError(f"{self._what} is busy", "see why it takes so long")
        try:
            if self.hangs:
                raise RobotError(f"{self._what} still has not answered", "restart it")
            return self._run(function, timeout)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Allow calls again although one has not returned: its answer goes nowhere."""
        self._pending = None

    def _run(self, function: Callable[[], Any], timeout: float) -> Any:
        results: List[Any] = []
        errors: List[BaseException] = []

        def run() -> None:
            try:
                results.append(function())
            except BaseException as error:  # raised again in the calling thread
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True, name=self._what)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            self._pending = thread
            raise RobotError(f"{self._what} did not answer within {timeout:g} s", "restart it")
        if not errors:
            return results[0]
        if isinstance(errors[0], Exception):
            raise errors[0]
        raise RobotError(f"{self._what} ended with {errors[0]!r}", "see what it printed")
