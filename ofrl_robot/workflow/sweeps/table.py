"""The table of a sweep: one row per run, as CSV, Markdown and text."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ofrl_robot import files
from ofrl_robot.workflow.sweeps.grid import Point

TABLE = "sweep"  # .csv and .md, in the sweep's folder
FAILED = "failed"  # takes the place of a verdict
# Metrics at the selected checkpoint: of runs that learn values, and of runs that imitate.
METRICS = ("data_q", "td_error", "cql_term", "divergence")
IMITATION_METRICS = ("data_log_prob", "action_mse")


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        verdict: of the diagnosis, or FAILED, or the state of a run that has not ended.
        step: selected checkpoint, None if there is none.
        metrics: probe metrics at that step.
        rate: steps per second, None if unknown.
        error: why it failed, or empty.
    """

    point: Point
    verdict: str
    step: Optional[int] = None
    metrics: Dict[str, float] = dataclasses.field(default_factory=dict)
    rate: Optional[float] = None
    error: str = ""

    def line(self) -> str:
        """Return the row in words."""
        words = [f"{self.verdict}: {self.error}" if self.error else self.verdict]
        if self.step is not None:
            words.append(f"step {self.step}")
        words += [f"{name} {_short(value)}" for name, value in self.compared().items()]
        if self.rate is not None:
            words.append(f"{_short(self.rate)} steps/s")
        return f"{self.point.name}  {'  '.join(words)}"

    def compared(self) -> Dict[str, float]:
        """Return the metrics that runs of this kind are compared by."""
        names = METRICS if METRICS[0] in self.metrics else IMITATION_METRICS
        return {name: self.metrics[name] for name in names if name in self.metrics}


@dataclasses.dataclass(frozen=True)
class Table:
    """The results as columns.

    Attributes:
        names: column names; errors have no column.
        rows: one row per run, None for a value that a run does not have.
        errors: (run, error) of the runs that failed.
    """

    names: List[str]
    rows: List[List[object]]
    errors: List[Tuple[str, str]]

    def texts(self) -> List[List[str]]:
        """Return the rows as text with three digits."""
        return [[_short(value) for value in row] for row in self.rows]

    def markdown(self) -> str:
        """Return the table and the errors as Markdown."""
        lines = [self.names, ["---"] * len(self.names), *self.texts()]
        text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        if self.errors:
            text += "\n" + "".join(f"- {name}: {error}\n" for name, error in self.errors)
        return text


def tabulate(results: Sequence[Result]) -> Table:
    """Return the results with the columns: varied settings, verdict, step, metrics, steps/s.

    A metric that no run has gets no column.
    """
    present = {name for result in results for name in result.compared()}
    metrics = [name for name in METRICS + IMITATION_METRICS if name in present]
    rows: List[List[object]] = []
    for result in results:
        compared = result.compared()
        values = [compared.get(name) for name in metrics]
        settings = result.point.texts.values()
        rows.append([*settings, result.verdict, result.step, *values, result.rate])
    names = [*results[0].point.texts, "verdict", "step", *metrics, "steps/s"]
    errors = [(result.point.name, result.error) for result in results if result.error]
    return Table(names, rows, errors)


def write_table(folder: Path, results: Sequence[Result]) -> Table:
    """Write ``sweep.csv`` (all digits, with the errors) and ``sweep.md`` into ``folder``.

    Raises:
        OutputError: the disk refuses.
    """
    table = tabulate(results)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*table.names, "error"])
    for row, result in zip(table.rows, results):
        writer.writerow([*row, result.error])
    files.write_whole(folder / f"{TABLE}.csv", text.getvalue())
    files.write_whole(folder / f"{TABLE}.md", table.markdown())
    return table


def _short(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.3g}"
    return str(value)
