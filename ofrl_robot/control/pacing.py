"""Keep a fixed period; time is passed in, so pacing can be tested and simulated."""

from __future__ import annotations


class Pacer:
    """Deadlines of a loop on a monotonic clock.

    A late tick does not shift the later ones unless it is late by more than a period: then the
    missed periods are skipped, never caught up in a burst.

    Args:
        period: seconds between ticks.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self.ticks = 0
        self.late = 0
        self._due: float = 0.0

    def start(self, now: float) -> None:
        """Begin: the first tick is due one period after ``now`` (monotonic seconds)."""
        self._due = now + self.period

    def wait(self, now: float) -> float:
        """Return the seconds left until the next tick is due, 0 when it is overdue."""
        return max(0.0, self._due - now)

    def tick(self, now: float) -> float:
        """Note that the tick happened at ``now``; return how late it was (s)."""
        lateness = max(0.0, now - self._due)
        self.ticks += 1
        self.late += lateness > 0.05 * self.period
        missed = int(lateness // self.period)
        self._due += (missed + 1) * self.period
        return lateness
