"""What a sweep has to run: every point of the grid as a run, and what its files say afterwards."""

from __future__ import annotations

import dataclasses
import io
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from ofrl_robot.errors import CheckpointError, ConfigError, OfrlError
from ofrl_robot.processes import available_cores
from ofrl_robot.training import run_folder
from ofrl_robot.training.config import RunConfig
from ofrl_robot.training.data import open_data
from ofrl_robot.training.loop import require_same_config
from ofrl_robot.workflow.choose_checkpoint import select_checkpoint
from ofrl_robot.workflow.flags import to_flags
from ofrl_robot.workflow.sweeps.executors import Executor, LocalExecutor
from ofrl_robot.workflow.sweeps.grid import Point
from ofrl_robot.workflow.sweeps.run_queue import Job
from ofrl_robot.workflow.sweeps.table import FAILED, Result

NEW, UNFINISHED, FINISHED = "new", "unfinished", "finished"
RAY_THREADS = 2  # CPU threads of a run on a cluster, whose cores are not known here
_NOT_VARIED = ("out", "name", "resume")

ReadConfig = Callable[[Sequence[str]], RunConfig]
"""Parses the words of an ``ofrl train`` command line; raises ConfigError for wrong ones."""


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """A point of the grid as a run.

    Attributes:
        config: all its settings.
        folder: run folder.
        state: ``NEW``, ``UNFINISHED`` or ``FINISHED`` when it was planned.
        job: the command that trains it, or goes on with it.
    """

    point: Point
    config: RunConfig
    folder: Path
    state: str
    job: Job

    def require_data(self) -> None:
        """Raise OfrlError if the data cannot be trained on; build the frame cache once."""
        open_data(self.config)

    def result(self, error: str = "") -> Result:
        """Return the row of the table, read from the files of the run folder.

        Args:
            error: why the run failed, or empty.
        """
        rate = steps_per_second(self.folder)
        if error:
            return Result(self.point, FAILED, rate=rate, error=error)
        current = state(self.folder, self.config.train.steps)
        if current != FINISHED:
            return Result(self.point, current, rate=rate)
        try:
            diagnosis = select_checkpoint(self.folder)
            rows = run_folder.read_metrics(self.folder)
        except OfrlError as problem:
            return Result(self.point, FAILED, rate=rate, error=str(problem))
        chosen = next(row for row in rows if row["step"] == diagnosis.selected_step)
        return Result(self.point, diagnosis.verdict, diagnosis.selected_step, chosen, rate)


def plan_runs(
    points: Sequence[Point],
    dataset: Sequence[str],
    base: Dict[str, Any],
    out: Path,
    threads: int,
    read_config: ReadConfig,
) -> Sequence[SweepRun]:
    """Return one run for each point.

    Args:
        dataset: words of the command line that name the dataset.
        base: settings of all runs; those of a point win.
        out: folder of the sweep.
        threads: CPU threads of a run whose settings name none.
        read_config: parser of an ``ofrl train`` command line.

    Raises:
        ConfigError: ``ofrl train`` refuses the settings of a point, or a run folder of other
            settings is in the place of one.
    """
    for name in _NOT_VARIED:
        if name in points[0].texts:
            raise ConfigError(f"{name} cannot be varied", "the sweep names its runs itself")
    return [_plan(point, dataset, base, out, threads, read_config) for point in points]


def _plan(
    point: Point,
    dataset: Sequence[str],
    base: Dict[str, Any],
    out: Path,
    threads: int,
    read_config: ReadConfig,
) -> SweepRun:
    folder = out / point.name
    settings = {**base, **point.settings}
    try:
        config = read_config(["train", *dataset, *to_flags(settings)])
        if not config.train.threads:
            # A run goes on with the threads it began with: others would round differently.
            settings["threads"] = _threads_of(folder) if folder.exists() else threads
            config = read_config(["train", *dataset, *to_flags(settings)])
    except OfrlError as error:
        raise ConfigError(str(error), "", point.name) from error
    found = state(folder, config.train.steps)
    if found != NEW:
        require_same_config(folder, config, None)
    words = ["train", *dataset, *to_flags(settings), "--out", str(out), "--name", point.name]
    if found != NEW:
        words.append("--resume")
    job = Job(point.name, tuple(words), out / f"{point.name}.log")
    return SweepRun(point, config, folder, found, job)


def _threads_of(folder: Path) -> int:
    """Return the CPU threads that the run in ``folder`` began with."""
    try:
        return int(run_folder.read_config(folder)["train"]["threads"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "config.json names no number of threads", "remove the run and train it again", folder
        ) from error


# -- cores -----------------------------------------------------------------------------------


def divide_cores(runs: int, workers: int, on_cluster: bool) -> Tuple[int, int]:
    """Return how many runs train at a time and the CPU threads of each.

    Together they take all cores of this computer. On a cluster all runs start at once, because
    the cluster queues them.

    Args:
        workers: runs at a time that were asked for, 0 for one per two cores.
    """
    if on_cluster:
        return workers or runs, RAY_THREADS
    at_a_time = min(workers or max(1, available_cores() // 2), runs)
    return at_a_time, max(1, available_cores() // at_a_time)


def open_executor(address: str, runs: Sequence[SweepRun]) -> Executor:
    """Return what starts the runs: the Ray cluster at ``address``, or this computer if empty.

    Raises:
        ConfigError: there is no such cluster, or no node of it is large enough for a run.
    """
    if not address or not runs:
        return LocalExecutor()
    from ofrl_robot.workflow.sweeps.ray_executor import RayExecutor

    settings = [run.config.train for run in runs]
    on_gpu = any(train.device.startswith("cuda") for train in settings)
    return RayExecutor(address, max(train.threads for train in settings), int(on_gpu))


# -- files of a run --------------------------------------------------------------------------


def state(folder: Path, steps: int) -> str:
    """Return whether the run of ``steps`` steps in ``folder`` is new, unfinished or finished."""
    if not folder.exists():
        return NEW
    try:
        probed = [row["step"] for row in run_folder.read_metrics(folder)]
    except (CheckpointError, KeyError):
        return UNFINISHED
    saved = run_folder.checkpoint_steps(folder)
    return FINISHED if steps in saved and steps in probed else UNFINISHED


def last_step(folder: Path) -> int:
    """Return the last step with a row in train.csv, 0 before the first; reads 4 kB at most."""
    try:
        with open(folder / run_folder.LOSSES, "rb") as file:
            file.seek(0, io.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().split(b"\n")[:-1]  # what follows the last line end is half a row
    except OSError:
        return 0
    first = lines[-1].partition(b",")[0] if lines else b""
    return int(first) if first.isdigit() else 0


def steps_per_second(folder: Path) -> Optional[float]:
    """Return the median rate between two checkpoints, probes included; None if unknown.

    The times are those of the checkpoint files, so a pause before ``--resume`` is one interval
    and does not move the median of several.
    """
    times = []
    for step in run_folder.checkpoint_steps(folder):
        try:
            modified = run_folder.checkpoint_path(folder, step).stat().st_mtime_ns
        except OSError:
            continue  # removed meanwhile
        times.append((step, modified))
    rates = [
        1e9 * (step - earlier) / (end - start)
        for (earlier, start), (step, end) in zip(times, times[1:])
        if end > start
    ]
    return statistics.median(rates) if rates else None
