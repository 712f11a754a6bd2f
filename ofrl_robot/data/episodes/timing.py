"""The truth in time of one episode: rate, age and skew of its frames, repeats, late actions.

Pure functions over the episode's arrays. Stamps are int64 ns, all by one clock; what an older
file does not hold is None in the report, never guessed.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Mapping, Optional, Sequence

import numpy as np

NS_PER_MS = 1e6
LATE = 1.05  # periods from tick to applied action; real loops jitter, as the pacer's slack says
GAP = 2.0  # periods from one tick to the next


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, 95th percentile and largest of a time, ms."""

    p50: float
    p95: float
    max: float


@dataclasses.dataclass(frozen=True)
class CameraTiming:
    """One camera, over the T+1 ticks of an episode.

    Attributes:
        age_ms: stamp of the tick minus capture of the frame it shows.
        skew_ms: magnitude of capture of the frame minus capture of the state.
        lead_ms: longest that a frame was captured after its tick, 0 if none was: clocks disagree.
        repeated: ticks that show the frame of the tick before (same stamp, or identical pixels).
        longest_run: the most of those in a row; a frozen camera has a long one.
        backwards: frames captured before the frame of the tick before, though ticks went on.
    """

    age_ms: Spread
    skew_ms: Optional[Spread]
    lead_ms: float
    repeated: int
    longest_run: int
    backwards: int


@dataclasses.dataclass(frozen=True)
class EpisodeTiming:
    """One episode of T actions.

    Attributes:
        steps: T.
        nominal_hz: rate that the control loop was meant to have.
        rate_hz: achieved mean rate, see :func:`measured_rate_hz`.
        interval_p5_ms, interval_p95_ms: percentiles of the time from tick to tick.
        gaps: intervals of more than ``GAP`` periods.
        backwards: ticks whose stamp is not after that of the tick before: the clock jumped back.
        late: actions applied more than ``LATE`` periods after their tick.
        held: ticks that nobody answered in time.
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
    late: Optional[int]
    held: Optional[int]
    interventions: int
    cameras: Dict[str, CameraTiming]


def episode_timing(
    stamps: Mapping[str, np.ndarray],
    nominal_hz: float,
    cameras: Sequence[str],
    intervention: np.ndarray,
    held: Optional[np.ndarray] = None,
    identical: Optional[Mapping[str, np.ndarray]] = None,
) -> EpisodeTiming:
    """Timing of one episode of T >= 1 actions.

    Args:
        stamps: int64 ns, ``obs`` and one per camera (T+1,); ``state`` (T+1,) and ``applied``
            (T,) where the file has them.
        nominal_hz: rate of the control loop.
        cameras: which entries of ``stamps`` are cameras.
        intervention, held: bool (T,); ``held`` is None in the first files.
        identical: bool (T,) per camera, entry k: the pixels of tick k+1 are those of tick k.
            Cameras that are not in it are judged by their stamps alone.
    """
    ticks, period = stamps["obs"], 1e9 / nominal_hz
    intervals = np.diff(ticks)
    delays = stamps["applied"] - ticks[:-1] if "applied" in stamps else None
    return EpisodeTiming(
        steps=len(intervals),
        nominal_hz=float(nominal_hz),
        rate_hz=measured_rate_hz(ticks),
        interval_p5_ms=float(np.percentile(intervals, 5) / NS_PER_MS),
        interval_p95_ms=float(np.percentile(intervals, 95) / NS_PER_MS),
        gaps=int((intervals > GAP * period).sum()),
        backwards=int((intervals <= 0).sum()),
        late=None if delays is None else int((delays > LATE * period).sum()),
        held=None if held is None else int(held.sum()),
        interventions=int(intervention.sum()),
        cameras={
            name: _camera(ticks, stamps[name], stamps.get("state"), (identical or {}).get(name))
            for name in cameras
        },
    )


def measured_rate_hz(stamps: np.ndarray) -> float:
    """Ticks per second of stamps (T,) int64 ns; 0 where it cannot be told.

    A clock that jumped does not count: intervals that are negative, or more than a hundred
    times the usual one, are left out.
    """
    intervals = np.diff(stamps)
    forward = intervals[intervals > 0]
    believable = forward[forward <= 100 * np.median(forward)] if len(forward) else forward
    return float(1e9 / believable.mean()) if len(believable) else 0.0


def _camera(
    ticks: np.ndarray,
    captured: np.ndarray,
    state: Optional[np.ndarray],
    identical: Optional[np.ndarray],
) -> CameraTiming:
    steps = np.diff(captured)
    repeated = steps == 0
    if identical is not None:
        repeated = repeated | identical
    ages = ticks - captured
    return CameraTiming(
        age_ms=_spread(ages),
        skew_ms=None if state is None else _spread(np.abs(captured - state)),
        lead_ms=float(max(0, -ages.min()) / NS_PER_MS),
        repeated=int(repeated.sum()),
        longest_run=longest_run(repeated),
        backwards=int(((steps < 0) & (np.diff(ticks) > 0)).sum()),
    )


def _spread(ns: np.ndarray) -> Spread:
    return Spread(*(float(q) for q in np.percentile(ns, (50, 95, 100)) / NS_PER_MS))


def longest_run(flags: np.ndarray) -> int:
    """Most true entries of a bool (N,) in a row."""
    edges = np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]]))
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return int(lengths.max()) if len(lengths) else 0
