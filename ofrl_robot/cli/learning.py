"""Define the verbs that learn and judge: train, diagnose, report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Generic, Optional, Sequence, Tuple, TypeVar

import tyro
from typing_extensions import Annotated

from ofrl_robot.algos.configs.base import AlgoConfig
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.training.config import RunConfig, TrainConfig

Positional = tyro.conf.Positional
Hyper = TypeVar("Hyper", bound=AlgoConfig)
DEFAULT_ALGO = "cql"


def algorithm(argv: Sequence[str]) -> str:
    """Return the algorithm that the words of a command line name."""
    algo = DEFAULT_ALGO
    for word, following in zip(argv, list(argv[1:]) + [""]):
        if word == "--algo":
            algo = following
        elif word.startswith("--algo="):
            algo = word[len("--algo=") :]
    return algo


@dataclasses.dataclass(frozen=True)
class Train(Generic[Hyper]):
    """Train on a dataset and write a run folder; ends with the diagnosis.

    `--algo NAME --help-all` shows the settings of that algorithm; another algorithm's are refused.
    `--config FILE` takes settings from a YAML file; flags on the command line win.
    `--resume RUN` continues a run with the settings that it began with.
    """

    algo_config: Hyper
    nets: NetConfig
    train: TrainConfig
    dataset: Positional[Annotated[Optional[Path], tyro.conf.arg(metavar="DATASET")]] = None
    """Dataset folder."""
    algo: str = DEFAULT_ALGO
    """Algorithm: bc, cql or brac."""
    prior: Annotated[Optional[Path], tyro.conf.arg(metavar="PATH")] = None
    """Dataset folder of other tasks to train on as well; its rewards count as 0."""
    out: Path = Path("runs")
    """Folder of all runs."""
    name: str = ""
    """Name of this run, a folder in --out (default: <dataset>-<algo>)."""
    resume: bool = False
    """Continue a run from its last checkpoint. `--resume RUN` takes its settings, too; flags given
    besides must agree with them, except for more --steps."""

    def run(self) -> None:
        """Train, diagnose, and print the verdict."""
        from ofrl_robot.training.distributed import train_distributed
        from ofrl_robot.workflow.choose_checkpoint import select_checkpoint, verdict_lines

        config = self.config()
        name = self.name or f"{config.dataset.resolve().name}-{self.algo}"
        folder = self.out / require_folder_name(name)
        if train_distributed(config, folder, self.resume):
            print(f"run: {folder}")
            print("\n".join(verdict_lines(folder, select_checkpoint(folder))))

    def config(self) -> RunConfig:
        """Return the settings of the run. Raises ConfigError for settings that exclude others."""
        if self.dataset is None:
            raise ConfigError("there is no dataset to train on", "give its folder")
        return RunConfig(
            self.dataset, self.algo, self.algo_config, self.nets, self.train, self.prior
        )


def require_folder_name(name: str) -> str:
    """Return ``name``. Raises ConfigError unless it names a folder directly in another one."""
    if name in (".", "..") or "/" in name or "\0" in name:
        raise ConfigError(
            f"name {name!r} is not the name of a folder", "give a plain name; --out is the place"
        )
    return name


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """Judge a run (overfit, underfit or good) and choose the checkpoint to deploy."""

    run_folder: Positional[Path]
    """Run folder written by `ofrl train`."""

    def run(self) -> None:
        """Diagnose the run and print the verdict."""
        from ofrl_robot.workflow.choose_checkpoint import select_checkpoint, verdict_lines

        print("\n".join(verdict_lines(self.run_folder, select_checkpoint(self.run_folder))))


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page: curves, verdict, trials with film strips."""

    run_folder: Positional[Path]
    """Run folder written by `ofrl train`."""
    trials: Tuple[Path, ...] = ()
    """Folders of recorded trials to set beside the verdict."""
    out: Optional[Path] = None
    """File to write (default: <run>/report/report.html)."""
    compare: Tuple[Path, ...] = ()
    """Other run folders, to set their verdicts and errors beside this run's."""

    def run(self) -> None:
        """Write the page and print its place."""
        from ofrl_robot.pages.run_report import write_report

        print(f"report: {write_report(self.run_folder, self.trials, self.out, self.compare)}")
