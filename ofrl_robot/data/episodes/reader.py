"""Reads episodes and checks them on the way in; a bad file is named, never guessed at."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import h5py
import numpy as np

from ofrl_robot.data.episodes import schema
from ofrl_robot.errors import DatasetError, OfrlError
from ofrl_robot.specs import ActionSpec, ObservationSpec, require_same

_PER_STEP = ("rewards", "terminals", "timeouts", "limited", "intervention", "held")
_STAMPS = "timestamps/"
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
        timestamps: int64 ns, ``obs`` (the ticks), ``state`` and one per camera (T+1,),
            ``action`` and ``applied`` (T,); the first files lack ``state`` and ``applied``.
        held: bool (T,), nobody answered the tick in time; None in the first files.
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
    held: Optional[np.ndarray] = None

    def __len__(self) -> int:
        return len(self.actions)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(str(path), "r")
    except OSError as error:
        if not path.exists():
            raise DatasetError("no such file", "check the path", path) from error
        if isinstance(error, PermissionError):
            raise DatasetError("not readable", "mend its permissions", path) from error
        raise DatasetError(
            "truncated, or not an HDF5 file", "move it out of the dataset", path
        ) from error


def _group(file: h5py.File, path: Path) -> h5py.Group:
    group = file.get(schema.GROUP)
    if not isinstance(group, h5py.Group):
        raise DatasetError(
            f"no group {schema.GROUP}, so not an ofrl episode",
            "convert it with `ofrl data convert` or move it out of the dataset",
            path,
        )
    return group


def _meta(group: h5py.Group, path: Path) -> Tuple[schema.EpisodeMeta, int]:
    meta = schema.EpisodeMeta.from_attrs(dict(group.attrs), path)
    steps = group.attrs.get("num_samples")
    if not isinstance(steps, np.integer) or steps < 1:
        raise DatasetError("no num_samples attribute", "move the file out of the dataset", path)
    return meta, int(steps)


@contextlib.contextmanager
def named_damage(
    path: Path,
    what: str = "unreadable data",
    fix: str = "move the file out of the dataset",
) -> Iterator[None]:
    """A damaged file makes its library raise nearly anything: a DatasetError that names it."""
    try:
        yield
    except OfrlError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {ascii(str(error)):.100}"
        raise DatasetError(f"{what} ({text})", fix, path) from error


def read_meta(path: Path) -> Tuple[schema.EpisodeMeta, int]:
    """(metadata, number of transitions) of one episode file."""
    with named_damage(path), _open(path) as file:
        return _meta(_group(file, path), path)


def read_episode(path: Path, cameras: Optional[Sequence[str]] = None) -> Episode:
    """Read one episode. Raises DatasetError naming file and field when it is damaged.

    Args:
        cameras: whose images to read (default: all); the others' shapes are checked all the same.
    """
    with named_damage(path), _open(path) as file:
        group = _group(file, path)
        meta, steps = _meta(group, path)
        names = [c.name for c in meta.observation_spec.cameras]
        rows = _rows(group, meta)
        missing = [n for n in _REQUIRED + tuple(f"obs/{c}" for c in names) if n not in rows]
        if missing:
            raise DatasetError(
                f"no dataset {', '.join(missing)}", "move the file out of the dataset", path
            )
        _check_rows(rows, meta, steps, path)
        none = np.zeros(steps, bool)
        episode = Episode(
            meta=meta,
            images={c: rows[f"obs/{c}"][:] for c in (names if cameras is None else cameras)},
            state=rows["obs/state"][:],
            actions=rows["actions"][:].astype(np.float32),
            actions_requested=rows.get("actions_requested", rows["actions"])[:],
            rewards=rows["rewards"][:].astype(np.float64),
            terminals=rows["terminals"][:].astype(bool),
            timeouts=rows["timeouts"][:].astype(bool),
            limited=rows["limited"][:] if "limited" in rows else none,
            intervention=rows["intervention"][:] if "intervention" in rows else none,
            timestamps={n[len(_STAMPS) :]: v[:] for n, v in rows.items() if n.startswith(_STAMPS)},
            held=rows["held"][:] if "held" in rows else None,
        )
    if not (np.isfinite(episode.actions).all() and np.isfinite(episode.rewards).all()):
        raise DatasetError("actions or rewards are not finite", "remove the episode", path)
    return episode


def iter_frames(path: Path, camera: str, block_bytes: int = 16 << 20) -> Iterator[np.ndarray]:
    """The frames of one camera in order, uint8 (n, H, W, 3), at most ``block_bytes`` at a time.

    For episodes of any length; :func:`read_episode` checks the file, this does not.
    """
    with named_damage(path), _open(path) as file:
        frames = _group(file, path)[f"obs/{camera}"]
        rows = max(1, block_bytes // int(np.prod(frames.shape[1:])))
        for start in range(0, len(frames), rows):
            yield frames[start : start + rows]


def read_frames(path: Path, camera: str, index: Sequence[int]) -> np.ndarray:
    """Those frames of one camera, uint8 (n, H, W, 3); the others are not read.

    Raises DatasetError when the file is damaged or has no such camera or frame.
    """
    with named_damage(path), _open(path) as file:
        frames = _group(file, path)[f"obs/{camera}"]
        return np.stack([frames[i] for i in index])


def _rows(group: h5py.Group, meta: schema.EpisodeMeta) -> Dict[str, h5py.Dataset]:
    """What an episode may hold and this one does, by name. Each is looked up once.

    Looking them up wherever they are used took a quarter of the time of reading a short episode.
    """
    names = [*_PER_STEP, "actions", "actions_requested", "obs/state"]
    names += [f"obs/{camera.name}" for camera in meta.observation_spec.cameras]
    found = {name: group.get(name) for name in names}
    found.update({_STAMPS + name: rows for name, rows in group.get("timestamps", {}).items()})
    return {name: rows for name, rows in found.items() if rows is not None}


def _check_rows(
    rows: Dict[str, h5py.Dataset], meta: schema.EpisodeMeta, steps: int, path: Path
) -> None:
    """Every dataset must have the shape that specs and the number of steps ask for."""
    width = meta.action_spec.size
    expected: Dict[str, Tuple[int, ...]] = {
        "actions": (steps, width),
        "actions_requested": (steps, width),
        "obs/state": (steps + 1, len(meta.observation_spec.state_names)),
    }
    for name in _PER_STEP:
        expected[name] = (steps,)
    for name in rows:
        if name.startswith(_STAMPS):
            expected[name] = (steps + (name[len(_STAMPS) :] not in schema.ACTION_STAMPS),)
    for camera in meta.observation_spec.cameras:
        name = f"obs/{camera.name}"
        expected[name] = (steps + 1,) + camera.shape
        if rows[name].dtype != np.uint8:
            raise _wrong(name, rows[name].dtype, "uint8", path)
    for name, shape in expected.items():
        if name in rows and rows[name].shape != shape:
            raise _wrong(name, rows[name].shape, shape, path)


def _wrong(name: str, found: Any, expected: Any, path: Path) -> DatasetError:
    return DatasetError(
        f"{name} is {found}, {expected} expected",
        "move the file out of the dataset",
        path,
    )


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

    def subset(self, episodes: Sequence[int]) -> "Dataset":
        """The same folder with only these of its episodes (positions in ``paths``)."""
        return Dataset(
            self.folder,
            [self.paths[k] for k in episodes],
            [self.metas[k] for k in episodes],
            [self.lengths[k] for k in episodes],
        )

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
        names = path.name, paths[0].name
        require_same(meta.action_spec, metas[0].action_spec, *names, fix)
        require_same(meta.observation_spec, metas[0].observation_spec, *names, fix)
    return Dataset(folder, paths, metas, [steps for _, steps in rows])
