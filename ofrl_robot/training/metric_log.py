"""Where scalars go: CSV, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, Dict

from ofrl_robot.errors import ConfigError
from ofrl_robot.training.run_folder import LOSSES, METRICS, CsvLog

WANDB = "wandb.json"  # in a run folder: the id under which W&B knows the run


class WandbLog:
    """A run of Weights & Biases. ``WANDB_MODE=offline`` keeps it on this computer.

    When a run is resumed, W&B passes over the steps that it has; they are the same numbers.
    """

    def __init__(self, folder: Path, project: str, config: Dict[str, Any]) -> None:
        path = folder / WANDB
        if not path.is_file():
            path.write_text(f"{json.dumps({'id': uuid.uuid4().hex})}\n")
        try:
            self._run = import_wandb().init(
                project=project,
                id=json.loads(path.read_text())["id"],
                resume="allow",
                name=folder.name,
                dir=str(folder),
                config=config,
            )
        except Exception as error:  # its own, of any kind: no network, no account
            raise ConfigError(
                "Weights & Biases does not start ({})".format(str(error).partition("\n")[0]),
                "log in with `wandb login` or set WANDB_MODE=offline, then --resume",
            ) from error

    def write(self, step: int, values: Dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def import_wandb() -> Any:
    """The module, or ConfigError where it is not installed."""
    try:
        import wandb

        wandb.init  # noqa: B018 (a folder of that name imports as an empty module)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "Weights & Biases is not installed", "pip install wandb, or leave --wandb away"
        ) from error
    return wandb


class MetricLog:
    """All scalars of a run.

    Args:
        done: steps whose rows are there already; TensorBoard hides what it has of later ones.
        project: of W&B, empty for none.
    """

    def __init__(self, folder: Path, done: int, project: str, config: Dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._wandb = WandbLog(folder, project, config) if project else None
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self._files = {
            "train": CsvLog(folder / LOSSES),
            "probe": CsvLog(folder / METRICS),
        }

    def write(self, kind: str, step: int, values: Dict[str, float]) -> None:
        """A row of ``kind`` "train" (losses of a batch) or "probe"."""
        self._files[kind].write(step, values)
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.write(step, named)

    def flush(self) -> None:
        """Have TensorBoard's rows reach the disk as well."""
        self._board.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.close()
