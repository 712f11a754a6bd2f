"""Join datasets of the same specs into a new one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.datasets.splits import SPLITS
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode, iter_frames, read_episode
from ofrl_robot.errors import DatasetError, printable
from ofrl_robot.files import new_folder
from ofrl_robot.specs import require_same

MERGED = "merged.json"  # {file name: where it comes from}


@dataclasses.dataclass(frozen=True)
class Merged:
    """Result of a merge.

    Attributes:
        episodes: number of episodes in the new dataset.
        linked: how many of them are hard links, which share their bytes with the source.
        duplicates: (episode, the earlier one it equals) pairs; all are kept.
        splits: sources whose splits were not taken over.
    """

    episodes: int
    linked: int
    duplicates: List[Tuple[Path, Path]]
    splits: List[Path]

    def lines(self) -> List[str]:
        """Return the result as lines for people."""
        lines = [f"{self.episodes} episodes, {self.linked} of them hard links"]
        lines += [f"{path} is the same as {earlier}" for path, earlier in self.duplicates]
        lines += [f"{f / SPLITS}: not taken over, run `ofrl data split`" for f in self.splits]
        return [printable(line) for line in lines]


def merge(
    sources: Sequence[Path],
    out: Path,
    allow_duplicates: bool = False,
    on_episode: Optional[Callable[[int, int], None]] = None,
    mixed_tasks: bool = False,
) -> Merged:
    """Put the episodes of all sources into ``out`` with new numbers, all or nothing.

    Makes hard links if the file system has them, else copies; the source files are not changed.
    The origin of each episode is written to ``merged.json``. The sources need no lock: finished
    episodes are never changed, only replaced.

    Args:
        sources: folders of datasets.
        out: a new or empty folder.
        allow_duplicates: also keep recordings that occur twice.
        on_episode: called with (episodes done, number of episodes) after each.
        mixed_tasks: allow sources with a task or robot that the first source does not have.

    Raises:
        DatasetError: a source is damaged, a recording occurs twice, or the tasks differ.
        SpecMismatchError: the specs differ; names episode and field.
        OutputError: ``out`` holds something or cannot be written.
    """
    with new_folder(out) as building:
        datasets = [open_dataset(source) for source in sources]
        first, fix = datasets[0], "merge datasets of one spec"
        for dataset in datasets[1:]:
            names = str(dataset.paths[0]), str(first.paths[0])
            require_same(dataset.action_spec, first.action_spec, *names, fix)
            require_same(dataset.observation_spec, first.observation_spec, *names, fix)
            if not mixed_tasks:
                _require_known_tasks(dataset, first)
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


def _require_known_tasks(dataset: Dataset, first: Dataset) -> None:
    """Raise DatasetError if ``dataset`` has a task or robot that ``first`` does not have."""
    known = {(meta.task, meta.robot) for meta in first.metas}
    for path, meta in zip(dataset.paths, dataset.metas):
        if (meta.task, meta.robot) not in known:
            raise DatasetError(
                f"shows task {meta.task!r} on robot {meta.robot!r}, {first.folder} does not",
                "merge datasets of one task, or allow it with --mixed-tasks",
                path,
            )


def find_duplicates(paths: Sequence[Path]) -> List[Tuple[Path, Path]]:
    """Return (episode, an earlier one) pairs with the same recording.

    That is: the same task, seed, actions, states and frames; labels and rewards may differ.
    Frames are only read if everything else is equal.
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
        content.update(np.ascontiguousarray(array).data)
    return content.digest()


def _frame_digest(path: Path) -> bytes:
    content = hashlib.sha256()
    for camera in read_episode(path, cameras=()).meta.observation_spec.cameras:
        for block in iter_frames(path, camera.name):
            content.update(np.ascontiguousarray(block).data)
    return content.digest()


def _link(source: Path, target: Path) -> bool:
    """Hard-link or copy a file; return whether it became a hard link."""
    try:
        os.link(source.resolve(), target)
        return True
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
        return False
