"""Edit the finished episodes of a dataset: labels and rewards, deletion."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import List, Optional, Sequence, Set

import numpy as np

from ofrl_robot.data.datasets.rewriting import successor
from ofrl_robot.data.datasets.splits import drop_from_splits
from ofrl_robot.data.episodes import numbering, schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.errors import DatasetError, printable
from ofrl_robot.files import free_name, make_folder, output_error

ORIGINAL_REWARDS = "rewards_original"  # the recorded rewards of an episode whose rewards were set


def file_name(episode: str) -> str:
    """Return the file name of an episode that is given by its number or its file name."""
    is_number = re.match(r"\d{1,9}$", episode, re.ASCII)
    return schema.episode_name(int(episode)) if is_number else episode


def relabel(path: Path, source: str, success: Optional[int], rewards: Optional[np.ndarray]) -> None:
    """Give one episode another label, other rewards, or both. The caller holds the lock.

    Args:
        path: the episode.
        source: who or what decided, stored as ``label_source`` and ``reward_source``.
        success: 1, 0 or -1; None keeps label and ``label_source``.
        rewards: float64 (T,); None keeps them. The recorded ones stay in ``rewards_original``,
            however often this is done.

    Raises:
        DatasetError: the episode is damaged.
        OutputError: the disk refuses. The episode is unchanged.
    """
    with successor(path, copy=True) as file:
        group = file[schema.GROUP]
        if success is not None:
            group.attrs["success"] = success
            group.attrs["label_source"] = source
        if rewards is not None:
            if ORIGINAL_REWARDS not in group:
                group[ORIGINAL_REWARDS] = group["rewards"][:].astype(np.float64)
            group["rewards"][:] = rewards
            group.attrs["reward_source"] = source


# -- deletion --------------------------------------------------------------------------------


def chosen(folder: Path, episodes: Sequence[str]) -> List[Path]:
    """Return the files of the named episodes, in order, each once. They may be damaged.

    Args:
        folder: the dataset.
        episodes: numbers (``3``), ranges (``12-15``: those of them that exist) and file names.

    Raises:
        DatasetError: an episode does not exist; names the first.
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
    """Move episodes to ``<folder>/deleted``, take them out of ``splits.json``, return a line each.

    Moving a file back restores it; its number is not given out again meanwhile.

    Args:
        folder: the dataset.
        episodes: see :func:`chosen`.
        purge: remove them for good instead.
        write: do it; otherwise nothing is changed.

    Raises:
        DatasetError: an episode does not exist.
        OutputError: the disk refuses.
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
            lines.append(printable(f"{path.name} -> {where}"))
            if write:
                _take_out(path, None if purge else target)
    return lines


def _take_out(path: Path, target: Optional[Path]) -> None:
    try:
        if target is None:
            path.unlink()
        else:
            make_folder(target.parent)
            os.rename(path, target)
    except OSError as error:
        raise output_error(error, path) from error
