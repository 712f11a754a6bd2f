"""Cut the idle ends of episodes: steps in which nothing happens."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import List

import h5py
import numpy as np

from ofrl_robot.data.datasets.dataset import locked_dataset
from ofrl_robot.data.datasets.edit import ORIGINAL_REWARDS
from ofrl_robot.data.datasets.rewriting import successor
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.completing import complete, datasets, extra_row
from ofrl_robot.data.episodes.reader import Episode, open_episode, read_episode
from ofrl_robot.errors import ConfigError, DatasetError, printable

POSITION = ("ee_x", "ee_y", "ee_z")  # state entries, m


@dataclasses.dataclass(frozen=True)
class Idle:
    """Definition of an idle step, and how many of them to cut.

    Attributes:
        action: every entry of the action of an idle step is smaller than this (1 = full scale).
        still: the end effector moves less than this in an idle step, m.
        keep: idle steps to leave at an end.
        start, end: which ends to cut.

    Raises:
        ConfigError: a value is not positive, or ``keep`` is negative.
    """

    action: float = 0.02
    still: float = 0.002
    keep: int = 2
    start: bool = True
    end: bool = True

    def __post_init__(self) -> None:
        for name in ("action", "still"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)} is not above 0")
        if self.keep < 0:
            raise ConfigError(f"keep {self.keep} is negative")


@dataclasses.dataclass(frozen=True)
class Cut:
    """The part that is kept of one episode.

    Attributes:
        path: the episode.
        steps: its number of steps.
        first, stop: steps ``first`` to ``stop`` - 1 are kept.
        idle: nothing happens in the whole episode; then all of it is kept.
    """

    path: Path
    steps: int
    first: int
    stop: int
    idle: bool = False

    @property
    def removed(self) -> int:
        """Number of steps that are cut off."""
        return self.steps - (self.stop - self.first)

    def line(self) -> str:
        """Return one line with the numbers of steps."""
        name = printable(self.path.name)
        if self.idle:
            return f"{name}: idle from end to end, unchanged"
        return (
            f"{name}: {self.steps:5d} steps, {self.first:4d} off the start, "
            f"{self.steps - self.stop:4d} off the end, {self.stop - self.first:5d} left"
        )


def trim(folder: Path, idle: Idle, write: bool) -> List[Cut]:
    """Cut the idle ends of every episode; return the episodes that have any, or are idle.

    A step with a reward (recorded or set later) or a terminal is never cut, nor any step between
    two busy steps. An episode that loses its end ends in a timeout.

    Args:
        folder: the dataset.
        idle: which steps are idle.
        write: do it; otherwise nothing is changed.

    Raises:
        DatasetError: an episode is damaged, or the state has no position of the end effector to
            judge by. Nothing is changed.
        OutputError: the disk refuses. Each episode is either unchanged or trimmed.
    """
    with locked_dataset(folder, write) as dataset:
        missing = [n for n in POSITION if n not in dataset.observation_spec.state_names]
        if missing and idle.still < np.inf:
            raise DatasetError(
                f"the state has no {', '.join(missing)}",
                "pass --still inf to judge by the actions alone",
                folder,
            )
        cuts = [_idle_ends(path, idle) for path in dataset.paths]
        cuts = [cut for cut in cuts if cut.removed or cut.idle]
        if write:
            for cut in cuts:
                if cut.removed:
                    _carry_out(cut)
    return cuts


def _idle_ends(path: Path, idle: Idle) -> Cut:
    episode = read_episode(path, cameras=())
    with open_episode(path) as group:
        recorded = group[ORIGINAL_REWARDS][:] if ORIGINAL_REWARDS in group else episode.rewards
    busy = np.abs(episode.actions).max(1) >= idle.action
    if idle.still < np.inf:
        busy |= ~(_travel(episode) < idle.still)  # NaN counts as busy
    busy |= (episode.rewards != 0) | (recorded != 0) | episode.terminals
    steps = len(episode)
    if not busy.any():
        return Cut(path, steps, 0, steps, idle=True)
    where = np.flatnonzero(busy)
    first = max(0, int(where[0]) - idle.keep) if idle.start else 0
    stop = min(steps, int(where[-1]) + 1 + idle.keep) if idle.end else steps
    return Cut(path, steps, first, stop)


def _travel(episode: Episode) -> np.ndarray:
    """Return the distance that the end effector moves in each step, m (T,)."""
    names = episode.meta.observation_spec.state_names
    position = episode.state[:, [names.index(name) for name in POSITION]]
    return np.linalg.norm(np.diff(position, axis=0), axis=1)


def _carry_out(cut: Cut) -> None:
    with successor(cut.path, copy=False) as target, open_episode(cut.path) as old:
        new = target.create_group(schema.GROUP)
        for name in ("/", "data", schema.GROUP):
            target[name].attrs.update(old.file[name].attrs)
        for name, rows in datasets(old):
            if not name.startswith("next_obs/"):  # `complete` makes it again
                _copy_rows(name, rows, new, cut)
        success, source = int(new.attrs["success"]), str(new.attrs["label_source"])
        complete(target, cut.stop - cut.first, success, source, str(new.attrs["abort_reason"]))
        before = old.attrs.get("trimmed", (0, 0))
        new.attrs["trimmed"] = np.add(before, (cut.first, cut.steps - cut.stop))


def _copy_rows(name: str, rows: h5py.Dataset, group: h5py.Group, cut: Cut) -> None:
    """Copy the rows that are kept, a few at a time, with the storage layout of the source."""
    extra = extra_row(name)
    if len(rows) != cut.steps + extra:
        text = f"{name} has {len(rows)} rows, {cut.steps + extra} expected"
        raise DatasetError(text, "look at it with `ofrl data verify`", cut.path)
    count, shape = cut.stop - cut.first + extra, rows.shape[1:]
    copied = group.create_dataset(
        name,
        (count,) + shape,
        rows.dtype,
        maxshape=(None,) + shape,
        chunks=rows.chunks or True,
        compression=rows.compression,
        compression_opts=rows.compression_opts,
    )
    copied.attrs.update(rows.attrs)
    block = rows.chunks[0] if rows.chunks else count
    for start in range(0, count, block):
        stop = min(start + block, count)
        copied[start:stop] = rows[cut.first + start : cut.first + stop]
