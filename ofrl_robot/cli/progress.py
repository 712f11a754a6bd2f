"""Checks of settings, progress bars and closing lines that several verbs share."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

from ofrl_robot.cli.output import complain
from ofrl_robot.errors import ConfigError

MAX_SEED = 2**32 - 1  # the largest that numpy's global generator takes, which roboverse uses


def at_least(name: str, value: int, low: int) -> None:
    """Raise ConfigError when ``value`` is below ``low``."""
    if value < low:
        raise ConfigError(f"{name} {value} is below {low}", f"use {low} or more")


def require_seeds(seed: int, episodes: int) -> None:
    """Check the seeds of consecutive episodes.

    Args:
        seed: seed of the first episode; each following one has the next number.
        episodes: how many there are.

    Raises:
        ConfigError: one of them is below 0 or above ``MAX_SEED``.
    """
    at_least("seed", seed, 0)
    if seed + episodes - 1 > MAX_SEED:
        raise ConfigError(
            f"seed {seed} of {episodes} episodes leads beyond {MAX_SEED}",
            f"use {MAX_SEED - episodes + 1} or less",
        )


def require_text(name: str, value: str) -> None:
    """Raise ConfigError when ``value`` has characters that cannot be stored in an episode."""
    if not value.isprintable():  # control characters, halves of surrogate pairs
        raise ConfigError(f"{name} {value!a} is not plain text", "use letters, digits and spaces")


def with_progress(record: Callable[..., None], out: Path, count: int, seed: int, meta: Any) -> int:
    """Record episodes with a progress bar and return how many of them succeeded.

    Args:
        record: called as (out, count, seed, meta, on_episode).
        out: dataset folder.
        count: episodes to record.
        seed: seed of the first one.
        meta: metadata of the episodes.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ofrl_robot.data.episodes.recover import unfinished_line

    if unfinished_line(out):
        complain(unfinished_line(out))
    successes = 0
    start = time.monotonic()
    bar = Progress(
        TextColumn("episodes"),
        BarColumn(bar_width=16),
        TextColumn("{task.completed}/{task.total} saved"),
        TextColumn("{task.fields[successes]} successes"),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
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
    """Show a progress bar until the block ends; yield a function of (files done, files)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn(word),
        BarColumn(bar_width=16),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("eta"),
        TimeRemainingColumn(),
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_dry_run(done: bool) -> None:
    """Print how to carry out a change that was only shown."""
    if not done:
        print("nothing was changed; --yes does it")


def print_total(folder: Path) -> None:
    """Print k/n of all episodes in a folder, a line for each set of conditions."""
    from ofrl_robot.evaluation.trials import report_groups

    for report in report_groups(folder):
        print(f"{folder}: {report.line()}")
        if report.picture_line():
            print(report.picture_line())
