"""Pair ticks with applied actions and write one episode, in whatever order they arrive.

The one place that knows when a tick may be written: tick 0 at once, tick k when the action applied
to tick k - 1 is there. One process, the ROS recorder and bags all go through it, so the same
messages always give the same episode.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, Optional, Union

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.episodes.writer import EpisodeWriter

PENDING = 100  # ticks that may wait for their turn; lockstep never has more than two


@dataclasses.dataclass(frozen=True)
class Written:
    """An episode that is on disk: its file, its label, and its number of transitions."""

    path: Path
    success: int
    steps: int


@dataclasses.dataclass(frozen=True)
class Dropped:
    """The reason why no episode was written."""

    reason: str


Result = Union[Written, Dropped]


class EpisodeRecorder:
    """Recorder of one episode. It never waits and uses no clock.

    Args:
        writer: where the episode goes; the recorder finishes or discards it.
        steps: transitions after which the episode is complete; None: when its last tick is.
    """

    def __init__(self, writer: EpisodeWriter, steps: Optional[int] = None) -> None:
        self.writer = writer
        self.last_tick: Optional[Tick] = None  # written last
        self.first_stamp_ns = 0  # of tick 0
        self._length = steps
        self._ticks: Dict[int, Tick] = {}  # by step, waiting for their turn
        self._applied: Dict[int, AppliedAction] = {}  # by stamp of the tick
        self._due = 0  # step to be written next

    @property
    def steps(self) -> int:
        """Number of transitions written so far."""
        return max(0, self._due - 1)

    @property
    def complete(self) -> bool:
        """Whether the episode has reached its end, so that nothing more is written."""
        if self.last_tick is None:
            return False
        if self._length is not None:
            return self.steps == self._length
        return self.last_tick.last

    @property
    def overdue(self) -> bool:
        """Whether so many later ticks wait that the one that is due must be lost."""
        return len(self._ticks) > PENDING

    def take_tick(self, tick: Tick) -> None:
        """Take a tick; it is ignored if its step was written before or comes after the end.

        Raises:
            DatasetError: the disk refuses.
            CameraStoppedError: the tick lacks a camera's frame. What was written stays whole.
        """
        if tick.step >= self._due and not self.complete:
            self._ticks[tick.step] = tick
            self._write()

    def take_applied(self, applied: AppliedAction) -> None:
        """Take an applied action; it raises what :meth:`take_tick` raises."""
        self._applied[applied.stamp_ns] = applied
        while len(self._applied) > PENDING:  # their ticks were lost
            del self._applied[min(self._applied)]
        self._write()

    def note_pictures(self, remarks: Dict[str, Any]) -> None:
        """Keep what the policy says of the pictures; :meth:`finish` writes what was said last."""
        self.writer.meta.pictures = dict(remarks)

    def missing(self) -> str:
        """Say what the next tick waits for; empty when nothing is known to be missing."""
        if self.last_tick is not None and self.last_tick.stamp_ns not in self._applied:
            if self._ticks:
                return f"the action applied to tick {self._due - 1} is missing"
            return ""
        if self._ticks:
            return f"tick {self._due} or an image of it is missing"
        return ""

    def finish(self, success: int, label_source: str, abort_reason: str = "") -> Result:
        """Complete the file with what was written, and give it its final name.

        Raises:
            DatasetError: the disk refuses; call :meth:`discard` then.
        """
        steps = self.steps
        path = self.writer.finish(success, label_source, abort_reason)
        if path is None:
            return Dropped(abort_reason or "it has no transition")
        return Written(path, success, steps)

    def drop(self, reason: str) -> Dropped:
        """Discard the episode."""
        self.discard()
        return Dropped(reason)

    def discard(self) -> None:
        """Discard the episode; nothing happens when it is finished."""
        self.writer.discard()

    def _write(self) -> None:
        while self._due in self._ticks and not self.complete:
            if self.last_tick is not None:
                applied = self._applied.pop(self.last_tick.stamp_ns, None)
                if applied is None:
                    return
                self.writer.act(applied)
            tick = self._ticks.pop(self._due)
            self.writer.observe(tick)
            if self.last_tick is None:
                self.first_stamp_ns = tick.stamp_ns
            self.last_tick = tick
            self._due += 1
