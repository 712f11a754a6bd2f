"""The verb that trains many times: sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Sequence, Tuple

import tyro

from ofrl_robot.algos.registry import config_class
from ofrl_robot.cli.learning import Hyper, Train, algorithm
from ofrl_robot.cli.parsing import parse_quietly
from ofrl_robot.cli.progress import at_least
from ofrl_robot.errors import ConfigError, TrainingError
from ofrl_robot.training.config import RunConfig

if TYPE_CHECKING:
    from ofrl_robot.workflow.sweeps.executors import Executor
    from ofrl_robot.workflow.sweeps.plan import SweepRun
    from ofrl_robot.workflow.sweeps.table import Table

TABLE_WIDTH = 200  # columns of the table when the output is no terminal
SPEED_SECONDS = 600.0  # span of the estimate of the time left; rows of losses are far apart


@dataclasses.dataclass(frozen=True)
class Sweep(Train[Hyper]):
    """Train once for every combination of settings, several at a time; ends with a table.

    `--vary seed=0,1,2 --vary cql-weight=1,5` makes six runs, each in a folder named by its
    settings. The flags of `ofrl train` hold for all runs. Given again, it goes on: finished runs
    stay as they are, others go on from their last checkpoint.
    """

    out: Path = Path("runs/sweeps")
    """Folder of all sweeps."""
    name: str = ""
    """Name of this sweep (default: <dataset>-<algo>)."""
    resume: tyro.conf.Suppress[bool] = False
    vary: tyro.conf.UseAppendAction[Tuple[Tuple[str, ...], ...]] = ()
    """NAME=VALUE,VALUE,... of any setting. true and false are switches; blanks separate the
    entries of a list ("hidden=256 256,64 64")."""
    workers: int = 0
    """Runs at a time (0 = one for two cores; with --ray as many as the cluster takes)."""
    ray: str = ""
    """Ray cluster to train on, of the same file system: local, auto, HOST:PORT or
    ray://HOST:PORT (empty = this computer, without Ray)."""

    def run(self) -> None:
        """Train all runs that are not finished, and print the table of all runs."""
        from ofrl_robot.files import make_folder
        from ofrl_robot.workflow.sweeps import plan
        from ofrl_robot.workflow.sweeps.grid import grid
        from ofrl_robot.workflow.sweeps.table import FAILED, write_table

        at_least("workers", self.workers, 0)
        points = grid([axis for axes in self.vary for axis in axes])
        dataset = self._dataset()
        folder = self.out / (self.name or f"{dataset.resolve().name}-{self.algo}")
        workers, threads = plan.divide_cores(len(points), self.workers, bool(self.ray))
        runs = plan.plan_runs(
            points, [str(dataset)], self._settings(), folder, threads, _read_config
        )
        todo = [run for run in runs if run.state != plan.FINISHED]
        for run in todo:
            run.require_data()
        executor = plan.open_executor(self.ray, todo)
        make_folder(folder)
        results = {run.job.name: run.result() for run in runs}
        if len(todo) < len(runs):
            print(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already")
        with _sigterm_as_ctrl_c():
            for run, error in _train(todo, executor, workers):
                results[run.job.name] = run.result(error)
                write_table(folder, list(results.values()))
        _show(write_table(folder, list(results.values())))
        print(f"sweep: {folder}")
        failed = sum(result.verdict == FAILED for result in results.values())
        if failed:
            raise TrainingError(
                f"{failed} of {len(runs)} runs failed",
                "read their logs; the same command trains them again",
                folder,
            )

    def _dataset(self) -> Path:
        if self.dataset is None:
            raise ConfigError("there is no dataset to train on", "give its folder")
        return self.dataset

    def _settings(self) -> Dict[str, Any]:
        """Return the settings of all runs that differ from their defaults."""
        from ofrl_robot.workflow.flags import changed_settings

        settings: Dict[str, Any] = {"algo": self.algo}
        if self.prior is not None:
            settings["prior"] = self.prior
        for part in (self.algo_config, self.nets, self.train):
            settings.update(changed_settings(part))
        return settings


def _read_config(words: Sequence[str]) -> RunConfig:
    """Return the settings that `ofrl train` reads from these words."""
    train = parse_quietly(Train[config_class(algorithm(words))], words[1:])  # type: ignore[misc]
    return train.config()


def _train(
    runs: Sequence["SweepRun"], executor: "Executor", workers: int
) -> Iterator[Tuple["SweepRun", str]]:
    """Yield each run with its error when it has ended; show the progress of all of them."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ofrl_robot.workflow.sweeps.plan import last_step
    from ofrl_robot.workflow.sweeps.run_queue import run_all

    by_name = {run.job.name: run for run in runs}
    steps = {run.job.name: last_step(run.folder) for run in runs}
    total = sum(run.config.train.steps for run in runs)
    progress = Progress(
        TextColumn("sweep"),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[done]}/{task.fields[runs]} runs"),
        TextColumn("{task.fields[running]} running"),
        TextColumn("step {task.completed}/{task.total}"),
        TextColumn("eta"),
        TimeRemainingColumn(),
        speed_estimate_period=SPEED_SECONDS,
        disable=not sys.stdout.isatty(),
    )
    with progress:
        bar = progress.add_task(
            "", total=total, completed=sum(steps.values()), done=0, runs=len(runs), running=0
        )

        def show_steps(running: Sequence[str]) -> None:
            for name in running:
                steps[name] = last_step(by_name[name].folder)
            progress.update(bar, completed=sum(steps.values()), running=len(running))

        jobs = [run.job for run in runs]
        for done, (name, error) in enumerate(run_all(jobs, executor, workers, show_steps), 1):
            run = by_name[name]
            yield run, error
            steps[name] = run.config.train.steps
            progress.update(bar, done=done, completed=sum(steps.values()))
            line = f"{done}/{len(runs)}  {run.result(error).line()}"
            progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show(table: "Table") -> None:
    from rich import table as rich_table
    from rich.console import Console

    drawn = rich_table.Table(*table.names)
    for row in table.texts():
        drawn.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(drawn)
    for name, error in table.errors:
        console.print(f"{name}: {error}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the sweep and its runs as Ctrl-C does; `nohup` still works."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before: List[Tuple[int, Any]] = []
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                before.append((number, signal.signal(number, interrupt)))
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
