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
from ofrl_robot.errors import ConfigError, OfrlError, TrainingError
from ofrl_robot.training.config import RunConfig

if TYPE_CHECKING:
    from ofrl_robot.workflow.sweeps.executors import Executor
    from ofrl_robot.workflow.sweeps.sweep import Point, Result, Table

RAY_THREADS = 2  # of a run on a cluster, whose cores are not known here
# Flags that are the sweep's own, and how many words follow each (None: up to the next flag).
_OWN = {"--vary": None, "--workers": 1, "--ray": 1, "--out": 1, "--name": 1}


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
    """NAME=VALUE,VALUE,... of any setting. true and false are switches, blanks part the entries
    of a list ("hidden=256 256,64 64")."""
    workers: int = 0
    """Runs at a time (0 = one for two cores; with --ray as many as the cluster takes)."""
    ray: str = ""
    """Ray cluster to train on, of the same file system: local, auto, HOST:PORT or
    ray://HOST:PORT (empty = this computer, without Ray)."""
    # The command line itself, which main puts here: each run gets its part as it was typed.
    words: tyro.conf.Suppress[Tuple[str, ...]] = ()

    def run(self) -> None:
        from ofrl_robot.data.episodes.numbering import make_folder
        from ofrl_robot.workflow.sweeps import sweep

        at_least("workers", self.workers, 0)
        points = sweep.grid([axis for axes in self.vary for axis in axes])
        for name in {"out", "name", "resume"}.intersection(points[0].settings):
            raise ConfigError(f"{name} cannot be varied", "the sweep names its runs itself")
        dataset = self.dataset or self.task or Path()  # none at all is refused with the first run
        folder = self.out / (self.name or f"{dataset.resolve().name}-{self.algo}")
        workers, threads = self._divide(len(points))
        runs = [_Run.plan(point, self.words, folder, threads) for point in points]
        todo = [run for run in runs if run.state != sweep.FINISHED]
        for run in todo:
            run.require_data()
        executor = self._executor(todo)
        make_folder(folder)
        results = {run.job.name: run.result() for run in runs}
        if len(todo) < len(runs):
            print(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already")
        with _ends_as_after_ctrl_c():
            for run, error in _made(todo, executor, workers):
                results[run.job.name] = run.result(error)
                sweep.write_table(folder, list(results.values()))
        _show(sweep.write_table(folder, list(results.values())))
        print(f"sweep: {folder}")
        failed = sum(result.verdict == sweep.FAILED for result in results.values())
        if failed:
            raise TrainingError(
                f"{failed} of {len(runs)} runs failed",
                "their logs say more; given again, the sweep tries them again",
                folder,
            )

    def _divide(self, runs: int) -> Tuple[int, int]:
        """Runs at a time and threads of each: together all cores, unless a cluster has them."""
        from ofrl_robot.processes import available_cores

        if self.ray:
            return self.workers or runs, RAY_THREADS
        workers = min(self.workers or max(1, available_cores() // 2), runs)
        return workers, max(1, available_cores() // workers)

    def _executor(self, runs: Sequence["_Run"]) -> "Executor":
        from ofrl_robot.workflow.sweeps.executors import LocalExecutor

        if not self.ray or not runs:
            return LocalExecutor()
        from ofrl_robot.workflow.sweeps.ray_executor import RayExecutor

        settings = [run.config.train for run in runs]
        on_gpu = any(train.device.startswith("cuda") for train in settings)
        return RayExecutor(self.ray, max(train.threads for train in settings), int(on_gpu))


@dataclasses.dataclass(frozen=True)
class _Run:
    """A point of the grid as a run.

    Attributes:
        folder: of the run. state: it is new, unfinished or finished.
    """

    point: "Point"
    config: RunConfig
    folder: Path
    state: str
    job: Any

    @staticmethod
    def plan(point: "Point", words: Sequence[str], out: Path, threads: int) -> "_Run":
        """What is to be done for ``point``, from the words of the sweep.

        Raises ConfigError for settings that `ofrl train` refuses, and where a run of other
        settings lies in the place of this one.
        """
        from ofrl_robot.training import run_folder
        from ofrl_robot.training.loop import require_same_config
        from ofrl_robot.workflow.sweeps import sweep

        folder = out / point.name
        own = ["train"] + _train_words(words[1:]) + point.flags
        try:
            config = _parse(own).config()
            if not config.train.threads:
                # those that a run began with: other ones would round otherwise
                if folder.exists():
                    threads = run_folder.read_config(folder)["train"]["threads"]
                own += ["--threads", str(threads)]
                config = _parse(own).config()
        except OfrlError as error:
            raise ConfigError(str(error), "", point.name) from error
        state = sweep.state(folder, config.train.steps)
        if state != sweep.NEW:
            require_same_config(folder, config, None)
        own += ["--out", str(out), "--name", point.name]
        own += ["--resume"] * (state != sweep.NEW)
        job = sweep.Job(point.name, tuple(own), out / (f"{point.name}.log"))
        return _Run(point, config, folder, state, job)

    def require_data(self) -> None:
        """Raise OfrlError where the data cannot be trained on; builds the frame cache, once."""
        from ofrl_robot.training.data import open_data

        open_data(self.config)

    def result(self, error: str = "") -> "Result":
        """Its row of the table."""
        from ofrl_robot.training import run_folder
        from ofrl_robot.workflow.choose_checkpoint import select_checkpoint
        from ofrl_robot.workflow.sweeps import sweep

        rate = sweep.steps_per_second(self.job.log)
        if error:
            return sweep.Result(self.point, sweep.FAILED, rate=rate, error=error)
        state = sweep.state(self.folder, self.config.train.steps)
        if state != sweep.FINISHED:
            return sweep.Result(self.point, state, rate=rate)
        try:
            diagnosis = select_checkpoint(self.folder)
            rows = run_folder.read_metrics(self.folder)
        except OfrlError as error:
            return sweep.Result(self.point, sweep.FAILED, rate=rate, error=str(error))
        chosen = next(row for row in rows if row["step"] == diagnosis.selected_step)
        return sweep.Result(self.point, diagnosis.verdict, diagnosis.selected_step, chosen, rate)


def _train_words(words: Sequence[str]) -> List[str]:
    """Those of a sweep's words that are meant for `ofrl train`."""
    kept: List[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        flag, has_value, _ = word.partition("=")
        if flag not in _OWN:
            kept.append(word)
            continue
        count = _OWN[flag]
        if count is None:
            while words and not words[0].startswith("-"):
                words.pop(0)
        elif not has_value:
            del words[:count]
    return kept


def _parse(words: Sequence[str]) -> Train:
    """`ofrl train` as it would read these words."""
    return parse_quietly(Train[config_class(algorithm(words))], words[1:])


def _made(runs: Sequence[_Run], executor: "Executor", workers: int) -> Iterator[Tuple[_Run, str]]:
    """Each run when it has ended, with its error; shows how far all of them are."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ofrl_robot.workflow.sweeps import sweep

    by_name = {run.job.name: run for run in runs}
    steps = {run.job.name: sweep.last_step(run.folder) for run in runs}
    bar = Progress(
        TextColumn("sweep"), BarColumn(bar_width=16),
        TextColumn("{task.fields[done]}/{task.fields[runs]} runs"),
        TextColumn("{task.fields[running]} running"),
        TextColumn("step {task.completed}/{task.total}"),
        TextColumn("eta"), TimeRemainingColumn(),
        speed_estimate_period=600.0,  # rows of losses come seldom, from all runs
        disable=not sys.stdout.isatty(),
    )  # fmt: skip
    with bar:
        total = sum(run.config.train.steps for run in runs)
        task = bar.add_task(
            "", total=total, completed=sum(steps.values()), done=0, runs=len(runs), running=0
        )

        def look(running: Sequence[str]) -> None:
            steps.update({name: sweep.last_step(by_name[name].folder) for name in running})
            bar.update(task, completed=sum(steps.values()), running=len(running))

        made = sweep.run_all([run.job for run in runs], executor, workers, look)
        for done, (name, error) in enumerate(made, 1):
            run = by_name[name]
            yield run, error
            steps[name] = run.config.train.steps
            bar.update(task, done=done, completed=sum(steps.values()))
            said = f"{done}/{len(runs)}  {run.result(error).line()}"
            bar.console.print(said, highlight=False, markup=False, soft_wrap=True)


def _show(table: "Table") -> None:
    from rich.console import Console
    from rich.table import Table as Drawn

    drawn = Drawn(*table.names)
    for row in table.texts():
        drawn.add_row(*row)
    # in a file nobody widens the window
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(drawn)
    for name, error in table.errors:
        console.print(f"{name}: {error}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _ends_as_after_ctrl_c() -> Iterator[None]:
    """Have the end of the terminal or session end the runs, too; `nohup` stays what it is."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before: Dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
