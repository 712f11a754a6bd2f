"""Output that appears whole or not at all: built beside its place, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Iterator

from ofrl_robot.data.schema import episode_paths
from ofrl_robot.errors import DatasetError


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` when the block ends without an error.

    Raises DatasetError where ``out`` is anything but new or an empty folder, or cannot be written.
    """
    require_new_folder(out)
    out = out.resolve()
    with _building(out) as building:
        yield building
        os.rename(str(building), str(out))  # replaces an empty folder, never a filled one


def require_new_folder(out: Path) -> None:
    """Raise DatasetError where ``out`` is anything but new or an empty folder."""
    if out.exists() and not out.is_dir():
        raise DatasetError("is a file", "choose a new folder", out)
    if out.is_dir() and any(out.iterdir()):
        what = "holds episodes already" if episode_paths(out) else "is not empty"
        raise DatasetError(what, "choose a new folder", out)


@contextlib.contextmanager
def new_file(out: Path) -> Iterator[Path]:
    """A file to write, which becomes ``out`` when the block ends without an error.

    Its folder is the block's own, and is removed with all that lies beside the file.

    Raises DatasetError where ``out`` exists or cannot be written.
    """
    out = out.resolve()
    if out.exists():
        raise DatasetError("exists already", "choose a new file", out)
    with _building(out) as building:
        file = building / out.name
        yield file
        _sync(file)
        if out.exists():
            raise DatasetError("exists by now", "choose a new file", out)
        os.rename(str(file), str(out))


@contextlib.contextmanager
def _building(out: Path) -> Iterator[Path]:
    building = out.parent / ".{}.converting-{}".format(out.name, os.getpid())
    try:
        shutil.rmtree(str(building), ignore_errors=True)  # of a process killed long ago
        building.mkdir(parents=True)
        yield building
    except OSError as error:
        raise DatasetError(
            "cannot be written ({})".format(error.strerror or error), "choose another place", out
        ) from error
    finally:
        shutil.rmtree(str(building), ignore_errors=True)


def _sync(file: Path) -> None:
    handle = os.open(str(file), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
