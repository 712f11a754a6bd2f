"""The folder of one run: ``config.json, metrics.csv, train.csv, tensorboard/, checkpoints/``.

A run that exists is never overwritten, only resumed.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, TextIO

import yaml

from ofrl_robot import files
from ofrl_robot.errors import CheckpointError, ConfigError, OutputError

CONFIG, SETTINGS, METRICS, LOSSES, CHECKPOINTS, REPORT = (
    "config.json",
    "config.yaml",  # the same as flags, for `ofrl train --config`
    "metrics.csv",  # probe metrics, one row per checkpoint: what the verdict reads
    "train.csv",  # minibatch losses, one row per log_every steps
    "checkpoints",
    "report",
)
STRESS = "stress"  # trials under disturbances


def require_new(folder: Path) -> None:
    """Raise ConfigError if the folder exists."""
    if folder.exists():
        raise ConfigError(
            "the run exists already",
            "choose another --name, resume it (--resume) or remove it",
            folder,
        )


def create_run(folder: Path, config: Dict[str, Any]) -> None:
    """Make a new run folder with its config; it appears whole or not at all.

    Raises:
        ConfigError: it exists.
        OutputError: it cannot be written.
    """
    require_new(folder)
    made = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        (made / CHECKPOINTS).mkdir(parents=True)
        write_config(made, config)
        os.rename(made, folder)
    except (OSError, OutputError) as error:
        shutil.rmtree(made, ignore_errors=True)
        reason = error.what if isinstance(error, OutputError) else error.strerror
        raise OutputError(
            f"cannot make the run folder ({reason})", "choose another --out or --name", folder
        ) from error


def write_config(folder: Path, config: Dict[str, Any]) -> None:
    """Write every setting of the run, once as JSON and once as flags."""
    files.write_whole(folder / CONFIG, f"{json.dumps(config, indent=2)}\n")
    files.write_whole(folder / SETTINGS, settings_yaml(config))


def settings(config: Dict[str, Any]) -> Dict[str, Any]:
    """Return the settings of a ``config.json`` by name, as flags have them, without the dataset."""
    flags = {name: config[name] for name in ("algo", "prior") if config.get(name) is not None}
    for part in ("algo_config", "nets", "train"):
        flags.update(config.get(part, {}))
    return json.loads(json.dumps(flags))  # lists instead of tuples


def settings_yaml(config: Dict[str, Any]) -> str:
    """Return the settings as ``ofrl train DATASET --config FILE`` reads them."""
    first = f"# ofrl train {config.get('dataset')} --config THIS_FILE --name ANOTHER_NAME\n"
    flags = settings(config)
    return first + yaml.safe_dump(flags, sort_keys=False, default_flow_style=None)


def is_run(folder: Path) -> bool:
    """Return whether ``folder`` looks like a run folder."""
    return (folder / CONFIG).is_file() and (folder / CHECKPOINTS).is_dir()


def read_config(folder: Path) -> Dict[str, Any]:
    """Return config.json of a run. Raises CheckpointError if ``folder`` is not a run."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError("no config.json, so not a run folder", "check the path", folder)
    try:
        config = files.read_json(path)
    except ConfigError as error:
        raise CheckpointError(f"damaged ({error.what})", "train again", path) from error
    if not isinstance(config, dict):
        raise CheckpointError("damaged (not a JSON object)", "train again", path)
    return config


def read_metrics(folder: Path, name: str = METRICS) -> List[Dict[str, float]]:
    """Return the rows of a metrics file as floats.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    read_config(folder)
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"no {name} yet", "train first", folder)
    with open(path, newline="") as file:
        try:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"damaged ({error})", "train again", path) from error


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the file of the checkpoint of ``step``."""
    return folder / CHECKPOINTS / f"step_{step:07d}.safetensors"


def checkpoint_steps(folder: Path) -> List[int]:
    """Return the steps of all checkpoints, ascending."""
    names = (folder / CHECKPOINTS).glob("step_*.safetensors")
    return sorted(int(p.stem.split("_")[1]) for p in names)


class CsvLog:
    """Appends rows of scalars to a CSV file; each is synced to disk.

    Args:
        path: of the file, which may hold rows already.
    """

    def __init__(self, path: Path) -> None:
        self._file: TextIO = open(path, "a+", newline="")  # noqa: SIM115 (closed by close)
        self._file.seek(0)
        names: Optional[List[str]] = next(csv.reader(self._file), None)
        self._writer = None if names is None else csv.DictWriter(self._file, names)

    def write(self, step: int, values: Dict[str, float]) -> None:
        """Append a row; the first one ever decides the columns."""
        row = {"step": step, **values}
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row))
            self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def one_trainer(folder: Path) -> Iterator[None]:
    """Lock a run for training; the kernel releases the lock when the process ends.

    Raises:
        ConfigError: there is no such run, or another process trains it.
    """
    if not folder.is_dir():
        raise ConfigError("no such run to resume", "omit --resume to start a new run", folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(
            "another process is training this run", "let it finish or end it", folder
        ) from error
    finally:
        os.close(handle)


def rewind(folder: Path, step: int) -> None:
    """Delete everything written after ``step``: checkpoints, rows, half-written files."""
    for later in checkpoint_steps(folder):
        if later > step:
            checkpoint_path(folder, later).unlink()
    for unfinished in list(folder.glob("*.tmp")) + list((folder / CHECKPOINTS).glob("*.tmp")):
        unfinished.unlink()
    for name in (METRICS, LOSSES):
        if (folder / name).is_file():
            _drop_rows(folder / name, step)


def _drop_rows(path: Path, step: int) -> None:
    """Keep the header and the whole rows up to ``step``, byte by byte."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        first = line.partition(b",")[0]
        if not line.endswith(b"\n") or (first != b"step" and int(first) > step):
            break
        kept.append(line)
    files.write_whole(path, b"".join(kept))
