"""Write files whole, and read settings files within bounds.

A reader of a file written here sees its old content or its new content, never a part: the content
goes to a temporary file in the same folder, is synced to disk, and then takes the final name.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Iterator, Type, Union

import yaml

from ofrl_robot.errors import ConfigError, OutputError

MAX_SETTINGS_BYTES = 1 << 20  # a settings file of ours has a few kB
MAX_JSON_BYTES = 64 << 20  # splits.json of 10^6 episodes has 22 MB
MAX_DEPTH = 50  # nesting of a settings file; ours have 3 levels


# -- write -----------------------------------------------------------------------------------


def write_whole(path: Path, content: Union[str, bytes]) -> None:
    """Write ``content`` to ``path`` so that no reader ever sees a part of it.

    Raises:
        OutputError: the disk refuses. The old file, if there was one, is still there.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(data)
            replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # gone already when all went well
                temporary.unlink()
    except OSError as error:
        raise output_error(error, path) from error


def replace(temporary: Path, final: Path) -> None:
    """Sync a finished file to disk and give it the name ``final``, replacing what has it.

    Raises:
        OSError: the disk refuses.
    """
    sync(temporary)
    os.replace(temporary, final)
    with contextlib.suppress(OSError):  # not every network file system can sync a folder
        sync(final.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to disk. Raises OSError when the disk refuses."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def output_error(error: OSError, path: Path) -> OutputError:
    """Return an OutputError that says why ``path`` cannot be written and what to do."""
    return OutputError(
        f"cannot be written ({error.strerror or error})",
        "free space, fix the permissions, or choose another place",
        path,
    )


@contextlib.contextmanager
def new_file(out: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes ``out`` when the block ends without an error.

    The temporary file has a folder of its own, which is removed with everything in it.

    Raises:
        OutputError: ``out`` exists or cannot be written.
    """
    out = out.resolve()
    if out.exists():
        raise OutputError("exists already", "choose a new file", out)
    with _build_folder(out) as building:
        file = building / out.name
        yield file
        sync(file)
        if out.exists():
            raise OutputError("exists by now", "choose a new file", out)
        os.rename(file, out)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes ``out`` when the block ends without an error.

    Raises:
        OutputError: ``out`` is neither new nor an empty folder, or cannot be written.
    """
    require_new_folder(out)
    out = out.resolve()
    with _build_folder(out) as building:
        yield building
        os.rename(building, out)  # replaces an empty folder, never a filled one


def require_new_folder(out: Path) -> None:
    """Raise OutputError unless ``out`` is new or an empty folder."""
    if out.exists() and not out.is_dir():
        raise OutputError("is a file", "choose a new folder", out)
    if out.is_dir() and any(out.iterdir()):
        raise OutputError("is not empty", "choose a new folder", out)


@contextlib.contextmanager
def _build_folder(out: Path) -> Iterator[Path]:
    building = out.parent / f".{out.name}.building-{os.getpid()}"
    try:
        shutil.rmtree(building, ignore_errors=True)  # of a process killed long ago
        building.mkdir(parents=True)
        yield building
    except OSError as error:
        raise output_error(error, out) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists. Raises OutputError when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError("is not writable", "fix its permissions or choose another folder", folder)


def free_name(folder: Path, name: str) -> Path:
    """Return ``folder/name``, or ``folder/name.1``, ``.2`` and so on when that is taken."""
    names = itertools.chain([name], (f"{name}.{k}" for k in itertools.count(1)))
    return next(folder / n for n in names if not (folder / n).exists())


# -- read ------------------------------------------------------------------------------------


def read_yaml(path: Path, loader: Type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Read a YAML settings file: plain values only, no tags, no aliases.

    Args:
        path: file to read.
        loader: SafeLoader, or a subclass that reads some words as other values.

    Raises:
        ConfigError: the file is missing, not a regular file, larger than 1 MiB, not YAML, nested
            more than 50 levels deep, or uses aliases (a small file of aliases can stand for
            gigabytes).
    """
    text = _read_text(path, MAX_SETTINGS_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, loader):
            depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
            depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError("uses a YAML alias (*name)", "write the value out", path)
            if depth > MAX_DEPTH:
                raise ConfigError(
                    f"is nested more than {MAX_DEPTH} levels deep", "use a flat file", path
                )
        return yaml.load(text, loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        reason = " ".join(str(error).split())
        raise ConfigError(f"is not valid YAML ({reason:.200})", "fix the syntax", path) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ConfigError: the file is missing, not a regular file, too large, or not JSON.
    """
    text = _read_text(path, MAX_JSON_BYTES)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"is not valid JSON ({str(error):.200})", "restore or remove the file", path
        ) from error


def _read_text(path: Path, limit: int) -> str:
    """Read a regular UTF-8 file of at most ``limit`` bytes. Raises ConfigError otherwise."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError("is not a regular file", "name a file", path)
            if status.st_size > limit:
                raise ConfigError(
                    f"has {status.st_size} bytes, at most {limit} are read",
                    "use a small file",
                    path,
                )
            return file.read(limit + 1).decode()
    except FileNotFoundError as error:
        raise ConfigError("does not exist", "check the path", path) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot be read ({reason})", "check the file", path) from error
