"""Let the physics of a simulated world go on by the wall clock, in a thread of its own.

A late action then costs in simulation what it costs on an arm.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional

from ofrl_robot.errors import RobotError
from ofrl_robot.sim.world import TIME_STEP_S

POLL = 0.004  # s between two looks at the clock: one substep
MOST_BEHIND = 0.1  # s; physics that is further behind the clock lets that time go


class RealTimePhysics:
    """Advances a world so that simulated time follows the wall clock.

    Args:
        advance: lets a number of substeps of 1/240 s pass; called with ``lock`` held.

    Attributes:
        lock: guards the world; whoever reads or commands it holds it.
        dropped_s: seconds that the machine was too slow for, and that did not pass in the world.
        error: what the physics raised; time stands still since. None while all is well.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.lock = threading.RLock()
        self.dropped_s = 0.0
        self.error: Optional[Exception] = None
        self._advance = advance
        self._running = False
        self._closed = threading.Event()
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()

    def require_alive(self) -> None:
        """Raise RobotError if the physics failed."""
        if self.error is not None:
            raise RobotError(f"the simulator failed ({self.error})", "launch again") from self.error

    def start(self) -> None:
        """Let time pass from now on; call it with the lock held."""
        self._running, self._due = True, time.monotonic()

    def pause(self) -> None:
        """Let no time pass until :meth:`start`; call it with the lock held."""
        self._running = False

    def close(self) -> None:
        """End the thread. Calling it again does nothing."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(POLL):
            with self.lock:
                if not self._running:
                    continue
                try:
                    self._catch_up(time.monotonic())
                except Exception as error:  # raised again by whoever uses the world next
                    self.error, self._running = error, False

    def _catch_up(self, now: float) -> None:
        behind = now - self._due - MOST_BEHIND
        if behind > 0.0:
            self.dropped_s += behind
            self._due += behind
        substeps = int((now - self._due) / TIME_STEP_S)
        self._advance(substeps)
        self._due += substeps * TIME_STEP_S
