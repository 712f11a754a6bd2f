"""Write scalars to CSV, TensorBoard and Weights & Biases."""

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

    When a run is resumed, W&B skips the steps that it has; they are the same numbers.

    Args:
        folder: of the run.
        project: W&B project.
        config: settings to show there.

    Raises:
        ConfigError: W&B is not installed or does not start.
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
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"Weights & Biases does not start ({reason})",
                "log in with `wandb login` or set WANDB_MODE=offline, then --resume",
            ) from error

    def write(self, step: int, values: Dict[str, float]) -> None:
        """Log the scalars of a step."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Finish the W&B run."""
        self._run.finish()


def import_wandb() -> Any:
    """Return the module wandb. Raises ConfigError if it is not installed."""
    try:
        import wandb

        wandb.init  # noqa: B018 (a folder of that name imports as an empty module)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "Weights & Biases is not installed", "pip install wandb, or drop --wandb"
        ) from error
    return wandb


def number_event_files(folder: Path) -> None:
    """Rename event files to their number, so that TensorBoard reads them before a new one.

    It reads files in the order of their names. Those end in second, host, process and a
    counter without leading zeros, so two runs in one second may come in the wrong order.
    """
    for number, path in enumerate(sorted(folder.glob("events.out.tfevents.*"))):
        path.replace(folder / f"events.out.tfevents.{number:010d}")


class MetricLog:
    """Writes all scalars of a run.

    Args:
        folder: of the run.
        done: steps whose rows are there already; TensorBoard hides what it has of later ones.
        project: of W&B, empty for none.
        config: settings to show in W&B.
    """

    def __init__(self, folder: Path, done: int, project: str, config: Dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._wandb = WandbLog(folder, project, config) if project else None
        number_event_files(folder / "tensorboard")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self._files = {
            "train": CsvLog(folder / LOSSES),
            "probe": CsvLog(folder / METRICS),
        }

    def write(self, kind: str, step: int, values: Dict[str, float]) -> None:
        """Write a row of ``kind`` "train" (losses of a batch) or "probe"."""
        self._files[kind].write(step, values)
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.write(step, named)

    def flush(self) -> None:
        """Write TensorBoard's rows to disk."""
        self._board.flush()

    def close(self) -> None:
        """Close all logs."""
        for file in self._files.values():
            file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.close()
