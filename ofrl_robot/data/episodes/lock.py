"""One recorder at a time in a dataset folder. Reading needs no lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO, Iterator

from ofrl_robot.data.episodes.reader import Dataset, open_dataset
from ofrl_robot.errors import DatasetError
from ofrl_robot.files import make_folder

LOCK_NAME = ".lock"


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold ``folder``, made where it does not exist, for writing.

    The lock belongs to the process: the kernel releases it with the process however that ends,
    and the file that is left then is no obstacle.

    Raises DatasetError naming the holder while another recorder is at work in the folder, or
    when it cannot be written.
    """
    make_folder(folder)
    path = folder / LOCK_NAME
    try:
        held = _acquire(path)
    except OSError as error:
        raise DatasetError(
            f"cannot be locked ({error.strerror or error})",
            "record to a disk of this computer",
            folder,
        ) from error
    with held:
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # the whole folder was removed
                path.unlink()


@contextlib.contextmanager
def locked_dataset(folder: Path, write: bool = True) -> Iterator[Dataset]:
    """The dataset as it lies on disk, held for writing unless that is not wanted.

    Raises as :func:`one_writer` and ``open_dataset`` do; makes no folder.
    """
    with one_writer(folder) if write and folder.is_dir() else contextlib.nullcontext():
        yield open_dataset(folder)


def _acquire(path: Path) -> IO[str]:
    while True:
        file = open(str(path), "a+")  # noqa: SIM115 (held by the caller)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise DatasetError(
                f"another recorder is at work in it (process {holder})",
                "let it finish, or record into another folder",
                path.parent,
            ) from error
        if _is_at(file, path):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            return file
        file.close()  # the holder before us removed it between open and lock


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(str(path)))
    except FileNotFoundError:
        return False
