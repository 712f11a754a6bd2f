"""A sweep: one run for each combination of settings, some at a time, and the table of them all.

Pure but for :func:`run_all`, which starts what it is told to on an
``Executor``. A run is what ``ofrl train`` makes of its flags.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import itertools
import math
import re
import time
from pathlib import Path
from typing import Callable, Deque, Dict, Iterator, List, Optional, Sequence, Tuple

from ofrl_robot import files
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.processes import interrupt_postponed
from ofrl_robot.training import run_folder
from ofrl_robot.workflow.sweeps.executors import PROMPT, Executor

TABLE = "sweep"  # .csv and .md, in the sweep's folder
NEW, UNFINISHED, FINISHED = "new", "unfinished", "finished"
FAILED = "failed"  # in the place of a verdict
# What a run is compared by, at its selected checkpoint: of those that learn values, and of others.
METRICS = ("data_q", "td_error", "cql_term", "divergence")
IMITATION_METRICS = ("data_log_prob", "action_mse")
_POLL = 0.2  # s between two looks at what runs
_LONGEST_NAME = 200  # of a folder; file systems allow 255 with what is added to it


# -- grid ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of a grid: setting -> value, both as typed, names with underscores."""

    settings: Dict[str, str]

    @property
    def name(self) -> str:
        """Of its run folder, e.g. ``cql_weight=5,seed=1``; of characters safe in a file name."""
        named = ",".join("{}={}".format(*pair) for pair in self.settings.items())
        return re.sub(r"[^\w.,=+-]+", "-", named, flags=re.ASCII)

    @property
    def flags(self) -> List[str]:
        """As ``ofrl train`` reads them: true and false are switches, blanks part list entries."""
        flags: List[str] = []
        for name, value in self.settings.items():
            name = name.replace("_", "-")
            if value in ("true", "false"):
                flags.append("--{}{}".format("" if value == "true" else "no-", name))
            else:
                flags += ["--" + name] + value.split()
        return flags


def grid(axes: Sequence[str]) -> List[Point]:
    """All combinations of axes such as ``seed=0,1,2``; the last varies fastest.

    Raises ConfigError for an axis that cannot be read, that is there twice, or that has a value
    twice.
    """
    values: Dict[str, List[str]] = {}
    for axis in axes:
        name, equals, text = axis.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        entries = [" ".join(entry.split()) for entry in text.split(",")]
        if not (name and equals and all(entries)):
            raise ConfigError(
                f"cannot vary {axis!r}", "give NAME=VALUE,VALUE,... such as seed=0,1,2"
            )
        if name in values:
            raise ConfigError(f"{name} is varied twice", "give all values in one place")
        values[name] = entries
    if not values:
        raise ConfigError("nothing to vary", "give --vary NAME=VALUE,VALUE,... such as seed=0,1,2")
    points = [Point(dict(zip(values, chosen))) for chosen in itertools.product(*values.values())]
    counts = collections.Counter(point.name for point in points)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise ConfigError(f"{count} runs would be named {name}", "give each value once")
    longest = max(counts, key=len)
    if len(longest) > _LONGEST_NAME:
        raise ConfigError(
            f"the folder name {longest[:40]}... has {len(longest)} characters",
            f"vary fewer or shorter settings, {_LONGEST_NAME} is the most",
        )
    return points


# -- runs ------------------------------------------------------------------------------------


def state(folder: Path, steps: int) -> str:
    """Whether the run of so many steps in ``folder`` is new, unfinished or finished."""
    if not folder.exists():
        return NEW
    done = run_folder.checkpoint_steps(folder)
    try:
        probed = [int(row["step"]) for row in run_folder.read_metrics(folder)]
    except CheckpointError:
        return UNFINISHED
    return FINISHED if steps in done and steps in probed else UNFINISHED


def last_step(folder: Path) -> int:
    """The last step of which losses were written, 0 before the first; cheap."""
    try:
        with open(str(folder / run_folder.LOSSES), "rb") as file:
            file.seek(0, io.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().split(b"\n")[:-1]  # what follows the last line end is half a row
    except OSError:
        return 0
    first = lines[-1].partition(b",")[0] if lines else b""
    return int(first) if first.isdigit() else 0


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is to be made: flags after ``ofrl``, and the file that its output is added to."""

    name: str
    words: Tuple[str, ...]
    log: Path


def run_all(
    jobs: Sequence[Job],
    executor: Executor,
    workers: int,
    on_poll: Callable[[Sequence[str]], None],
) -> Iterator[Tuple[str, str]]:
    """Run all jobs, ``workers`` at a time; gives (name, how it ended) of each, "" for well.

    To be used in the main thread. However it ends, Ctrl-C included, no run is left running.

    Args:
        on_poll: called several times a second with the names of those at work.
    """
    waiting: Deque[Job] = collections.deque(jobs)
    running: Dict[str, Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.popleft()
                running[job.name] = job
                executor.submit(job.name, job.words, job.log)
            for name, ending in executor.ended().items():
                job = running.pop(name)
                yield name, error_text(job.log, ending) if ending else ""
            on_poll(list(running))
            if running:
                time.sleep(_POLL)
    finally:
        with interrupt_postponed():
            executor.close()


def error_text(log: Path, ending: str) -> str:
    """Why a run failed, on one line: its own last word, else how its process ended."""
    latest = _text(log).rpartition("\n" + PROMPT)[2]
    lines = [line.strip() for line in latest.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("ofrl: ")]
    if own:
        return own[-1][len("ofrl: ") :]
    return "{}{}".format(ending, "; last line: " + lines[-1] if lines else "")


def steps_per_second(log: Path) -> Optional[float]:
    """As the run last said it, probes and checkpoints included."""
    said = re.findall(r"([\d.]+) steps/s", _text(log))
    return float(said[-1]) if said else None


def _text(log: Path) -> str:
    """The end of a run's output."""
    try:
        with open(str(log), "rb") as file:
            file.seek(0, io.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


# -- table -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        verdict: of the diagnosis, or FAILED, or the state of a run that has not ended.
        step: of the selected checkpoint, None where none is.
        metrics: probe metrics at that step.
        rate: steps per second, None where unknown.
        error: why it failed.
    """

    point: Point
    verdict: str
    step: Optional[int] = None
    metrics: Dict[str, float] = dataclasses.field(default_factory=dict)
    rate: Optional[float] = None
    error: str = ""

    def line(self) -> str:
        """The same in words."""
        words = [self.verdict + (": " + self.error if self.error else "")]
        if self.step is not None:
            words.append(f"step {self.step}")
        words += [f"{k} {_short(v)}" for k, v in _compared(self).items()]
        if self.rate is not None:
            words.append(f"{_short(self.rate)} steps/s")
        return "{}  {}".format(self.point.name, "  ".join(words))


@dataclasses.dataclass(frozen=True)
class Table:
    """The results as columns.

    Attributes:
        names: of the columns; errors are not among them.
        rows: one a run, None where a run has no such value.
        errors: (run, error) of those that failed.
    """

    names: List[str]
    rows: List[List[object]]
    errors: List[Tuple[str, str]]

    def texts(self) -> List[List[str]]:
        """The rows for people: three digits."""
        return [[_short(value) for value in row] for row in self.rows]

    def markdown(self) -> str:
        lines = [self.names, ["---"] * len(self.names)] + self.texts()
        text = "".join("| {} |\n".format(" | ".join(line)) for line in lines)
        if self.errors:
            text += "\n" + "".join("- {}: {}\n".format(*pair) for pair in self.errors)
        return text


def tabulate(results: Sequence[Result]) -> Table:
    """Columns: what was varied, verdict, step, the metrics that any run has, steps/s."""
    varied = list(results[0].point.settings)
    metrics = [
        name
        for names in (METRICS, IMITATION_METRICS)
        for name in names
        if any(name in _compared(result) for result in results)
    ]
    rows = [
        [
            *result.point.settings.values(),
            result.verdict,
            result.step,
            *(_compared(result).get(name) for name in metrics),
            result.rate,
        ]
        for result in results
    ]
    errors = [(result.point.name, result.error) for result in results if result.error]
    return Table(varied + ["verdict", "step"] + metrics + ["steps/s"], rows, errors)


def _compared(result: Result) -> Dict[str, float]:
    names = METRICS if METRICS[0] in result.metrics else IMITATION_METRICS
    return {name: result.metrics[name] for name in names if name in result.metrics}


def write_table(folder: Path, results: Sequence[Result]) -> Table:
    """Put ``sweep.csv`` (all digits, with the errors) and ``sweep.md`` into ``folder``."""
    table = tabulate(results)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(table.names + ["error"])
    for row, result in zip(table.rows, results):
        writer.writerow(row + [result.error])
    for suffix, content in ((".csv", text.getvalue()), (".md", table.markdown())):
        path = folder / (TABLE + suffix)
        temporary = path.with_name(path.name + ".tmp")
        try:
            with open(str(temporary), "w", newline="") as file:
                file.write(content)
            files.replace(temporary, path)
        except OSError as error:
            raise ConfigError(
                f"cannot be written ({error.strerror})", "free space, run it again", path
            ) from error
    return table


def _short(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.3g}"
    return str(value)
