"""Open HDF5 files that may be damaged or hostile.

HDF5 can store links, raw data and virtual datasets that point to any other file of the computer,
and HDF5 follows them without a word. This module refuses them and names every damage.
"""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from typing import Iterator, List, Optional

import h5py
from h5py import h5d, h5l, h5o

from ofrl_robot.errors import DatasetError, OfrlError

MAX_LINKS = 1_000_000  # of one file; an episode has 30 to 60
_MOVE = "move the file out of the dataset"
_DISTRUST = "do not trust this file"


@contextlib.contextmanager
def named_damage(path: Path, what: str = "unreadable data", fix: str = _MOVE) -> Iterator[None]:
    """Turn any exception of a file library inside the block into a DatasetError naming ``path``.

    h5py raises nearly any type of exception for a damaged file. OfrlErrors pass unchanged.
    """
    try:
        yield
    except OfrlError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {ascii(str(error)):.100}"
        raise DatasetError(f"{what} ({text})", fix, path) from error


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a regular HDF5 file for reading; errors inside the block name the file.

    Does not check what the file points to, see :func:`require_self_contained`.

    Raises:
        DatasetError: the file is missing, not a regular file (opening a FIFO would wait for a
            writer), not HDF5, or damaged.
    """
    require_regular(path)
    with named_damage(path), _opened(path) as file:
        yield file


def require_regular(path: Path) -> None:
    """Raise DatasetError unless ``path`` is a regular file or a symbolic link to one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DatasetError("no such file", "check the path", path) from error
    except OSError as error:
        raise DatasetError(
            f"not readable ({error.strerror})", "fix its permissions", path
        ) from error
    if not stat.S_ISREG(mode):
        raise DatasetError("not a regular file", _MOVE, path)


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except PermissionError as error:
        raise DatasetError("not readable", "fix its permissions", path) from error
    except FileNotFoundError as error:
        raise DatasetError("no such file", "check the path", path) from error
    except OSError as error:
        raise DatasetError("truncated, or not an HDF5 file", _MOVE, path) from error


# -- references to other files ---------------------------------------------------------------


def require_self_contained(group: h5py.Group, path: Path, max_links: int = MAX_LINKS) -> None:
    """Refuse a group in or below which anything lies outside the file.

    That is: an external link, raw data in an external file, or a virtual dataset with a source in
    another file. Virtual datasets over the same file and soft links are allowed: a soft link
    leaves the file only through an external link, which is found itself. Takes 0.5 ms for an
    episode.

    Args:
        group: a file or group, open for reading.
        path: file to name in errors.
        max_links: most links to look at.

    Raises:
        DatasetError: the file refers to another file, or has too many links.
    """
    for name in _hard_links(group, path, max_links):
        item = h5o.open(group.id, name)  # h5py's own objects would take four times as long
        if isinstance(item, h5d.DatasetID):
            _require_own_data(item, name, path)


def require_own_links(group: h5py.Group, path: Path, max_links: int = MAX_LINKS) -> None:
    """Refuse a group in or below which a link leads out of the file.

    The quick half of :func:`require_self_contained`; check each dataset with
    :func:`require_own_data` before it is read.

    Raises:
        DatasetError: there is such a link, or there are too many links.
    """
    _hard_links(group, path, max_links)


def require_own_data(data: h5py.Dataset, path: Path) -> None:
    """Refuse a dataset whose values lie in another file.

    Raises:
        DatasetError: it has external storage, or it is virtual with a source in another file.
    """
    _require_own_data(data.id, (data.name or "").encode("utf-8", "surrogateescape"), path)


def _require_own_data(data: h5d.DatasetID, name: bytes, path: Path) -> None:
    properties = data.get_create_plist()
    inside = properties.get_external_count() == 0
    if inside and properties.get_layout() == h5d.VIRTUAL:
        for k in range(properties.get_virtual_count()):
            inside = inside and properties.get_virtual_filename(k) == "."
    if not inside:
        raise _outside(name, path)


def _outside(name: bytes, path: Path) -> DatasetError:
    text = name.decode("utf-8", "backslashreplace")
    return DatasetError(f"{text} lies in another file", _DISTRUST, path)


def _hard_links(group: h5py.Group, path: Path, max_links: int) -> List[bytes]:
    """Return the names of all hard links below ``group``.

    HDF5 visits a group that several links lead to once, so cycles end.
    """
    links = group.id.links
    found: List[bytes] = []
    count = 0
    refused: List[DatasetError] = []

    def look(raw: bytes) -> Optional[bool]:
        nonlocal count
        count += 1
        kind = links.get_info(raw).type
        if kind == h5l.TYPE_HARD:
            found.append(raw)
        elif kind != h5l.TYPE_SOFT:  # external, or of a type that a plugin would follow
            refused.append(_outside(raw, path))
        if count > max_links:
            refused.append(DatasetError(f"has more than {max_links} links", _DISTRUST, path))
        return True if refused else None  # True ends the visit

    links.visit(look)
    if refused:
        raise refused[0]
    return found
