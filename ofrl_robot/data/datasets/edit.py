"""Changes finished episodes: labels and rewards, idle ends, deletion.

An episode is never changed in place: its successor is written beside it and renamed over it, so
a kill leaves the one or the other. What works on a whole dataset holds its lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Set

import h5py
import numpy as np

from ofrl_robot.files import free_name
from ofrl_robot import files
from ofrl_robot.data.episodes import numbering, schema
from ofrl_robot.data.episodes.journal import JournaledFile
from ofrl_robot.data.episodes.lock import locked_dataset, one_writer
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.data.datasets.splits import drop_from_splits
from ofrl_robot.data.episodes.writer import complete, datasets, extra_row
from ofrl_robot.errors import ConfigError, DatasetError, OfrlError

POSITION = ("ee_x", "ee_y", "ee_z")  # state entries, m
_ORIGINAL = "rewards_original"


def file_name(episode: str) -> str:
    """File name of an episode given by its number or its file name."""
    is_number = re.match(r"\d{1,9}$", episode, re.ASCII)
    return schema.episode_name(int(episode)) if is_number else episode


@contextlib.contextmanager
def _successor(path: Path, copy: bool) -> Iterator[h5py.File]:
    """An episode file to fill, a copy of ``path`` or empty, that takes its place in the end.

    Raises DatasetError when that cannot be; ``path`` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.editing")
    try:
        _remove(temporary)  # of an edit that was killed: there is one at a time
        if copy:
            shutil.copyfile(str(path), str(temporary))
        # keeps errors of a full disk, which crash HDF5
        with JournaledFile(temporary, "r+" if copy else "x+") as file:
            try:
                with h5py.File(file, "r+" if copy else "w") as episode:
                    yield episode
            except OfrlError:
                raise
            except Exception as error:  # h5py raises nearly anything on a damaged file
                text = f"cannot be edited ({type(error).__name__}: {ascii(str(error)):.100})"
                fix = "look at it with `ofrl data verify`"
                raise file.error or DatasetError(text, fix, path) from error
            file.commit()
            if file.error is not None:
                raise file.error
        shutil.copymode(str(path), str(temporary))
        files.replace(temporary, path)
    except OSError as error:
        raise numbering.disk_error(error, path) from error
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


# -- labels ----------------------------------------------------------------------------------


def relabel(path: Path, source: str, success: Optional[int], rewards: Optional[np.ndarray]) -> None:
    """Give one episode another label, other rewards, or both. The lock is the caller's.

    Args:
        source: who says so, kept as ``label_source`` and ``reward_source``.
        success: 1, 0 or -1; None leaves label and ``label_source``.
        rewards: float64 (T,), None leaves them. The recorded ones stay in ``rewards_original``,
            however often this is done.
    """
    with _successor(path, copy=True) as file:
        group = file[schema.GROUP]
        if success is not None:
            group.attrs["success"], group.attrs["label_source"] = success, source
        if rewards is not None:
            if _ORIGINAL not in group:
                group[_ORIGINAL] = group["rewards"][:].astype(np.float64)
            group["rewards"][:] = rewards
            group.attrs["reward_source"] = source


# -- idle ends -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Idle:
    """When a step is idle, and what of it to cut.

    Attributes:
        action: magnitude that every entry of the action lies below (1 = full scale).
        still: m that the end effector moves less than.
        keep: idle steps to leave at an end.
        start, end: which ends to cut.
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
    """What is kept of an episode of ``steps``: steps ``first`` to ``stop`` - 1.

    ``idle`` is true where nothing ever happens in it: then all of it is kept.
    """

    path: Path
    steps: int
    first: int
    stop: int
    idle: bool = False

    @property
    def removed(self) -> int:
        return self.steps - (self.stop - self.first)

    def line(self) -> str:
        if self.idle:
            return f"{self.path.name}: idle from end to end, left as it is"
        return "{}: {:5d} steps, {:4d} off the start, {:4d} off the end, {:5d} left".format(
            self.path.name, self.steps, self.first, self.steps - self.stop, self.stop - self.first
        )


def trim(folder: Path, idle: Idle, write: bool) -> List[Cut]:
    """Cut the idle ends of every episode; returns the episodes that have any, or are idle.

    A step with a reward (recorded or relabelled) or a terminal is never cut, nor what lies
    between two such or busy steps. An episode that loses its end ends in a timeout.

    Args:
        write: do it; otherwise nothing is changed.

    Raises DatasetError for a damaged episode, before anything is changed, and where the state
    has no position of the end effector to judge by.
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
    with h5py.File(str(path), "r") as file:
        group = file[schema.GROUP]
        original = group[_ORIGINAL][:] if _ORIGINAL in group else episode.rewards
    busy = np.abs(episode.actions).max(1) >= idle.action
    if idle.still < np.inf:
        busy |= ~(_travel(episode) < idle.still)  # also where it is not known
    busy |= (episode.rewards != 0) | (original != 0) | episode.terminals
    steps = len(episode)
    if not busy.any():
        return Cut(path, steps, 0, steps, idle=True)
    where = np.flatnonzero(busy)
    first = max(0, int(where[0]) - idle.keep) if idle.start else 0
    stop = min(steps, int(where[-1]) + 1 + idle.keep) if idle.end else steps
    return Cut(path, steps, first, stop)


def _travel(episode: Episode) -> np.ndarray:
    """m that the end effector moves in each step, (T,)."""
    names = episode.meta.observation_spec.state_names
    position = episode.state[:, [names.index(name) for name in POSITION]]
    return np.linalg.norm(np.diff(position, axis=0), axis=1)


def _carry_out(cut: Cut) -> None:
    with _successor(cut.path, copy=False) as target, h5py.File(str(cut.path), "r") as source:
        old, new = source[schema.GROUP], target.create_group(schema.GROUP)
        for room in ("/", "data", schema.GROUP):
            target[room].attrs.update(source[room].attrs)
        for name, rows in datasets(old):
            if not name.startswith("next_obs/"):  # made anew below
                _copy_rows(name, rows, new, cut)
        label = int(new.attrs["success"]), str(new.attrs["label_source"])
        complete(target, cut.stop - cut.first, *label, str(new.attrs["abort_reason"]))
        before = old.attrs.get("trimmed", (0, 0))
        new.attrs["trimmed"] = np.add(before, (cut.first, cut.steps - cut.stop))


def _copy_rows(name: str, rows: h5py.Dataset, group: h5py.Group, cut: Cut) -> None:
    """The rows that are kept, a few at a time, stored as they were."""
    extra = extra_row(name)
    if len(rows) != cut.steps + extra:
        text = f"{name} has {len(rows)} rows, {cut.steps + extra} expected"
        raise DatasetError(text, "look at it with `ofrl data verify`", cut.path)
    count, shape = cut.stop - cut.first + extra, rows.shape[1:]
    made = group.create_dataset(
        name, (count,) + shape, rows.dtype, maxshape=(None,) + shape, chunks=rows.chunks or True,
        compression=rows.compression, compression_opts=rows.compression_opts,
    )  # fmt: skip
    made.attrs.update(rows.attrs)
    block = rows.chunks[0] if rows.chunks else count
    for start in range(0, count, block):
        stop = min(start + block, count)
        made[start:stop] = rows[cut.first + start : cut.first + stop]


# -- deletion --------------------------------------------------------------------------------


def chosen(folder: Path, episodes: Sequence[str]) -> List[Path]:
    """Files of the episodes that are meant, in order, each once. They may be damaged.

    Args:
        episodes: numbers (``3``), ranges (``12-15``, of which those that exist are meant) and
            file names.

    Raises DatasetError naming the first that does not exist.
    """
    by_name = {path.name: path for path in schema.episode_paths(folder)}
    if not episodes:
        raise DatasetError("no episodes named", "give numbers, ranges or file names")
    found: Set[str] = set()
    for word in episodes:
        span = re.match(r"(\d{1,9})-(\d{1,9})$", word, re.ASCII)
        if span:
            low, high = (schema.episode_name(int(text)) for text in span.groups())
            names = [name for name in by_name if low <= name <= high]
        else:
            names = [name for name in (file_name(word),) if name in by_name]
        if not names:
            raise DatasetError(f"no episode {word!r}", "nothing was changed", folder)
        found.update(names)
    return [path for name, path in by_name.items() if name in found]


def delete(folder: Path, episodes: Sequence[str], purge: bool, write: bool) -> List[str]:
    """Move episodes to ``<folder>/deleted`` and take them out of ``splits.json``; a line for each.

    Moving a file back restores it; its number is not given out again meanwhile.

    Args:
        episodes: see :func:`chosen`.
        purge: remove them for good instead.
        write: do it; otherwise nothing is changed.

    Raises DatasetError where one does not exist or the disk refuses.
    """
    if not folder.is_dir():
        raise DatasetError("no such dataset folder", "check the path", folder)
    with one_writer(folder) if write else contextlib.nullcontext():
        paths, lines = chosen(folder, episodes), []
        if write:
            # first: killed after this, an episode is in no split; the other way round, a later
            # one of the same number could slip into a split
            drop_from_splits(folder, [path.name for path in paths])
        for path in paths:
            target = free_name(folder / numbering.DELETED, path.name)
            where = "gone for good" if purge else str(target.relative_to(folder))
            lines.append(f"{path.name} -> {where}")
            if write:
                _take_out(path, None if purge else target)
    return lines


def _take_out(path: Path, target: Optional[Path]) -> None:
    try:
        if target is None:
            path.unlink()
        else:
            target.parent.mkdir(exist_ok=True)
            os.rename(str(path), str(target))
    except OSError as error:
        raise DatasetError(
            f"cannot be deleted ({error.strerror})", "mend that, then run it again", path
        ) from error
