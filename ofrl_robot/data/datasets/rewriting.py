"""Replace a finished episode by an edited copy, all or nothing.

An episode is never changed in place: its successor is written beside it and renamed over it, so a
kill leaves the one or the other.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Iterator

import h5py

from ofrl_robot.data.episodes import numbering
from ofrl_robot.data.episodes.hdf5_safety import named_damage, require_self_contained
from ofrl_robot.data.episodes.journal import JournaledFile
from ofrl_robot.errors import DatasetError
from ofrl_robot.files import replace


@contextlib.contextmanager
def successor(path: Path, copy: bool) -> Iterator[h5py.File]:
    """Yield an HDF5 file to edit; it replaces the episode ``path`` when the block ends.

    Args:
        path: the episode. The caller holds the lock of its folder.
        copy: start with a copy of the episode; otherwise with an empty file.

    Raises:
        DatasetError: the episode is damaged, or refers to another file.
        OutputError: the disk refuses.

    The episode is unchanged when it raises.
    """
    temporary = path.with_name(f".{path.name}.editing")
    mode = "r+" if copy else "w"
    try:
        _remove(temporary)  # of an edit that was killed: there is one at a time
        if copy:
            shutil.copyfile(path, temporary)
        # keeps errors of a full disk, which crash HDF5
        with JournaledFile(temporary, "r+" if copy else "x+") as disk:
            try:
                with named_damage(path, "cannot be edited", "look at it with `ofrl data verify`"):
                    with h5py.File(disk, mode) as episode:
                        require_self_contained(episode, path)
                        yield episode
            except DatasetError:
                if disk.error is None:
                    raise
            disk.commit()
            if disk.error is not None:
                raise disk.error
        shutil.copymode(path, temporary)
        replace(temporary, path)
    except OSError as error:
        fix = "free space, then run it again; the episode is unchanged"
        raise numbering.disk_error(error, path, fix) from error
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
