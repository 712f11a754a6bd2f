"""Transitions of a whole dataset as flat arrays over one uint8 memory map of the frames.

Built once from the episodes, kept in ``<dataset>/.cache/`` and built anew when they change. Every
frame is stored once: transition i reads frames ``frame[i]`` and ``frame[i] + 1`` (an episode of
T transitions owns T+1 frames), half of what storing obs and next_obs apart would take.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Optional

import numpy as np

from ofrl_robot.data.reader import Dataset, read_episode
from ofrl_robot.errors import DatasetError

_LAYOUT = 1  # bump when the files below change


@dataclasses.dataclass
class FrameStore:
    """Flat view of a dataset.

    Attributes:
        frames: uint8 (F, H, W, 3), memory-mapped, read-only.
        frame: int64 (N,), index of the frame before transition i; the one after is + 1.
        actions: float32 (N, A), clipped to +-(1 - 1e-5) so that atanh is finite.
        rewards: float32 (N,). terminals: bool (N,): true terminals only, never timeouts.
        episode: int64 (N,), episode number of each transition.
        fingerprint: of the dataset it was made from.
    """

    frames: np.ndarray
    frame: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    episode: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.actions)


def frame_store(dataset: Dataset, camera: str, cache: Optional[Path] = None) -> FrameStore:
    """Open the store of ``dataset``, building it on first use.

    Args:
        camera: which camera's frames the policy will see.
        cache: folder for the memory maps, ``<dataset>/.cache`` by default.
    """
    fingerprint = dataset.fingerprint()
    root = cache or dataset.folder / ".cache"
    folder = root / "{}-{}-{}".format(_state_on_disk(dataset)[:16], camera, _LAYOUT)
    if not (folder / "store.json").exists():
        _build(dataset, camera, root, folder)
    try:
        shape = tuple(json.loads((folder / "store.json").read_text())["shape"])
        frames = np.memmap(str(folder / "frames.u8"), np.uint8, "r", shape=shape)
        with np.load(str(folder / "transitions.npz"), allow_pickle=False) as arrays:
            rows = {name: arrays[name] for name in arrays}
        return FrameStore(frames=frames, fingerprint=fingerprint, **rows)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DatasetError("damaged frame cache", "delete this folder", folder) from error


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
        temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=str(root)))
    except OSError as error:
        raise DatasetError(
            "cannot write the frame cache ({})".format(error.strerror),
            "make the folder writable or pass --cache DIR",
            root,
        ) from error
    try:
        rows = {"frame": [], "actions": [], "rewards": [], "terminals": [], "episode": []}
        count = 0
        with open(str(temporary / "frames.u8"), "wb") as out:
            for number, path in enumerate(dataset.paths):
                episode = read_episode(path, [camera])
                images = episode.images[camera]
                images.tofile(out)
                steps = len(episode)
                rows["frame"].append(np.arange(count, count + steps, dtype=np.int64))
                rows["actions"].append(np.clip(episode.actions, -1 + 1e-5, 1 - 1e-5))
                rows["rewards"].append(episode.rewards.astype(np.float32))
                rows["terminals"].append(episode.terminals)
                rows["episode"].append(np.full(steps, number, np.int64))
                count += len(images)
        shape = (count,) + images.shape[1:]
        arrays = {name: np.concatenate(parts) for name, parts in rows.items()}
        np.savez(str(temporary / "transitions.npz"), **arrays)
        (temporary / "store.json").write_text(json.dumps({"shape": shape}))
        os.rename(str(temporary), str(folder))
        # an older state of the dataset is of no use, and each holds all its frames
        for older in (dataset.folder / ".cache").glob("*-{}-{}".format(camera, _LAYOUT)):
            if older.name != folder.name:
                shutil.rmtree(str(older), ignore_errors=True)
    except OSError as error:
        if not (folder / "store.json").exists():  # else another process built it meanwhile
            raise DatasetError(
                "cannot write the frame cache ({})".format(error.strerror or error),
                "free space or pass --cache DIR",
                root,
            ) from error
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)
