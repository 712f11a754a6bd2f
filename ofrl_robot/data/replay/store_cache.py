"""Build the files of a transition store from episodes, once per state of the dataset.

They are kept in ``<dataset>/.cache/`` (or a folder that the user names), in one folder per part::

    <key>-rows-<layout>/            actions, rewards, terminals, state
    <key>-camera-<name>-<layout>/   frames

``key`` changes whenever an episode does. A part is built beside its final place and renamed, so a
folder that exists is complete; adding a camera builds that camera only. One process at a time
builds: it holds a lock on ``.lock`` from the removal of what killed builds left to the end.

For N transitions in E episodes, actions of A entries, a state of D and H x W pixels: 3 H W (N + E)
bytes of frames per camera, (4 A + 5) N + 4 D (N + E) bytes beside them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Dict, Iterator, Optional, Sequence
from urllib.parse import quote

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes.reader import iter_frames, read_episode
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import STATE

LAYOUT = 3  # raise it when the files below change
FOLDER = ".cache"  # in a dataset
PER_STEP = ("actions", "rewards", "terminals")
DTYPES = {"actions": np.float32, "rewards": np.float32, "terminals": np.bool_, STATE: np.float32}
_ROWS, _FRAMES, _LOCK, _BUILDING = "rows", "frames", ".lock", ".building-"


def require_files(
    dataset: Dataset, observe: Sequence[str], cache: Optional[Path] = None
) -> Dict[str, Path]:
    """Return the file of each array of a dataset's store; missing ones are built.

    Args:
        dataset: the episodes.
        observe: cameras, and ``specs.STATE``.
        cache: folder for the files, ``<dataset>/.cache`` by default.

    Returns:
        Paths by name: actions, rewards, terminals, and what ``observe`` names.

    Raises:
        DatasetError: they cannot be written, an episode is damaged or changed meanwhile, or the
            default folder is a symbolic link.
    """
    root = cache or _default_folder(dataset)
    key = state_on_disk(dataset)[:16]
    parts = {_ROWS: root / f"{key}-{_ROWS}-{LAYOUT}"}
    paths = {name: parts[_ROWS] / name for name in PER_STEP}
    for name in observe:
        if name == STATE:
            paths[name] = parts[_ROWS] / STATE
            continue
        # a camera's name comes from a file: it must not lead out of the folder
        parts[name] = root / f"{key}-camera-{quote(name, safe='')}-{LAYOUT}"
        paths[name] = parts[name] / _FRAMES
    if not all(folder.is_dir() for folder in parts.values()):
        _build_missing(dataset, parts, root, key)
    for folder in parts.values():
        if folder.is_symlink():
            raise DatasetError("is a symbolic link", "remove it", folder)
    return paths


def state_on_disk(dataset: Dataset) -> str:
    """Return the key of the cache: unlike the fingerprint it notices files edited in place.

    Raises:
        DatasetError: an episode disappeared since the dataset was opened.
    """
    try:
        digest = hashlib.sha256(dataset.fingerprint().encode())
        for path in dataset.paths:
            digest.update(b"%d " % path.stat().st_mtime_ns)
    except OSError as error:
        raise _changed(dataset.folder) from error
    return digest.hexdigest()


def _default_folder(dataset: Dataset) -> Path:
    root = dataset.folder / FOLDER
    if root.is_symlink():  # a dataset from elsewhere could have us write anywhere
        raise DatasetError(
            "is a symbolic link, which is not followed", "remove it or pass --cache DIR", root
        )
    return root


def _build_missing(dataset: Dataset, parts: Dict[str, Path], root: Path, key: str) -> None:
    """Build the parts that are missing, each beside its final place, then renamed."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            for orphan in root.glob(f"{_BUILDING}*"):  # left by a build that was killed
                shutil.rmtree(orphan, ignore_errors=True)
            # another process may have built them while this one waited for the lock
            missing = {part: folder for part, folder in parts.items() if not folder.is_dir()}
            try:
                for part, folder in missing.items():
                    _build(dataset, part, root, folder)
                if state_on_disk(dataset)[:16] != key:
                    raise _changed(dataset.folder)
            except DatasetError:  # parts of two states of the dataset must not meet
                for folder in missing.values():
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            if root == dataset.folder / FOLDER:  # another folder may serve other datasets
                _remove_older(root, key)
    except OSError as error:
        raise DatasetError(
            f"cannot write the replay cache ({error.strerror or error})",
            "make its folder writable, free space, or pass --cache DIR",
            root,
        ) from error


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the lock of a cache folder; wait while another process holds it."""
    handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _build(dataset: Dataset, part: str, root: Path, folder: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=root))
    try:
        if part == _ROWS:
            _write_rows(dataset, temporary)
        else:
            _write_frames(dataset, part, temporary / _FRAMES)
        temporary.chmod(0o755)  # mkdtemp makes it private; others may train on the same data
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_rows(dataset: Dataset, folder: Path) -> None:
    """Write everything but frames."""
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / name, "wb")) for name in DTYPES}
        for path, steps in zip(dataset.paths, dataset.lengths):
            episode = read_episode(path, cameras=())
            if len(episode) != steps:
                raise _changed(path)
            files["actions"].write(np.clip(episode.actions, -1 + 1e-5, 1 - 1e-5).data)
            files["rewards"].write(episode.rewards.astype(np.float32).data)
            files["terminals"].write(episode.terminals.data)
            files[STATE].write(np.ascontiguousarray(episode.state, np.float32).data)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())


def _write_frames(dataset: Dataset, camera: str, file_path: Path) -> None:
    """Write the frames of one camera, one block of them in memory at a time."""
    shape = next(c.shape for c in dataset.observation_spec.cameras if c.name == camera)
    with open(file_path, "wb") as file:
        for path, steps in zip(dataset.paths, dataset.lengths):
            frames = 0
            for block in iter_frames(path, camera):
                if block.shape[1:] != shape or block.dtype != np.uint8:
                    raise _changed(path)
                file.write(block.data)
                frames += len(block)
            if frames != steps + 1:
                raise _changed(path)
        file.flush()
        os.fsync(file.fileno())


def _changed(path: Path) -> DatasetError:
    return DatasetError("changed while it was read", "run again", path)


def _remove_older(root: Path, key: str) -> None:
    """Remove parts of other states of the dataset and other layouts; each holds all its frames."""
    for folder in root.iterdir():
        ours = re.fullmatch(r"([0-9a-f]{16})-.*-(\d+)", folder.name)
        if ours and ours.groups() != (key, str(LAYOUT)):
            shutil.rmtree(folder, ignore_errors=True)
