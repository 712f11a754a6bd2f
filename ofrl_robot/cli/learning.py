"""Verbs that learn and judge: train, diagnose, report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Generic, Optional, Sequence, Tuple, TypeVar

import tyro
from typing_extensions import Annotated

from ofrl_robot.algos.config import AlgoConfig
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.training.config import RunConfig, TrainConfig

Positional = tyro.conf.Positional
Hyper = TypeVar("Hyper", bound=AlgoConfig)
DEFAULT_ALGO = "cql"


def algorithm(argv: Sequence[str]) -> str:
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

    `--algo NAME --help` shows the settings of that algorithm; another algorithm's are refused.
    `--config FILE` takes settings from a YAML file; flags on the command line win.
    """

    algo_config: Hyper
    nets: NetConfig
    train: TrainConfig
    dataset: Positional[Annotated[Optional[Path], tyro.conf.arg(metavar="DATASET")]] = None
    """Dataset folder."""
    algo: str = DEFAULT_ALGO
    """Algorithm: bc, cql or brac."""
    task: Annotated[Optional[Path], tyro.conf.arg(metavar="PATH")] = None
    """The same as DATASET, where it is named beside --prior."""
    prior: Annotated[Optional[Path], tyro.conf.arg(metavar="PATH")] = None
    """Dataset folder of other tasks to train on as well; its rewards count as 0."""
    out: Path = Path("runs")
    """Folder of all runs."""
    name: str = ""
    """Name of this run (default: <dataset>-<algo>)."""
    resume: bool = False
    """Go on with this run from its last checkpoint; give it the flags that it began with."""

    def run(self) -> None:
        from ofrl_robot.training.distributed import train
        from ofrl_robot.workflow.choose_checkpoint import select_checkpoint, verdict_lines

        config = self.config()
        name = self.name or f"{config.dataset.resolve().name}-{self.algo}"
        folder = self.out / name
        if train(config, folder, self.resume):
            print(f"run: {folder}")
            print("\n".join(verdict_lines(folder, select_checkpoint(folder))))

    def config(self) -> RunConfig:
        """Raises ConfigError for flags that exclude each other."""
        if self.dataset is not None and self.task is not None:
            raise ConfigError("a dataset and --task name the same thing", "give one of them")
        dataset = self.dataset or self.task
        if dataset is None:
            raise ConfigError("no dataset to train on", "give its folder")
        return RunConfig(dataset, self.algo, self.algo_config, self.nets, self.train, self.prior)


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """Verdict on a run (overfit, underfit or good) and the checkpoint that deployment takes."""

    run_folder: Positional[Path]
    """Run folder written by `ofrl train`."""

    def run(self) -> None:
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
        from ofrl_robot.pages.run_report import write_report

        print(f"report: {write_report(self.run_folder, self.trials, self.out, self.compare)}")
