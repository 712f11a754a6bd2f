"""Read episode files, and refuse damaged ones with an error that names the file.

What this module refuses, ``ofrl data verify`` reports as damage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import h5py
import numpy as np

from ofrl_robot.control import signals
from ofrl_robot.control.limiter import LIMIT_NAMES
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.hdf5_safety import open_hdf5, require_self_contained
from ofrl_robot.errors import DatasetError

MAX_ACTION = 1 + 1e-6  # normalised actions lie in [-1, 1]; float32 rounds
_PER_STEP = ("rewards", "terminals", "timeouts", "limits", "source", "intervention", "late")
_STAMPS = "timestamps/"
_MOVE = "move the file out of the dataset"


@dataclasses.dataclass
class Episode:
    """One episode of T steps in memory.

    Attributes:
        meta: attributes of the file.
        images: uint8 (T+1, H, W, 3) per camera.
        state: float64 (T+1, D), units and frame of reference in the observation spec.
        actions, actions_requested: float32 (T, A), normalised.
        rewards: float64 (T,).
        terminals, timeouts, intervention: bool (T,).
        limits: uint32 (T,), which limits acted, as bits (``limiter.LIMIT_NAMES``).
        source: uint8 (T,), who commanded, as positions in ``signals.SOURCES``.
        late: bool (T,), the action left later than ``meta.action_latency``.
        timestamps: int64 ns, ``obs`` (the ticks), ``state`` and one per camera (T+1,),
            ``action`` and ``applied`` (T,). A file of this format has all of them; other formats
            that are converted may have none.
    """

    meta: schema.EpisodeMeta
    images: Dict[str, np.ndarray]
    state: np.ndarray
    actions: np.ndarray
    actions_requested: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    limits: np.ndarray
    source: np.ndarray
    intervention: np.ndarray
    late: np.ndarray
    timestamps: Dict[str, np.ndarray]

    @property
    def limited(self) -> np.ndarray:
        """Whether a limit changed the request: bool (T,)."""
        return np.asarray(self.limits != 0)

    @property
    def held(self) -> np.ndarray:
        """Whether nobody commanded in time, so that the arm held still: bool (T,)."""
        return np.asarray(self.source == signals.SOURCES.index(signals.HOLD))

    def __len__(self) -> int:
        return len(self.actions)


# -- public ----------------------------------------------------------------------------------


@contextlib.contextmanager
def open_episode(path: Path) -> Iterator[h5py.Group]:
    """Open an episode file for reading and yield its group ``data/demo_0``.

    Errors of h5py inside the block become a DatasetError that names the file.

    Raises:
        DatasetError: the file cannot be read, is not an episode, is damaged, or refers to another
            file.
    """
    with open_hdf5(path) as file:
        require_self_contained(file, path)
        yield episode_group(file, path)


def read_meta(path: Path) -> Tuple[schema.EpisodeMeta, int]:
    """Return the metadata and the number of transitions of one episode file.

    Raises:
        DatasetError: see :func:`open_episode`; the arrays are not looked at.
    """
    with open_hdf5(path) as file:
        return _meta(episode_group(file, path), path)


def read_episode(path: Path, cameras: Optional[Sequence[str]] = None) -> Episode:
    """Read one episode.

    Args:
        path: the file.
        cameras: names of the cameras whose images to read (default: all). The others are checked
            all the same.

    Raises:
        DatasetError: the file is damaged or contradicts itself; names the file and the field.
    """
    with open_episode(path) as group:
        episode = load_episode(group, path, cameras)
    for text in contradictions(episode):
        raise DatasetError(text, _MOVE, path)
    return episode


def load_episode(group: h5py.Group, path: Path, cameras: Optional[Sequence[str]] = None) -> Episode:
    """Read an episode from a group that :func:`open_episode` gave.

    Checks names, shapes and that every frame was written, but not the values: see
    :func:`contradictions`.

    Raises:
        DatasetError: something is missing or has another shape; names the file and the field.
    """
    meta, steps = _meta(group, path)
    names = [camera.name for camera in meta.observation_spec.cameras]
    rows = _rows(group, meta, path)
    _check_rows(rows, meta, steps, path)
    stamps = {n: v for n, v in rows.items() if n.startswith(_STAMPS)}
    return Episode(
        meta=meta,
        images={c: rows[f"obs/{c}"][:] for c in (names if cameras is None else cameras)},
        state=rows["obs/state"][:],
        actions=rows["actions"][:].astype(np.float32),
        actions_requested=rows["actions_requested"][:].astype(np.float32),
        rewards=rows["rewards"][:].astype(np.float64),
        terminals=rows["terminals"][:].astype(bool),
        timeouts=rows["timeouts"][:].astype(bool),
        limits=rows["limits"][:].astype(np.uint32),
        source=rows["source"][:].astype(np.uint8),
        intervention=rows["intervention"][:].astype(bool),
        timestamps={name[len(_STAMPS) :]: data[:] for name, data in stamps.items()},
        late=rows["late"][:].astype(bool),
    )


def episode_group(file: h5py.File, path: Path) -> h5py.Group:
    """Return the group ``data/demo_0`` of an open file.

    Raises:
        DatasetError: there is none, or a link that could lead into another file.
    """
    where = file
    for name in schema.GROUP.split("/"):
        # a link of another class could lead into another file
        if not isinstance(where.get(name, getlink=True), h5py.HardLink):
            raise _foreign(path)
        where = where[name]
        if not isinstance(where, h5py.Group):
            raise _foreign(path)
    return where


def contradictions(episode: Episode) -> Iterator[str]:
    """Yield one line for each way in which the values contradict each other or the format."""
    if not (np.isfinite(episode.actions).all() and np.isfinite(episode.rewards).all()):
        yield "actions or rewards are not finite"
    largest = float(np.abs(episode.actions).max(initial=0))
    if largest > MAX_ACTION:
        yield f"an action of {largest:.3g}, beyond the normalised [-1, 1]"
    if not np.isfinite(episode.state).all():
        step = int(np.argmin(np.isfinite(episode.state).all(1)))
        yield f"obs/state is not finite (step {step})"
    if episode.source.max(initial=0) >= len(signals.SOURCES):
        yield f"source {episode.source.max()}, beyond {len(signals.SOURCES) - 1}"
    if int(episode.limits.max(initial=0)) >> len(LIMIT_NAMES):
        yield f"limits {episode.limits.max()}, with more bits than there are limits"
    dones = episode.terminals | episode.timeouts
    if (episode.terminals & episode.timeouts).any():
        yield "a step is both terminal and timeout"
    if dones[:-1].any():
        yield f"goes on after its end (step {int(np.argmax(dones))} of {len(episode)})"
    if not dones[-1]:
        yield "its last step is neither terminal nor timeout"


def iter_frames(path: Path, camera: str, block_bytes: int = 16 << 20) -> Iterator[np.ndarray]:
    """Yield the frames of one camera in order, uint8 (n, H, W, 3).

    For episodes of any length: reads at most ``block_bytes`` at a time, but one frame at least.

    Raises:
        DatasetError: see :func:`open_episode`; also when frames are missing.
    """
    with open_episode(path) as group:
        frames = _frames(group, camera, path)
        rows = max(1, block_bytes // int(np.prod(frames.shape[1:])))
        for start in range(0, len(frames), rows):
            yield frames[start : start + rows]


def read_frames(path: Path, camera: str, index: Sequence[int]) -> np.ndarray:
    """Return some frames of one camera, uint8 (n, H, W, 3); the others are not read.

    Raises:
        DatasetError: the file is damaged or has no such camera or frame.
    """
    with open_episode(path) as group:
        frames = _frames(group, camera, path)
        return np.stack([frames[i] for i in index])


def require_written(data: h5py.Dataset, name: str, path: Path) -> None:
    """Refuse a dataset with rows that were declared but never written.

    HDF5 reads them as 0, so missing frames would be black. A power cut can cause it. Counts the
    chunks; reads nothing.

    Raises:
        DatasetError: rows are missing.
    """
    if data.chunks is None:
        complete = data.id.get_storage_size() >= data.size * data.dtype.itemsize
    else:
        chunks = [math.ceil(n / c) for n, c in zip(data.shape, data.chunks)]
        complete = data.id.get_num_chunks() >= np.prod(chunks)
    if not complete:
        raise DatasetError(f"rows of {name} are missing", _MOVE, path)


# -- checks ----------------------------------------------------------------------------------


def _foreign(path: Path) -> DatasetError:
    return DatasetError(
        f"no group {schema.GROUP}, so not an ofrl episode",
        "convert it with `ofrl data convert` or move it out of the dataset",
        path,
    )


def _meta(group: h5py.Group, path: Path) -> Tuple[schema.EpisodeMeta, int]:
    meta = schema.EpisodeMeta.from_attrs(dict(group.attrs), path)
    steps = group.attrs.get("num_samples")
    if not isinstance(steps, np.integer) or steps < 1:
        raise DatasetError("no num_samples attribute", _MOVE, path)
    return meta, int(steps)


def _frames(group: h5py.Group, camera: str, path: Path) -> h5py.Dataset:
    frames = group[f"obs/{camera}"]
    require_written(frames, f"obs/{camera}", path)
    return frames


def _rows(group: h5py.Group, meta: schema.EpisodeMeta, path: Path) -> Dict[str, h5py.Dataset]:
    """Return the datasets that every episode has, by name.

    Each is looked up once: looking them up wherever they are used took a quarter of the time of
    reading a short episode.

    Raises:
        DatasetError: one is missing, or is no dataset with values of its own.
    """
    cameras = [camera.name for camera in meta.observation_spec.cameras]
    names = [*_PER_STEP, "actions", "actions_requested", "obs/state"]
    names += [f"obs/{name}" for name in cameras]
    names += [_STAMPS + name for name in ("obs", "state", *cameras, *schema.ACTION_STAMPS)]
    found = {name: group.get(name) for name in names}
    missing = [name for name, data in found.items() if not isinstance(data, h5py.Dataset)]
    if missing:
        raise DatasetError(f"no dataset {', '.join(missing)}", _MOVE, path)
    for name, data in found.items():
        if data.is_virtual:  # only next_obs is, and nobody reads that here
            raise _wrong(name, "a virtual dataset", "an ordinary one", path)
    return found


def _check_rows(
    rows: Dict[str, h5py.Dataset], meta: schema.EpisodeMeta, steps: int, path: Path
) -> None:
    """Require the shape that specs and number of steps ask for, and every row on disk."""
    width = meta.action_spec.size
    expected: Dict[str, Tuple[int, ...]] = {
        "actions": (steps, width),
        "actions_requested": (steps, width),
    }
    for name in _PER_STEP:
        expected[name] = (steps,)
    expected["obs/state"] = (steps + 1, len(meta.observation_spec.state_names))
    for name in rows:
        if name.startswith(_STAMPS):
            per_action = name[len(_STAMPS) :] in schema.ACTION_STAMPS
            expected[name] = (steps if per_action else steps + 1,)
    for camera in meta.observation_spec.cameras:
        name = f"obs/{camera.name}"
        expected[name] = (steps + 1,) + camera.shape
        if rows[name].dtype != np.uint8:
            raise _wrong(name, rows[name].dtype, "uint8", path)
    for name, shape in expected.items():
        if rows[name].shape != shape:
            raise _wrong(name, rows[name].shape, shape, path)
        require_written(rows[name], name, path)


def _wrong(name: str, found: Any, expected: Any, path: Path) -> DatasetError:
    return DatasetError(f"{name} is {found}, {expected} expected", _MOVE, path)
