"""Choose who commands a tick: a human before a policy, and only an answer to that very tick."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

from ofrl_robot.control.signals import HUMAN, POLICY, Command

PRIORITY = (HUMAN, POLICY)  # a stop ranks above both and is no command


class Arbiter:
    """Keeps the newest command of each source; has no clock of its own."""

    def __init__(self) -> None:
        self._newest: Dict[str, Command] = {}

    def offer(self, command: Command) -> bool:
        """Take a command; False (and ignored) when its source is unknown or it is out of order."""
        held = self._newest.get(command.source)
        if command.source not in PRIORITY or (held and command.stamp_ns < held.stamp_ns):
            return False
        self._newest[command.source] = command
        return True

    def choose(self, stamp_ns: int) -> Tuple[Optional[Command], bool]:
        """Return the command for a tick, and whether a human overrode a policy.

        Commands for a later tick are dropped: their actor cannot have seen it, and one wrong
        stamp must not put all later commands of its source out of order.

        Args:
            stamp_ns: stamp of the tick.

        Returns:
            (command or None, intervention).
        """
        for source in [s for s, held in self._newest.items() if held.stamp_ns > stamp_ns]:
            del self._newest[source]
        fresh = [
            self._newest[source]
            for source in PRIORITY
            if source in self._newest and self._newest[source].stamp_ns == stamp_ns
        ]
        if not fresh:
            return None, False
        return fresh[0], len(fresh) > 1 and fresh[0].source == HUMAN

    def clear(self) -> None:
        """Forget all commands (at reset and re-arm)."""
        self._newest.clear()
