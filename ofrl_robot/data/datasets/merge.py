"""Joins datasets of the same specs into a new one: ``ofrl data merge``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.data.episodes import schema
from ofrl_robot.files import new_folder
from ofrl_robot.data.episodes.reader import Episode, iter_frames, open_dataset, read_episode
from ofrl_robot.data.datasets.selection import SPLITS
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import require_same

MERGED = "merged.json"  # {file name: where it comes from}


@dataclasses.dataclass(frozen=True)
class Merged:
    """What was done.

    Attributes:
        episodes: in the new dataset. linked: of these, those that share their bytes with the
            source. duplicates: (episode, the earlier one it equals), all kept.
        splits: sources whose splits were not taken over.
    """

    episodes: int
    linked: int
    duplicates: List[Tuple[Path, Path]]
    splits: List[Path]

    def lines(self) -> List[str]:
        return [
            f"{self.episodes} episodes, {self.linked} of them hard links",
            *("{} is the same as {}".format(*pair) for pair in self.duplicates),
            *(f"{f / SPLITS}: not taken over, run `ofrl data split`" for f in self.splits),
        ]


def merge(
    sources: Sequence[Path],
    out: Path,
    allow_duplicates: bool = False,
    on_episode: Optional[Callable[[int, int], None]] = None,
) -> Merged:
    """Number the episodes of all sources anew in ``out``, which appears whole or not at all.

    Hard links where the file system has them, else copies; the files stay as they are. Each
    one's origin is written to ``merged.json``. The sources need no lock: their finished episodes
    never change, they are replaced.

    Args:
        out: a new or empty folder.
        allow_duplicates: also keep recordings that occur twice.
        on_episode: called with (episodes done, episodes) after each.

    Raises DatasetError for damaged sources, duplicates, and an ``out`` that holds anything,
    SpecMismatchError naming episode and field where the specs differ.
    """
    with new_folder(out) as building:
        datasets = [open_dataset(source) for source in sources]
        first, fix = datasets[0], "merge datasets of one spec"
        for dataset in datasets[1:]:
            names = str(dataset.paths[0]), str(first.paths[0])
            require_same(dataset.action_spec, first.action_spec, *names, fix)
            require_same(dataset.observation_spec, first.observation_spec, *names, fix)
        paths = [path for dataset in datasets for path in dataset.paths]
        duplicates = find_duplicates(paths)
        if duplicates and not allow_duplicates:
            more = f", as are {len(duplicates) - 1} more" if len(duplicates) > 1 else ""
            raise DatasetError(
                f"the same recording as {duplicates[0][1]}{more}",
                "leave one out, or pass --allow-duplicates",
                duplicates[0][0],
            )
        origins, linked = {}, 0
        for index, path in enumerate(paths):
            name = schema.episode_name(index)
            linked += _link(path, building / name)
            origins[name] = str(path.resolve())
            if on_episode is not None:
                on_episode(index + 1, len(paths))
        (building / MERGED).write_text(f"{json.dumps(origins, indent=1)}\n")
    with_splits = [source for source in sources if (source / SPLITS).exists()]
    return Merged(len(paths), linked, duplicates, with_splits)


def find_duplicates(paths: Sequence[Path]) -> List[Tuple[Path, Path]]:
    """(episode, an earlier one) pairs of the same recording: task, seed, actions, states, frames.

    Labels and rewards may differ. Frames are only read where all else is the same.
    """
    groups: Dict[Any, List[Path]] = {}
    for path in paths:
        episode = read_episode(path, cameras=())
        key = (episode.meta.task, episode.meta.seed, _digest(episode))
        groups.setdefault(key, []).append(path)
    found: List[Tuple[Path, Path]] = []
    for group in groups.values():
        earlier: Dict[bytes, Path] = {}
        for path in group if len(group) > 1 else ():
            content = _frame_digest(path)
            if content in earlier:
                found.append((path, earlier[content]))
            earlier.setdefault(content, path)
    return found


def _digest(episode: Episode) -> bytes:
    content = hashlib.sha256()
    for array in (episode.actions, episode.state):
        content.update(np.ascontiguousarray(array))
    return content.digest()


def _frame_digest(path: Path) -> bytes:
    content = hashlib.sha256()
    for camera in read_episode(path, cameras=()).meta.observation_spec.cameras:
        for block in iter_frames(path, camera.name):
            content.update(np.ascontiguousarray(block))
    return content.digest()


def _link(source: Path, target: Path) -> bool:
    """Whether it became a hard link and not a copy."""
    try:
        os.link(str(source.resolve()), str(target))
        return True
    except OSError:  # another file system, or one without hard links
        shutil.copy2(str(source), str(target))
        return False
