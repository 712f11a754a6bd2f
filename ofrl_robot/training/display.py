"""Show the progress of a run: a bar in a terminal, lines in a log file."""

from __future__ import annotations

import sys
import time
from typing import Callable, Dict, Optional

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

FIRST_LINE_S = 10.0  # s until a log file gets its first line of progress
LINE_EVERY_S = 60.0  # s between lines of progress at most


class Display:
    """Base of all displays; shows nothing."""

    def start(self, name: str, done: int, total: int) -> None:
        """Begin to show a run that has done ``done`` of ``total`` steps."""

    def say(self, line: str) -> None:
        """Show a line of text."""

    def progress(self, step: int) -> None:
        """Show that ``step`` is done; called after every step."""

    def losses(self, step: int, row: Dict[str, float]) -> None:
        """Show a row of training losses."""

    def checkpoint(self, step: int, metrics: Dict[str, float]) -> None:
        """Show that checkpoint, metrics and state of ``step`` are on disk."""

    def stop(self) -> None:
        """End the display, however training ended."""


def default_display() -> Display:
    """Return a progress bar in a terminal, else a display for log files."""
    return Terminal() if sys.stdout.isatty() else LogLines()


class Terminal(Display):
    """A progress bar with steps/s and ETA, and one line per checkpoint."""

    def __init__(self) -> None:
        self._console = Console()
        self._progress: Optional[Progress] = None
        self._rate = _Rate(time.monotonic)

    def start(self, name: str, done: int, total: int) -> None:
        """Begin to show a run."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),  # fits 80 columns
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self._console,
        )
        self._bar = self._progress.add_task(name, completed=done, total=total, rate="", metrics="")
        self._rate.start(done, total)
        self._progress.start()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def losses(self, step: int, row: Dict[str, float]) -> None:
        """Remember or show a row of losses."""
        if self._progress is not None:
            rate = self._rate.text(step)
            self._progress.update(self._bar, completed=step, rate=rate, metrics=_short(row))

    def checkpoint(self, step: int, metrics: Dict[str, float]) -> None:
        """Print the line of a checkpoint."""
        self.say(f"checkpoint {step:>6}  {self._rate.text(step)}  {_short(metrics)}")

    def stop(self) -> None:
        """Remove the progress bar."""
        if self._progress is not None:
            self._progress.stop()


class LogLines(Display):
    """Lines for a log file: each checkpoint, and at least one per minute with rate and ETA.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = _Rate(clock)
        self._next_line = 0.0
        self._metrics = ""

    def start(self, name: str, done: int, total: int) -> None:
        """Begin to show a run."""
        self._rate.start(done, total)
        self._next_line = self._clock() + FIRST_LINE_S

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

    def progress(self, step: int) -> None:
        """Print a line if it is due."""
        if self._clock() >= self._next_line:
            self._line("step", step, self._metrics)

    def losses(self, step: int, row: Dict[str, float]) -> None:
        """Remember or show a row of losses."""
        self._metrics = _short(row)

    def checkpoint(self, step: int, metrics: Dict[str, float]) -> None:
        """Print the line of a checkpoint."""
        self._line("checkpoint", step, _short(metrics))

    def _line(self, word: str, step: int, metrics: str) -> None:
        rate, left = self._rate.text(step), self._rate.left(step)
        self.say(f"{word} {step:>6} of {self._rate.total}  {rate}  {left} left  {metrics}".rstrip())
        self._next_line = self._clock() + LINE_EVERY_S


class _Rate:
    """Steps per second since the start, probes and checkpoints included."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._done = 0
        self._since = 0.0
        self.total = 0

    def start(self, done: int, total: int) -> None:
        self._done = done
        self.total = total
        self._since = self._clock()

    def per_second(self, step: int) -> float:
        return (step - self._done) / max(self._clock() - self._since, 1e-6)

    def text(self, step: int) -> str:
        return f"{self.per_second(step):.1f} steps/s"

    def left(self, step: int) -> str:
        """Return the expected time to the end, e.g. ``1 h 05 min``."""
        seconds = round((self.total - step) / max(self.per_second(step), 1e-9))
        if seconds >= 3600:
            return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
        return f"{seconds // 60} min {seconds % 60:02} s"


def _short(row: Dict[str, float]) -> str:
    """Return dataset Q, TD error and un-multiplied CQL term, or the losses of imitation."""
    names = (("data_q", "Q"), ("td_error", "TD"), ("cql_term", "CQL"))
    if "data_q" not in row:
        names = (("actor_loss", "loss"), ("data_log_prob", "log pi(data)"))
    return "  ".join(f"{label} {row[k]:.3g}" for k, label in names if k in row)
