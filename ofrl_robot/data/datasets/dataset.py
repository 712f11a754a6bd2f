"""Open a folder of episodes as one dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from pathlib import Path
from typing import Iterator, List, Sequence

from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import ActionSpec, ObservationSpec, require_same


@dataclasses.dataclass
class Dataset:
    """A folder of episodes with one action spec and one observation spec.

    Attributes:
        folder: the folder.
        paths, metas, lengths: file, metadata and number of transitions of each episode, in order.
    """

    folder: Path
    paths: List[Path]
    metas: List[schema.EpisodeMeta]
    lengths: List[int]

    @property
    def action_spec(self) -> ActionSpec:
        """Action spec of every episode."""
        return self.metas[0].action_spec

    @property
    def observation_spec(self) -> ObservationSpec:
        """Observation spec of every episode."""
        return self.metas[0].observation_spec

    @property
    def successes(self) -> int:
        """Number of episodes that are labelled success."""
        return sum(m.success == schema.SUCCESS for m in self.metas)

    def subset(self, episodes: Sequence[int]) -> "Dataset":
        """Return the same folder with only these of its episodes (positions in ``paths``)."""
        return Dataset(
            self.folder,
            [self.paths[k] for k in episodes],
            [self.metas[k] for k in episodes],
            [self.lengths[k] for k in episodes],
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of names, sizes, lengths, labels, creation times and seeds.

        A copy of the folder has the same fingerprint.
        """
        digest = hashlib.sha256()
        for path, meta, length in zip(self.paths, self.metas, self.lengths):
            row = (path.name, path.stat().st_size, length, meta.success, meta.created, meta.seed)
            digest.update(repr(row).encode())
        return digest.hexdigest()


def open_dataset(folder: Path) -> Dataset:
    """Open a folder of episodes. Reads their attributes, not their arrays.

    Raises:
        DatasetError: the folder does not exist, has no episodes, or holds a damaged file.
        SpecMismatchError: two episodes have different specs; names both and the field.
    """
    if not folder.is_dir():
        raise DatasetError("no such dataset folder", "check the path", folder)
    paths = schema.episode_paths(folder)
    if not paths:
        raise DatasetError(
            "no episode_*.h5 in it", "collect or convert some first (`ofrl collect --help`)", folder
        )
    rows = [read_meta(path) for path in paths]
    metas = [meta for meta, _ in rows]
    fix = "keep one spec per dataset: move the odd episodes to another folder"
    for path, meta in zip(paths, metas):
        names = path.name, paths[0].name
        require_same(meta.action_spec, metas[0].action_spec, *names, fix)
        require_same(meta.observation_spec, metas[0].observation_spec, *names, fix)
    return Dataset(folder, paths, metas, [steps for _, steps in rows])


@contextlib.contextmanager
def locked_dataset(folder: Path, write: bool = True) -> Iterator[Dataset]:
    """Open a dataset and, if ``write``, hold its lock until the block ends.

    Raises what :func:`open_dataset` and ``one_writer`` raise. Makes no folder.
    """
    with one_writer(folder) if write and folder.is_dir() else contextlib.nullcontext():
        yield open_dataset(folder)
