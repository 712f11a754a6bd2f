"""Timing of one episode: rate, age and skew of its frames, repeated frames, late actions.

Pure functions of the episode's arrays. Stamps are int64 ns, all of one clock.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Mapping, Optional, Sequence

import numpy as np

NS_PER_MS = 1e6
LATE = 1.05  # periods from tick to applied action; more is late. Real loops jitter by a few percent
GAP = 2.0  # periods from one tick to the next that count as a gap


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, 95th percentile and maximum of a time, ms."""

    p50: float
    p95: float
    max: float


@dataclasses.dataclass(frozen=True)
class CameraTiming:
    """Timing of one camera over the T+1 ticks of an episode.

    Attributes:
        age_ms: stamp of the tick minus capture of the frame it shows.
        skew_ms: |capture of the frame - capture of the state|.
        lead_ms: longest time that a frame was captured after its tick, 0 if none was. Above 0
            the two clocks disagree.
        repeated: ticks that show the frame of the tick before (same stamp or identical pixels).
        longest_run: the most repeated ticks in a row; a frozen camera has a long run.
        backwards: frames captured before the frame of the tick before, while ticks went forward.
    """

    age_ms: Spread
    skew_ms: Spread
    lead_ms: float
    repeated: int
    longest_run: int
    backwards: int


@dataclasses.dataclass(frozen=True)
class EpisodeTiming:
    """Timing of one episode of T actions.

    Attributes:
        steps: T.
        nominal_hz: configured rate of the control loop.
        rate_hz: achieved mean rate, see :func:`measured_rate_hz`.
        interval_p5_ms, interval_p95_ms: percentiles of the time from tick to tick.
        gaps: intervals of more than ``GAP`` periods.
        backwards: ticks that are not later than the tick before: the clock jumped back.
        late: actions applied more than ``LATE`` periods after their tick.
        held: ticks for which no action arrived in time.
        interventions: actions by which a human overrode a policy.
        cameras: by name.
    """

    steps: int
    nominal_hz: float
    rate_hz: float
    interval_p5_ms: float
    interval_p95_ms: float
    gaps: int
    backwards: int
    late: int
    held: int
    interventions: int
    cameras: Dict[str, CameraTiming]


def episode_timing(
    stamps: Mapping[str, np.ndarray],
    nominal_hz: float,
    cameras: Sequence[str],
    intervention: np.ndarray,
    held: np.ndarray,
    identical: Optional[Mapping[str, np.ndarray]] = None,
) -> EpisodeTiming:
    """Return the timing of one episode of T >= 1 actions.

    Args:
        stamps: int64 ns: ``obs``, ``state`` and one per camera (T+1,); ``applied`` (T,).
        nominal_hz: configured rate of the control loop.
        cameras: which entries of ``stamps`` are cameras.
        intervention, held: bool (T,).
        identical: bool (T,) per camera, entry k: tick k+1 shows the pixels of tick k. A camera
            that is missing here is judged by its stamps alone.
    """
    ticks, period = stamps["obs"], 1e9 / nominal_hz
    intervals = np.diff(ticks)
    delays = stamps["applied"] - ticks[:-1]
    pixels = identical or {}
    return EpisodeTiming(
        steps=len(intervals),
        nominal_hz=float(nominal_hz),
        rate_hz=measured_rate_hz(ticks),
        interval_p5_ms=float(np.percentile(intervals, 5) / NS_PER_MS),
        interval_p95_ms=float(np.percentile(intervals, 95) / NS_PER_MS),
        gaps=int((intervals > GAP * period).sum()),
        backwards=int((intervals <= 0).sum()),
        late=int((delays > LATE * period).sum()),
        held=int(held.sum()),
        interventions=int(intervention.sum()),
        cameras={
            name: _camera(ticks, stamps[name], stamps["state"], pixels.get(name))
            for name in cameras
        },
    )


def measured_rate_hz(stamps: np.ndarray) -> float:
    """Return the ticks per second of stamps, int64 ns (T,); 0 if there are too few.

    Jumps of the clock do not count: intervals that are not positive, or more than a hundred
    times the median, are left out.
    """
    intervals = np.diff(stamps)
    forward = intervals[intervals > 0]
    believable = forward[forward <= 100 * np.median(forward)] if len(forward) else forward
    return float(1e9 / believable.mean()) if len(believable) else 0.0


def _camera(
    ticks: np.ndarray,
    captured: np.ndarray,
    state: np.ndarray,
    identical: Optional[np.ndarray],
) -> CameraTiming:
    steps = np.diff(captured)
    repeated = steps == 0
    if identical is not None:
        repeated = repeated | identical
    ages = ticks - captured
    return CameraTiming(
        age_ms=_spread(ages),
        skew_ms=_spread(np.abs(captured - state)),
        lead_ms=float(max(0, -ages.min()) / NS_PER_MS),
        repeated=int(repeated.sum()),
        longest_run=longest_run(repeated),
        backwards=int(((steps < 0) & (np.diff(ticks) > 0)).sum()),
    )


def _spread(ns: np.ndarray) -> Spread:
    return Spread(*(float(q) for q in np.percentile(ns, (50, 95, 100)) / NS_PER_MS))


def longest_run(flags: np.ndarray) -> int:
    """Return the largest number of true entries in a row of a bool array (N,)."""
    edges = np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]]))
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return int(lengths.max()) if len(lengths) else 0
