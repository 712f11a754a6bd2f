"""The folder of one run: ``config.json, metrics.csv, train.csv, tensorboard/, checkpoints/``.

A run that exists is never written over.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, TextIO

from ofrl_robot.errors import CheckpointError, ConfigError

CONFIG, METRICS, LOSSES, CHECKPOINTS, REPORT = (
    "config.json",
    "metrics.csv",  # probe metrics, one row a checkpoint: what the verdict reads
    "train.csv",  # minibatch losses, one row per log_every steps
    "checkpoints",
    "report",
)


def create_run(folder: Path, config: Dict[str, Any]) -> None:
    """Make a new run folder with its config. Raises ConfigError when it exists."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        (folder / CHECKPOINTS).mkdir()
    except FileExistsError as error:
        raise ConfigError(
            "the run exists already", "choose another --name or remove it", folder
        ) from error
    except OSError as error:
        raise ConfigError(
            "cannot make the run folder ({})".format(error.strerror), "choose another --out", folder
        ) from error
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: Path) -> Dict[str, Any]:
    """config.json of a run. Raises CheckpointError when ``folder`` is no run."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError("no config.json, so not a run folder", "check the path", folder)
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError("damaged ({})".format(error), "train again", path) from error


def read_metrics(folder: Path, name: str = METRICS) -> List[Dict[str, float]]:
    """Rows of a metrics file, as floats. Raises CheckpointError when missing or damaged."""
    read_config(folder)
    path = folder / name
    if not path.is_file():
        raise CheckpointError("no {} yet".format(name), "train first", folder)
    with open(str(path), newline="") as file:
        try:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        except (TypeError, ValueError) as error:
            raise CheckpointError("damaged ({})".format(error), "train again", path) from error


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / CHECKPOINTS / "step_{:07d}.safetensors".format(step)


def checkpoint_steps(folder: Path) -> List[int]:
    """Steps of all kept checkpoints, ascending."""
    names = (folder / CHECKPOINTS).glob("step_*.safetensors")
    return sorted(int(p.stem.split("_")[1]) for p in names)


class CsvLog:
    """Appends rows of scalars to a CSV file and to TensorBoard; every row reaches the disk."""

    def __init__(self, path: Path, board: Optional[Any] = None, prefix: str = "") -> None:
        self._file: TextIO = open(str(path), "w", newline="")  # noqa: SIM115 (closed by close)
        self._writer: Optional[csv.DictWriter] = None
        self._board, self._prefix = board, prefix

    def write(self, step: int, values: Dict[str, float]) -> None:
        row = {"step": step, **values}
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row))
            self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(self._prefix + name, value, step)

    def close(self) -> None:
        self._file.close()
