"""The report on a verified dataset: as text for people, as JSON for programs."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.timing import CameraTiming, EpisodeTiming
from ofrl_robot.data.verify.episode_check import DAMAGE, WARNING, EpisodeCheck, Finding
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import DatasetError

SHOWN = 5  # findings of one kind that the text lists; JSON has all


@dataclasses.dataclass
class Verification:
    """What was found in a dataset.

    Attributes:
        folder: where it lies. limits: what was taken for normal.
        episodes: one entry a file, in order.
        findings: of all files, then of the dataset as a whole.
        seconds: that it took.
    """

    folder: Path
    limits: QualityLimits
    episodes: List[EpisodeCheck]
    findings: List[Finding]
    seconds: float

    def of_level(self, level: str) -> List[Finding]:
        return [finding for finding in self.findings if finding.level == level]

    @property
    def bytes(self) -> int:
        return sum(episode.bytes for episode in self.episodes)

    def verdict(self) -> str:
        """One line: how many files are damaged, how many warnings there are."""
        files = len({finding.file for finding in self.of_level(DAMAGE)})
        warnings = len(self.of_level(WARNING))
        return "{}, {}".format(
            "damage in {}".format(_count(files, "file")) if files else "no damage",
            _count(warnings, "warning"),
        )

    def to_dict(self) -> Dict[str, Any]:
        """For JSON; a limit that is infinite, so none, is None."""
        limits = {k: v if v < np.inf else None for k, v in vars(self.limits).items()}
        return dict(dataclasses.asdict(self), folder=str(self.folder), limits=limits)

    def lines(self) -> List[str]:
        """The report for people: counts, timing, findings, verdict."""
        labels = collections.Counter(e.success for e in self.episodes if e.steps)
        rates = len(self.episodes) / self.seconds, self.bytes * 1e-6 / self.seconds
        damage, warnings = self.of_level(DAMAGE), self.of_level(WARNING)
        return [
            "{}: {} episodes, {} transitions, {:.1f} MB; {}".format(
                self.folder, len(self.episodes), sum(e.steps for e in self.episodes),
                self.bytes * 1e-6,
                ", ".join(f"{labels[k]} {v}" for k, v in schema.LABEL_NAMES.items()),
            ),
            *_timing_table([e for e in self.episodes if e.timing], self.limits),
            *_finding_lines(damage + warnings),
            "checked in {:.1f} s ({:.0f} files/s, {:.0f} MB/s)".format(self.seconds, *rates),
            self.verdict(),
        ]  # fmt: skip


def write_json(verification: Verification, path: Path) -> None:
    """Write all of it as JSON. Raises DatasetError when that cannot be."""
    try:
        path.write_text(f"{json.dumps(verification.to_dict(), indent=1, default=float)}\n")
    except OSError as error:
        raise DatasetError(
            f"cannot be written ({error.strerror})", "choose another --json", path
        ) from error


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _finding_lines(findings: List[Finding]) -> Iterator[str]:
    groups: Dict[Tuple[str, str], List[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.kind), []).append(finding)
    for (level, kind), group in groups.items():
        for finding in group[:SHOWN]:
            yield f"{level} ({kind}) {finding.file}: {finding.text}"
        if len(group) > SHOWN:
            yield f"{level} ({kind}) and {len(group) - SHOWN} more; --json FILE lists all"


@dataclasses.dataclass(frozen=True)
class _Row:
    """A number of every episode: its name, how to get it, its limit, and how bad a value is."""

    title: str
    value: Callable[[EpisodeTiming], Optional[float]]
    limit: str = ""
    badness: Callable[[EpisodeTiming, float], float] = lambda timing, value: value


def _timing_table(episodes: List[EpisodeCheck], limits: QualityLimits) -> Iterator[str]:
    """Aligned rows: median over the episodes, the worst and where, the limit."""
    cameras = sorted({name for e in episodes for name in e.timing.cameras})
    rows = [("timing", "median", "worst", "limit", "worst in")]
    for row in _rows(cameras, limits):
        found = [(row.value(e.timing), e) for e in episodes]
        known = [(value, e) for value, e in found if value is not None]
        if known:
            worst, where = max(known, key=lambda pair: row.badness(pair[1].timing, pair[0]))
            median = float(np.median([value for value, _ in known]))
            numbers = f"{median:.4g}", f"{worst:.4g}"
            rows.append((row.title, *numbers, row.limit, where.file if worst != median else ""))
    if len(rows) == 1:
        return
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    for row in rows:
        numbers = (text.rjust(width) for text, width in zip(row[1:4], widths[1:]))
        yield "  ".join([row[0].ljust(widths[0]), *numbers, row[4]]).rstrip()


def _rows(cameras: List[str], limits: QualityLimits) -> Iterator[_Row]:
    yield _Row(
        "rate (Hz)",
        lambda t: t.rate_hz,
        f"+-{100 * limits.rate_tolerance:g} %",
        lambda t, value: abs(value / t.nominal_hz - 1),
    )
    yield _Row("tick interval, p95 (ms)", lambda t: t.interval_p95_ms)
    yield _Row("gaps (%)", _percent("gaps"), f"{100 * limits.max_gap_fraction:g}")
    yield _Row("late actions (%)", _percent("late"), f"{100 * limits.max_late_fraction:g}")
    yield _Row("held ticks (%)", _percent("held"), f"{100 * limits.max_held_fraction:g}")
    yield _Row("interventions (%)", _percent("interventions"))
    bounds = (
        ("frame age, max (ms)", lambda c: c.age_ms.max, limits.max_frame_age_ms),
        ("skew to state, max (ms)", lambda c: c.skew_ms and c.skew_ms.max, limits.max_skew_ms),
        ("frame repeated, most in a row", lambda c: c.longest_run, limits.max_repeated_run),
    )
    for camera, (title, value, limit) in itertools.product(cameras, bounds):
        yield _Row(
            f"{camera}: {title}",
            functools.partial(_of_camera, camera, value),
            f"{limit:g}",
        )


def _percent(field: str) -> Callable[[EpisodeTiming], Optional[float]]:
    def value(timing: EpisodeTiming) -> Optional[float]:
        count = getattr(timing, field)
        return None if count is None else 100.0 * count / timing.steps

    return value


def _of_camera(
    camera: str, value: Callable[[CameraTiming], Optional[float]], timing: EpisodeTiming
) -> Optional[float]:
    return value(timing.cameras[camera]) if camera in timing.cameras else None
