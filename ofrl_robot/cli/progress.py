"""What verbs share: checks of numbers, progress bars, closing lines."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

from ofrl_robot.errors import ConfigError


def at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(f"{name} {value} is below {low}")


def with_progress(record: Callable[..., None], out: Path, count: int, seed: int, meta: Any) -> int:
    """Record episodes with a progress bar; returns how many of them succeeded.

    Args:
        record: called as (out, count, seed, meta, on_episode).
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ofrl_robot.data.episodes.recover import unfinished_line

    if unfinished_line(out):
        print(f"ofrl: {unfinished_line(out)}", file=sys.stderr)
    successes, start = 0, time.monotonic()
    bar = Progress(TextColumn("episodes"), BarColumn(bar_width=16),
                   TextColumn("{task.completed}/{task.total} saved"),
                   TextColumn("{task.fields[successes]} successes"),
                   TextColumn("{task.fields[rate]:.1f}/s"), TextColumn("eta"),
                   TimeRemainingColumn())  # fmt: skip
    with bar:
        task = bar.add_task("", total=count, successes=0, rate=0.0)

        def saved(done: int, label: int) -> None:
            nonlocal successes
            successes += label == 1
            rate = done / (time.monotonic() - start)
            bar.update(task, completed=done, successes=successes, rate=rate)

        record(out, count, seed, meta, saved)
    return successes


@contextlib.contextmanager
def file_bar(word: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that goes when it is done; yields a function of (files done, files)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(word), BarColumn(bar_width=16), TextColumn("{task.completed}/{task.total}")
    columns += TextColumn("eta"), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_dry_run(done: bool) -> None:
    if not done:
        print("nothing was changed; --yes does it")


def print_total(folder: Path) -> None:
    """The count that lies on disk."""
    from ofrl_robot.evaluation.trials import report_trials

    print(f"{folder}: {report_trials(folder).line()}")
