"""Reads episodes and checks them on the way in; a bad file is named, never guessed at."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Dict, List, Tuple

import h5py
import numpy as np

from ofrl_robot.data import schema
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import ActionSpec, ObservationSpec, require_same

_REQUIRED = ("actions", "rewards", "terminals", "timeouts", "obs/state")


@dataclasses.dataclass
class Episode:
    """One episode in memory.

    Attributes:
        meta: attributes of the file.
        images: uint8 (T+1, H, W, 3) per camera.
        state: float64 (T+1, D).
        actions, actions_requested: float32 (T, A).
        rewards: float64 (T,).
        terminals, timeouts, limited, intervention: bool (T,).
        timestamps: int64 ns, ``obs`` and one per camera (T+1,), ``action`` (T,).
    """

    meta: schema.EpisodeMeta
    images: Dict[str, np.ndarray]
    state: np.ndarray
    actions: np.ndarray
    actions_requested: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    limited: np.ndarray
    intervention: np.ndarray
    timestamps: Dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.actions)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(str(path), "r")
    except OSError as error:
        if not path.exists():
            raise DatasetError("no such file", "check the path", path) from error
        raise DatasetError(
            "truncated, or not an HDF5 file", "move it out of the dataset", path
        ) from error


def _group(file: h5py.File, path: Path) -> h5py.Group:
    group = file.get(schema.GROUP)
    if not isinstance(group, h5py.Group):
        raise DatasetError(
            "no group {}, so not an ofrl episode".format(schema.GROUP),
            "convert it with `ofrl data convert` or move it out of the dataset",
            path,
        )
    return group


def read_meta(path: Path) -> Tuple[schema.EpisodeMeta, int]:
    """(metadata, number of transitions) of one episode file."""
    with _open(path) as file:
        group = _group(file, path)
        meta = schema.EpisodeMeta.from_attrs(dict(group.attrs), path)
        return meta, int(group.attrs.get("num_samples", 0))


def read_episode(path: Path) -> Episode:
    """Read one whole episode. Raises DatasetError naming file and field when it is damaged."""
    with _open(path) as file:
        group = _group(file, path)
        meta = schema.EpisodeMeta.from_attrs(dict(group.attrs), path)
        cameras = [c.name for c in meta.observation_spec.cameras]
        missing = [n for n in _REQUIRED + tuple("obs/" + c for c in cameras) if n not in group]
        if missing:
            raise DatasetError(
                "no dataset {}".format(", ".join(missing)), "move the file out of the dataset", path
            )
        try:
            steps = len(group["actions"])
            none = np.zeros(steps, bool)
            episode = Episode(
                meta=meta,
                images={c: group["obs/" + c][:] for c in cameras},
                state=group["obs/state"][:],
                actions=group["actions"][:].astype(np.float32),
                actions_requested=group.get("actions_requested", group["actions"])[:],
                rewards=group["rewards"][:].astype(np.float64),
                terminals=group["terminals"][:].astype(bool),
                timeouts=group["timeouts"][:].astype(bool),
                limited=group["limited"][:] if "limited" in group else none,
                intervention=group["intervention"][:] if "intervention" in group else none,
                timestamps={k: v[:] for k, v in group.get("timestamps", {}).items()},
            )
        except OSError as error:
            raise DatasetError(
                "unreadable data ({})".format(error), "move the file out of the dataset", path
            ) from error
    _check_shapes(episode, path)
    return episode


def _check_shapes(episode: Episode, path: Path) -> None:
    steps = len(episode)
    expected = {"state": steps + 1, "rewards": steps, "terminals": steps, "timeouts": steps}
    found = {name: len(getattr(episode, name)) for name in expected}
    for camera in episode.meta.observation_spec.cameras:
        images = episode.images[camera.name]
        expected[camera.name], found[camera.name] = steps + 1, len(images)
        if images.shape[1:] != camera.shape or images.dtype != np.uint8:
            raise DatasetError(
                "obs/{} is {} {}, its spec says uint8 {}".format(
                    camera.name, images.dtype, images.shape[1:], camera.shape
                ),
                "move the file out of the dataset",
                path,
            )
    for name, length in expected.items():
        if found[name] != length:
            raise DatasetError(
                "{} has {} rows, {} expected for {} actions".format(
                    name, found[name], length, steps
                ),
                "move the file out of the dataset",
                path,
            )
    if steps and not (np.isfinite(episode.actions).all() and np.isfinite(episode.rewards).all()):
        raise DatasetError("actions or rewards are not finite", "remove the episode", path)


@dataclasses.dataclass
class Dataset:
    """A folder of episodes with one action and one observation spec.

    Attributes:
        folder: where it lies.
        paths, metas, lengths: file, metadata and transitions of each episode, in order.
    """

    folder: Path
    paths: List[Path]
    metas: List[schema.EpisodeMeta]
    lengths: List[int]

    @property
    def action_spec(self) -> ActionSpec:
        return self.metas[0].action_spec

    @property
    def observation_spec(self) -> ObservationSpec:
        return self.metas[0].observation_spec

    @property
    def successes(self) -> int:
        return sum(m.success == schema.SUCCESS for m in self.metas)

    def fingerprint(self) -> str:
        """SHA-256 over names, lengths, labels and creation times; the same for a copied folder."""
        digest = hashlib.sha256()
        for path, meta, length in zip(self.paths, self.metas, self.lengths):
            row = (path.name, path.stat().st_size, length, meta.success, meta.created, meta.seed)
            digest.update(repr(row).encode())
        return digest.hexdigest()


def open_dataset(folder: Path) -> Dataset:
    """Open a folder of episodes.

    Raises DatasetError when it does not exist, is empty or holds a damaged file, and
    SpecMismatchError (naming episode and field) when specs are mixed.
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
        require_same(meta.action_spec, metas[0].action_spec, path.name, paths[0].name, fix)
        require_same(meta.observation_spec, metas[0].observation_spec, path.name, paths[0].name, fix)
    return Dataset(folder, paths, metas, [steps for _, steps in rows])
