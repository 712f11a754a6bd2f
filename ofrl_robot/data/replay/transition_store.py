"""Transitions of a whole dataset as flat arrays over one uint8 file of the frames.

Built once from the episodes, kept in ``<dataset>/.cache/`` and built anew when they change. Every
frame is stored once: a transition reads two neighbours (an episode of T transitions owns T+1
frames), half of what storing obs and next_obs apart would take.

For N transitions in E episodes, actions of A entries and H x W pixels: 3 H W (N + E) bytes of
frames on disk, (4 A + 5) N + 16 E bytes beside them, which are also what is held in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes.reader import iter_frames, read_episode
from ofrl_robot.data.replay.frame_file import FrameFile
from ofrl_robot.errors import ConfigError, DatasetError

_LAYOUT = 2  # bump when the files below change
_STORE, _FRAMES = "store.json", "frames.u8"
_MIB = 1 << 20
_ROWS = {"actions": np.float32, "rewards": np.float32, "terminals": np.bool_}


@dataclasses.dataclass
class TransitionStore:
    """Flat view of the chosen episodes of a dataset, one after another.

    Attributes:
        frames: the frames (F, H, W, 3) of all episodes of the dataset.
        actions: float32 (N, A), clipped to +-(1 - 1e-5) so that atanh is finite.
        rewards: float32 (N,). terminals: bool (N,): true terminals only, never timeouts.
        starts: int64 (E+1,): episode e has the transitions starts[e] .. starts[e + 1] - 1.
        first_frames: int64 (E,), the frame before the first transition of each episode.
        fingerprint: of the whole dataset, whichever episodes are chosen.
    """

    frames: FrameFile
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    starts: np.ndarray
    first_frames: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.actions)

    def locate(self, index: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """For transitions (B,): the frame before each, and the transitions left in its episode,
        itself included. int64 (B,) both; the frame k steps on is k further."""
        episode = np.searchsorted(self.starts, index, side="right") - 1
        frame = self.first_frames[episode] + index - self.starts[episode]
        return frame, self.starts[episode + 1] - index

    @property
    def resident_bytes(self) -> int:
        """Memory that it takes at most, batches apart."""
        arrays = self.actions, self.rewards, self.terminals, self.starts, self.first_frames
        mapped = int(np.prod(self.frames.shape)) if self.frames.mapped else 0
        return mapped + sum(array.nbytes for array in arrays)


def open_transition_store(
    dataset: Dataset,
    camera: str,
    cache: Optional[Path] = None,
    episodes: Optional[Sequence[int]] = None,
    memory_mb: float = 4096,
) -> TransitionStore:
    """Open the store of ``dataset``, building it on first use.

    Args:
        camera: which camera's frames the policy will see.
        cache: folder for the stores, ``<dataset>/.cache`` by default.
        episodes: positions in ``dataset.paths``, ascending, of those to use; all by default.
            The store on disk is that of the whole dataset, whichever are chosen.
        memory_mb: bound on the resident memory (MiB). Frames that fit are mapped into memory,
            others are read from disk as they are drawn.

    Raises DatasetError where it cannot be built or is damaged, ConfigError where the bound does
    not even hold what must be in memory (actions, rewards, terminals).
    """
    root = cache or dataset.folder / ".cache"
    folder = root / f"{_state_on_disk(dataset)[:16]}-{camera}-{_LAYOUT}"
    if not (folder / _STORE).exists():
        _build(dataset, camera, root, folder)
    chosen = np.arange(len(dataset.paths)) if episodes is None else np.asarray(episodes)
    try:
        return _open(folder, dataset, chosen, int(memory_mb * _MIB))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError("damaged frame cache", "delete this folder", folder) from error


def _open(folder: Path, dataset: Dataset, chosen: np.ndarray, bound: int) -> TransitionStore:
    """The store in ``folder``, of the episodes ``chosen``, within ``bound`` bytes."""
    shape = tuple(json.loads((folder / _STORE).read_text())["shape"])
    lengths, size = np.asarray(dataset.lengths, np.int64), dataset.action_spec.size
    all_starts = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.concatenate([[0], np.cumsum(lengths[chosen])])
    first_frames = all_starts[chosen] + chosen  # one frame more than transitions per episode
    needed = int(starts[-1]) * (4 * size + 5) + starts.nbytes + first_frames.nbytes
    if needed > bound:
        raise ConfigError(
            f"actions and rewards of {starts[-1]} transitions take {needed / _MIB:.1f} "
            f"MiB, {bound / _MIB:.1f} may be used",
            "raise --memory-mb or use fewer episodes",
            dataset.folder,
        )
    runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
    spans = [(int(all_starts[run[0]]), int(all_starts[run[-1] + 1])) for run in runs]
    rows = {
        name: _read_spans(
            folder / name, spans, int(all_starts[-1]), dtype, (size,) if name == "actions" else ()
        )
        for name, dtype in _ROWS.items()
    }
    mapped = needed + int(np.prod(shape)) <= bound
    return TransitionStore(
        frames=FrameFile(folder / _FRAMES, shape, mapped),
        starts=starts,
        first_frames=first_frames,
        fingerprint=dataset.fingerprint(),
        **rows,
    )


def _read_spans(
    path: Path, spans: Sequence[Tuple[int, int]], length: int, dtype: type, width: Tuple[int, ...]
) -> np.ndarray:
    """Rows [start, stop) of each span, joined; ValueError unless the file has ``length`` rows."""
    rows = np.empty((sum(stop - start for start, stop in spans),) + width, dtype)
    size, done = int(np.prod(width, initial=rows.itemsize)), 0
    if path.stat().st_size != length * size:
        raise ValueError(f"{length} rows expected in {path.name}")
    with open(str(path), "rb") as file:
        for start, stop in spans:
            file.seek(start * size)
            file.readinto(rows[done : done + stop - start])
            done += stop - start
    return rows


def _state_on_disk(dataset: Dataset) -> str:
    """Key of the cache: unlike the fingerprint it also notices files edited in place."""
    digest = hashlib.sha256(dataset.fingerprint().encode())
    for path in dataset.paths:
        digest.update(b"%d " % path.stat().st_mtime_ns)
    return digest.hexdigest()


def _build(dataset: Dataset, camera: str, root: Path, folder: Path) -> None:
    """Write the store beside its final place, then rename: a reader never sees half of it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_orphans(root)
        temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=str(root)))
    except OSError as error:
        raise DatasetError(
            f"cannot write the frame cache ({error.strerror})",
            "make the folder writable or pass --cache DIR",
            root,
        ) from error
    try:
        shape = _write(dataset, camera, temporary)
        (temporary / _STORE).write_text(json.dumps({"shape": shape}))
        os.rename(str(temporary), str(folder))
        # an older state of the dataset is of no use, and each holds all its frames
        for older in _stores_of(camera, dataset.folder / ".cache"):
            if older.name != folder.name:
                shutil.rmtree(str(older), ignore_errors=True)
    except OSError as error:
        if not (folder / _STORE).exists():  # else another process built it meanwhile
            raise DatasetError(
                f"cannot write the frame cache ({error.strerror or error})",
                "free space or pass --cache DIR",
                root,
            ) from error
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)


def _write(dataset: Dataset, camera: str, folder: Path) -> Tuple[int, ...]:
    """Stream all episodes into the files of a store, one block of frames in memory at a time;
    returns the shape (F, H, W, 3) of the frames."""
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(open(str(folder / name), "wb"))
            for name in (_FRAMES,) + tuple(_ROWS)
        }
        fcntl.flock(files[_FRAMES], fcntl.LOCK_EX)  # see _remove_orphans
        for path, steps in zip(dataset.paths, dataset.lengths):
            episode, frames = read_episode(path, cameras=()), 0
            for block in iter_frames(path, camera):
                files[_FRAMES].write(block)
                frames += len(block)
            if not len(episode) == frames - 1 == steps:
                raise DatasetError("changed while it was read", "run again", path)
            files["actions"].write(np.clip(episode.actions, -1 + 1e-5, 1 - 1e-5))
            files["rewards"].write(episode.rewards.astype(np.float32))
            files["terminals"].write(episode.terminals)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return (sum(dataset.lengths) + len(dataset.lengths),) + block.shape[1:]


def _stores_of(camera: str, root: Path) -> Iterator[Path]:
    """Finished stores of one camera, of any layout."""
    for folder in root.glob(f"*-{camera}-*"):
        if folder.name[17:].rpartition("-")[0] == camera:  # after 16 digits of the key and "-"
            yield folder


def _remove_orphans(root: Path) -> None:
    """Remove what killed builds left. A running one holds a lock, which ends with its process."""
    for frames in root.glob(f".building-*/{_FRAMES}"):
        with open(str(frames), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            shutil.rmtree(str(frames.parent), ignore_errors=True)
