"""What a run shows while it trains."""

from __future__ import annotations

import time
from typing import Dict, Optional

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """Shows nothing. Base of all that a run tells where it stands."""

    def start(self, name: str, done: int, total: int) -> None:
        """Training begins after step ``done`` of ``total``."""

    def say(self, line: str) -> None:
        """Something worth a line."""

    def losses(self, step: int, row: Dict[str, float]) -> None:
        """A row of training losses."""

    def checkpoint(self, step: int, metrics: Dict[str, float]) -> None:
        """Checkpoint, metrics and resume state of ``step`` are on disk. May raise to end it."""

    def stop(self) -> None:
        """Training has ended, however it did."""


class Terminal(Display):
    """A progress bar with steps/s and ETA; a line a checkpoint, all that a log file shows."""

    def __init__(self) -> None:
        self._console = Console()
        self._progress: Optional[Progress] = None
        self._done, self._since = 0, 0.0

    def start(self, name: str, done: int, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=8),  # fits 80 columns
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[rate]}"), TextColumn("eta"),
            TimeRemainingColumn(), TextColumn("{task.fields[metrics]}"),
            console=self._console,
        )  # fmt: skip
        self._bar = self._progress.add_task(name, completed=done, total=total, rate="", metrics="")
        self._done, self._since = done, time.monotonic()
        self._progress.start()

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def losses(self, step: int, row: Dict[str, float]) -> None:
        self._progress.update(self._bar, completed=step, rate=self._rate(step), metrics=_short(row))

    def checkpoint(self, step: int, metrics: Dict[str, float]) -> None:
        self.say("  ".join((f"checkpoint {step:>6}", self._rate(step), _short(metrics))))

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _rate(self, step: int) -> str:
        """Since the start, probes and checkpoints included."""
        seconds = max(time.monotonic() - self._since, 1e-6)
        return f"{(step - self._done) / seconds:.1f} steps/s"


def _short(row: Dict[str, float]) -> str:
    """Dataset Q, TD error and un-multiplied CQL term, or what imitation has instead."""
    names = (("data_q", "Q"), ("td_error", "TD"), ("cql_term", "CQL"))
    if "data_q" not in row:
        names = (("actor_loss", "loss"), ("data_log_prob", "log pi(data)"))
    return "  ".join(f"{label} {row[k]:.3g}" for k, label in names if k in row)
