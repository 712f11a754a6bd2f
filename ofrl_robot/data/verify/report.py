"""Report on a verified dataset: text for people, JSON for programs."""

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
from ofrl_robot.errors import printable
from ofrl_robot.files import write_whole

SHOWN = 5  # findings of one kind that the text lists; JSON has all


@dataclasses.dataclass
class Verification:
    """Result of checking a dataset.

    Attributes:
        folder: the dataset.
        limits: bounds of a normal episode.
        episodes: one entry per file, in order.
        findings: faults of all files, then of the dataset as a whole.
        seconds: time that the check took.
    """

    folder: Path
    limits: QualityLimits
    episodes: List[EpisodeCheck]
    findings: List[Finding]
    seconds: float

    def of_level(self, level: str) -> List[Finding]:
        """Return the findings of one level, ``DAMAGE`` or ``WARNING``."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(episode.bytes for episode in self.episodes)

    def verdict(self) -> str:
        """Return one line: how many files are damaged, how many warnings there are."""
        files = len({finding.file for finding in self.of_level(DAMAGE)})
        warnings = len(self.of_level(WARNING))
        damage = f"damage in {_count(files, 'file')}" if files else "no damage"
        return f"{damage}, {_count(warnings, 'warning')}"

    def to_dict(self) -> Dict[str, Any]:
        """Return everything as JSON-able values; an infinite limit becomes None."""
        limits = {k: v if v < np.inf else None for k, v in vars(self.limits).items()}
        return dict(dataclasses.asdict(self), folder=str(self.folder), limits=limits)

    def lines(self) -> List[str]:
        """Return the report for people: counts, timing, findings, verdict."""
        counts = collections.Counter(e.success for e in self.episodes if e.steps)
        labels = ", ".join(f"{counts[k]} {name}" for k, name in schema.LABEL_NAMES.items())
        steps = sum(e.steps for e in self.episodes)
        megabytes = self.bytes * 1e-6
        lines = [
            f"{self.folder}: {len(self.episodes)} episodes, {steps} transitions, "
            f"{megabytes:.1f} MB; {labels}"
        ]
        timings = [(e.file, e.timing) for e in self.episodes if e.timing is not None]
        lines += _timing_table(timings, self.limits)
        lines += _finding_lines(self.of_level(DAMAGE) + self.of_level(WARNING))
        lines.append(
            f"checked in {self.seconds:.1f} s ({len(self.episodes) / self.seconds:.0f} files/s, "
            f"{megabytes / self.seconds:.0f} MB/s)"
        )
        lines.append(self.verdict())
        return [printable(line) for line in lines]


def write_json(verification: Verification, path: Path) -> None:
    """Write the verification as JSON. Raises OutputError when the disk refuses."""
    write_whole(path, f"{json.dumps(verification.to_dict(), indent=1, default=float)}\n")


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
    """Row of the timing table: title, value of an episode, limit, and how bad a value is."""

    title: str
    value: Callable[[EpisodeTiming], Optional[float]]
    limit: str = ""
    badness: Callable[[EpisodeTiming, float], float] = lambda timing, value: value


def _timing_table(timings: List[Tuple[str, EpisodeTiming]], limits: QualityLimits) -> Iterator[str]:
    """Yield aligned rows: median over the episodes, worst value, limit, and the worst episode."""
    if not timings:
        return
    cameras = sorted({name for _, timing in timings for name in timing.cameras})
    rows = [("timing", "median", "worst", "limit", "worst in")]
    for row in _rows(cameras, limits):
        known = []  # (badness, value, file)
        for file, timing in timings:
            value = row.value(timing)
            if value is not None:
                known.append((row.badness(timing, value), value, file))
        _, worst, where = max(known, key=lambda entry: entry[0])
        median = float(np.median([value for _, value, _ in known]))
        where = where if worst != median else ""
        rows.append((row.title, f"{median:.4g}", f"{worst:.4g}", row.limit, where))
    widths = [max(len(texts[k]) for texts in rows) for k in range(4)]
    for title, *numbers, where in rows:
        cells = [text.rjust(width) for text, width in zip(numbers, widths[1:])]
        yield "  ".join([title.ljust(widths[0]), *cells, where]).rstrip()


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
        ("skew to state, max (ms)", lambda c: c.skew_ms.max, limits.max_skew_ms),
        ("frame repeated, most in a row", lambda c: c.longest_run, limits.max_repeated_run),
    )
    for camera, (title, value, limit) in itertools.product(cameras, bounds):
        yield _Row(
            f"{camera}: {title}",
            functools.partial(_of_camera, camera, value),
            f"{limit:g}",
        )


def _percent(field: str) -> Callable[[EpisodeTiming], float]:
    def value(timing: EpisodeTiming) -> float:
        return 100.0 * getattr(timing, field) / timing.steps

    return value


def _of_camera(
    camera: str, value: Callable[[CameraTiming], Optional[float]], timing: EpisodeTiming
) -> Optional[float]:
    return value(timing.cameras[camera]) if camera in timing.cameras else None
