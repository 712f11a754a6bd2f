"""Give episode files their numbers and names: the folder itself is the counter."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from pathlib import Path
from typing import List, Optional, Tuple

from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.journal import JournaledFile
from ofrl_robot.errors import DatasetError, OutputError
from ofrl_robot.files import sync

DELETED = "deleted"  # subfolder of deleted episodes


def partial_path(folder: Path, index: int) -> Path:
    """Return the path of episode number ``index`` while it is being written."""
    return folder / f"{schema.episode_name(index)}.partial"


def unfinished(folder: Path) -> List[Path]:
    """Return the partial files of a folder in order: of running or of dead recorders."""
    return sorted(folder.glob(f"episode_*{schema.SUFFIX}.partial"))


def open_partial(folder: Path, index: Optional[int] = None) -> Tuple[Path, JournaledFile]:
    """Create ``episode_N.h5.partial``, never opening an existing one.

    Args:
        folder: folder of the dataset.
        index: the number N; None for the next free one.

    Raises:
        DatasetError: ``index`` is taken, by a finished or a partial episode.
        OutputError: the disk refuses.
    """
    try:
        number = next_index(folder) if index is None else index
        while True:
            try:
                return _claim(folder, number)
            except FileExistsError as error:
                if index is not None:
                    raise _taken(folder / schema.episode_name(number)) from error
                number += 1  # another recorder took it between look and open
    except OSError as error:
        raise disk_error(error, folder) from error


def _claim(folder: Path, index: int) -> Tuple[Path, JournaledFile]:
    final, partial = folder / schema.episode_name(index), partial_path(folder, index)
    if final.exists():
        raise _exists(final)
    return partial, JournaledFile(partial, "x+")


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _taken(final: Path) -> DatasetError:
    return DatasetError(
        "its number is taken, so another recorder is at work in this folder",
        "let one at a time add to it",
        final,
    )


def disk_error(error: OSError, path: Path, fix: str = "") -> OutputError:
    """Return an OutputError: an episode cannot be written, why, and what to do."""
    return OutputError(
        f"the episode cannot be written ({error.strerror or error})",
        fix or "free space or choose another folder",
        path,
    )


def next_index(folder: Path) -> int:
    """Return one past the highest number in the folder, finished or partial.

    Deleted episodes count as long as they can be restored.
    """
    files = itertools.chain(folder.iterdir(), (folder / DELETED).glob("*"))
    numbers = (re.match(r"episode_(\d+)\.h5", p.name) for p in files)
    return max((int(n.group(1)) for n in numbers if n), default=-1) + 1


def publish(partial: Path, renumber: bool) -> Path:
    """Sync a finished partial file and give it its final name; never replaces a file.

    Args:
        partial: the file.
        renumber: if the name is taken, use the next free number.

    Returns:
        The final path.

    Raises:
        DatasetError: the name is taken and ``renumber`` is false.
        OSError: the disk refuses.
    """
    folder = partial.parent
    final = folder / partial.name[: -len(".partial")]
    sync(partial)
    while True:
        try:
            _move(partial, final)
            break
        except FileExistsError as error:
            if not renumber:
                raise _taken(final) from error
            final = folder / schema.episode_name(next_index(folder))
    with contextlib.suppress(OSError):  # not every network file system can sync a folder
        sync(folder)
    return final


def _move(partial: Path, final: Path) -> None:
    """Rename, but raise FileExistsError if ``final`` exists."""
    try:
        os.link(partial, final)
    except FileExistsError:
        raise
    except OSError:  # file systems without hard links (exFAT sticks)
        if final.exists():
            raise _exists(final) from None
        os.rename(partial, final)
    else:
        partial.unlink()
