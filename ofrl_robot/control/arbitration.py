"""Choose who commands a tick: a human before a policy, and only an answer to that very tick.

A human takes over with an action and keeps the arm until a hand-back (a clutch that is released).
In between a late answer of the human means hold, never the policy's answer. The first answer of a
source to a tick counts; a second one is refused.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Iterable, NamedTuple, Optional

from ofrl_robot.control.signals import HUMAN, POLICY, Command

PRIORITY = (HUMAN, POLICY)  # a stop ranks above both and is no command


class Choice(NamedTuple):
    """Who commands a tick.

    Attributes:
        command: None to hold.
        intervention: a human overrode a policy: it answered too, or the human had taken over.
        present: somebody is there to command, also one who chose to hold.
    """

    command: Optional[Command]
    intervention: bool
    present: bool


class Arbiter:
    """Keeps the newest command of each source; has no clock of its own.

    Args:
        sources: whose commands count; others are refused.
        awaited: whose answers make a tick answered; a source that has spoken is awaited too.
    """

    def __init__(self, sources: Iterable[str] = PRIORITY, awaited: Iterable[str] = ()) -> None:
        self.sources: FrozenSet[str] = frozenset(sources)
        self._awaited = set(awaited)
        self._newest: Dict[str, Command] = {}
        self.human_has_arm = False

    def offer(self, command: Command) -> bool:
        """Take a command; False (and ignored) if its source may not command, or it is no news."""
        held = self._newest.get(command.source)
        if command.source not in self.sources or (held and command.stamp_ns <= held.stamp_ns):
            return False
        self._newest[command.source] = command
        self._awaited.add(command.source)
        return True

    def answered(self, stamp_ns: int) -> bool:
        """Return whether every awaited source has answered the tick with this stamp."""
        fresh = {s: c for s, c in self._newest.items() if c.stamp_ns == stamp_ns}
        if HUMAN in fresh and not fresh[HUMAN].hands_back:
            return True  # nobody ranks above
        return bool(fresh) and self._awaited <= set(fresh)

    def commanded(self, stamp_ns: int) -> bool:
        """Return whether whoever has the arm has answered: the human, or else anybody."""
        fresh = {s for s, c in self._newest.items() if c.stamp_ns == stamp_ns}
        return HUMAN in fresh or bool(fresh and not self.human_has_arm)

    def choose(self, stamp_ns: int) -> Choice:
        """Return who commands a tick; call it once per tick, when it is time to command.

        Commands for a later tick are dropped: their actor cannot have seen it, and one wrong
        stamp must not put all later commands of its source out of order.

        Args:
            stamp_ns: stamp of the tick.
        """
        for source in [s for s, held in self._newest.items() if held.stamp_ns > stamp_ns]:
            del self._newest[source]
        fresh = {s: c for s, c in self._newest.items() if c.stamp_ns == stamp_ns}
        human, policy = fresh.get(HUMAN), fresh.get(POLICY)
        if HUMAN in self._newest:  # also a late one: his hand is on the arm
            self.human_has_arm = not self._newest[HUMAN].hands_back
        with_policy = POLICY in self._awaited
        if self.human_has_arm:
            return Choice(human, with_policy, human is not None)
        return Choice(policy, False, bool(fresh))

    def clear(self) -> None:
        """Forget all commands and who had the arm (at reset and re-arm)."""
        self._newest.clear()
        self.human_has_arm = False
