"""Watch over deadlines: things that must be heard of again, and calls that must return.

Pure: time is an argument. A thread of the robot node asks about 50 times a second.
"""

from __future__ import annotations

from typing import Optional

from ofrl_robot.control.stops import Fault, StopReason


class Heartbeat:
    """Something that must be heard of at least every ``most`` seconds, once it has been heard of.

    Args:
        reason: why the arm stops when it falls silent.
        name: what it is, for people.
        most: seconds.
    """

    def __init__(self, reason: StopReason, name: str, most: float) -> None:
        self._reason, self._name, self._most = reason, name, most
        self._heard: Optional[float] = None

    def hear(self, now: float) -> None:
        """Note a sign of life at ``now`` (monotonic s)."""
        self._heard = now

    def grant(self, now: float) -> None:
        """Count its silence from ``now`` on: up to now it had no reason to be heard."""
        if self._heard is not None:
            self._heard = now

    def fault(self, now: float) -> Optional[Fault]:
        """Return a fault when it has been silent for too long."""
        if self._heard is None or now - self._heard <= self._most:
            return None
        return Fault(self._reason, f"no sign of the {self._name} for {now - self._heard:.1f} s")


class CallWatch:
    """A call that must return within ``most`` seconds.

    Args:
        reason: why the arm stops when it does not.
        name: what is called, for people.
        most: seconds.
    """

    def __init__(self, reason: StopReason, name: str, most: float) -> None:
        self._reason, self._name, self._most = reason, name, most
        self._entered: Optional[float] = None

    def enter(self, now: float) -> None:
        """Note that the call begins."""
        self._entered = now

    def leave(self) -> None:
        """Note that it returned."""
        self._entered = None

    def fault(self, now: float) -> Optional[Fault]:
        """Return a fault while it has been out for too long."""
        entered = self._entered
        if entered is None or now - entered <= self._most:
            return None
        return Fault(self._reason, f"{self._name} has not returned for {now - entered:.1f} s")
