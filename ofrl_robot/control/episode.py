"""Follow an episode through its states, without a clock and without I/O."""

from __future__ import annotations

from typing import Dict, FrozenSet

from ofrl_robot.errors import RobotError

IDLE, RESETTING, RUNNING, SAVING = "idle", "resetting", "running", "saving"
STOPPED = "stopped"  # after a stop, until somebody says how to go on

_ALLOWED: Dict[str, FrozenSet[str]] = {
    IDLE: frozenset({RESETTING, STOPPED}),
    STOPPED: frozenset({IDLE}),
    RESETTING: frozenset({RUNNING, SAVING, IDLE}),  # stopped before the first tick: nothing to save
    RUNNING: frozenset({SAVING, IDLE}),  # straight to idle: discarded
    SAVING: frozenset({IDLE}),
}


class EpisodeState:
    """Reset, run, save: one episode at a time; any other order is refused."""

    def __init__(self) -> None:
        self.name = IDLE

    def to(self, name: str) -> None:
        """Move to ``name``. Raises RobotError when that does not follow."""
        if name not in _ALLOWED[self.name]:
            raise RobotError(f"an episode that is {self.name} cannot become {name}")
        self.name = name
