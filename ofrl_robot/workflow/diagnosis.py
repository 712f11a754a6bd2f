"""The verdict on a run: overfit, underfit, good or none, from its probe metrics alone.

No rollout enters the verdict. The rules follow "A Workflow for Offline Model-Free Robotic RL"
(Kumar et al. 2021, arXiv 2109.10813): when a critic overfits, the average dataset Q-value rises
and then falls with more gradient steps, and the policies around the peak are the good ones. When
it underfits, TD error and CQL regulariser stay high. The paper gives trends, not thresholds: **the
numbers in :class:`Thresholds` are this project's own**.

Clipped targets cannot fall with the critic, and their variance collapses: of runs that overfit on
10 episodes 3 of 3 were called underfit. So where many are clipped there is no verdict but overfit.
"""

from __future__ import annotations

import dataclasses
import math
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np
from scipy import stats

from ofrl_robot.errors import CheckpointError
from ofrl_robot.workflow import corrections
from ofrl_robot.workflow.corrections import Correction

OVERFIT, UNDERFIT, GOOD, NO_VALUE = "overfit", "underfit", "good", "no_value_function"
CLIPPED = "targets_clipped"
LEAST_POINTS = 4  # with fewer, not even a strict fall has a 95 % interval below 0
_MAX_STEP = 10**12  # a larger number in the column is no step; it would not fit a file name
_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
_NEEDED = ("data_q", "td_error", "target_variance")


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdict: this project's numbers, not the paper's.

    Attributes:
        smooth: checkpoints in the running median of dataset Q.
        tail: fraction of training at the end; a maximum inside it is not a peak yet.
        drop: fall from the peak that counts, as a fraction of the rise before it.
        noise: the fall must also exceed this many standard deviations of the curve's noise.
        rising: gain of dataset Q over the last third of training, as a fraction of its range,
            above which longer training is advised.
        td_ratio: TD error over target variance above which the critic does not fit its targets.
        clipped: share of clipped targets above which neither "underfit" nor "good" is said.
    """

    smooth: int = 3
    tail: float = 0.1
    drop: float = 0.1
    noise: float = 3.0
    td_ratio: float = 0.5
    rising: float = 0.1
    clipped: float = 0.05


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The verdict and the numbers it rests on.

    Attributes:
        verdict: ``overfit``, ``underfit``, ``good``, ``targets_clipped`` (no verdict can be read)
            or ``no_value_function`` (BC).
        selected_step: checkpoint to deploy.
        reasons: measured numbers against thresholds, one line each.
        corrections: what to run next, in the order in which to try it.
        peak_step: step at which the smoothed dataset Q is highest (0 for BC).
        smoothed_q: step -> smoothed dataset Q, for the checkpoints after the warm start.
    """

    verdict: str
    selected_step: int
    reasons: List[str]
    corrections: Tuple[Correction, ...]
    peak_step: int
    smoothed_q: Dict[int, float]
    thresholds: Thresholds


def diagnose(
    rows: Sequence[Dict[str, float]],
    warm_start_steps: int = 0,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    may_be_negative: bool = False,
    settings: Mapping[str, Any] = _NO_SETTINGS,
) -> Diagnosis:
    """Read the verdict off the probe metrics of one run.

    Args:
        rows: ``metrics.csv``, one dict per checkpoint, ascending steps.
        warm_start_steps: checkpoints up to here are ignored (the actor only imitated).
        may_be_negative: values below 0 are possible (negative rewards, penalties in the target).
        settings: settings of the run by name; the corrections start from them.

    Raises:
        CheckpointError: there is no checkpoint, none after the warm start, or none with finite
            metrics; or a column is missing or holds no steps.
    """
    if not rows:
        raise CheckpointError("no checkpoint was probed yet", "train longer")
    _require_columns(rows, ("step",))
    rows, diverged = _until_divergence(rows)
    _require_steps(rows)
    last = int(rows[-1]["step"])
    if "data_q" not in rows[0]:
        return Diagnosis(
            verdict=NO_VALUE,
            selected_step=last,
            reasons=[
                *diverged,
                "the algorithm learns no Q-function; the last checkpoint is taken",
            ],
            corrections=corrections.without_values(),
            peak_step=0,
            smoothed_q={},
            thresholds=thresholds,
        )
    _require_columns(rows, _NEEDED)
    rows = [row for row in rows if row["step"] > warm_start_steps]
    if not rows:
        raise CheckpointError(
            f"no checkpoint after the warm start of {warm_start_steps} steps",
            "train longer or lower --warm-start-steps",
        )
    steps = np.array([row["step"] for row in rows])
    raw = np.array([row["data_q"] for row in rows])
    smooth = _running_median(raw, thresholds.smooth)
    peak = int(np.argmax(smooth))
    by_step = {int(s): float(q) for s, q in zip(steps, smooth)}
    overfit, reasons = _overfit(steps, raw, smooth, peak, thresholds)
    reasons = diverged + reasons
    if smooth[-1] < 0 and not may_be_negative:
        # An alarm, not a verdict: the verdict reads the trend and must not depend on an offset.
        reasons.append("dataset Q ends below 0, impossible for the true value of rewards >= 0")
    underfit = False
    if not overfit:
        ratio, reason = _td_ratio(rows, thresholds)
        reasons.append(reason)
        underfit = ratio > thresholds.td_ratio
    clipped, found_clipped = _clipped(rows, thresholds)
    reasons += found_clipped
    if overfit:
        verdict, found = OVERFIT, corrections.after_overfitting(settings)
    elif clipped:
        verdict, found = CLIPPED, corrections.after_clipping()
    elif underfit:
        verdict, found = UNDERFIT, corrections.after_underfitting(settings)
    elif diverged:
        verdict, found = GOOD, corrections.after_divergence(settings)
    elif _still_rising(steps, raw, thresholds):
        verdict, found = GOOD, corrections.while_rising(settings, last)
        reasons.append("dataset Q still rises at the end: value has not travelled back yet")
    else:
        verdict, found = GOOD, corrections.after_good_fit()
    return Diagnosis(
        verdict=verdict,
        selected_step=int(steps[peak]) if overfit else last,
        reasons=reasons,
        corrections=found,
        peak_step=int(steps[peak]),
        smoothed_q=by_step,
        thresholds=thresholds,
    )


def _require_columns(rows: Sequence[Dict[str, float]], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in rows[0]]
    if missing:
        raise CheckpointError(f"the metrics lack {', '.join(missing)}", "train again")


def _require_steps(rows: Sequence[Dict[str, float]]) -> None:
    """Raise CheckpointError unless the steps are ascending whole numbers above 0."""
    before = 0.0
    for row in rows:
        step = row["step"]
        if not before < step <= _MAX_STEP or step != int(step):
            raise CheckpointError(
                f"the step {step:g} after {before:g} in the metrics is not a later step",
                "train again",
            )
        before = step


def _at_the_end(rows: Sequence[Dict[str, float]], name: str) -> float:
    """Return the mean of a column over the last fifth of the checkpoints."""
    tail = max(1, int(np.ceil(0.2 * len(rows))))
    return float(np.mean([row[name] for row in rows[-tail:]]))


def _clipped(rows: Sequence[Dict[str, float]], thresholds: Thresholds) -> Tuple[bool, List[str]]:
    """Return whether too many targets were clipped for a verdict, and why; runs log it if any."""
    if not {"targets_clipped", "target_unclipped"} <= rows[0].keys():
        return False, []
    share = _at_the_end(rows, "targets_clipped")
    reason = (
        f"{100 * share:.0f} % of the targets were clipped at the end (unclipped mean "
        f"{_at_the_end(rows, 'target_unclipped'):.3g}; above {100 * thresholds.clipped:.0f} % "
        "Q and TD error show the clip, not the critic)"
    )
    return share > thresholds.clipped, [reason]


def _td_ratio(rows: Sequence[Dict[str, float]], thresholds: Thresholds) -> Tuple[float, str]:
    """Return TD error over target variance at the end of training, and the reason line."""
    td = _at_the_end(rows, "td_error")
    variance = _at_the_end(rows, "target_variance")
    ratio = td / variance if variance > 0 else math.inf
    reason = (
        f"TD error {td:.3g} is {100 * ratio:.0f} % of its targets' variance (underfit "
        f"above {100 * thresholds.td_ratio:.0f} %)"
    )
    return ratio, reason


def _until_divergence(
    rows: Sequence[Dict[str, float]],
) -> Tuple[Sequence[Dict[str, float]], List[str]]:
    """Return the rows before the first non-finite metric, and a reason line if some are cut off.

    NaN compares false with every threshold, so a diverged run would otherwise be called good.
    """
    for index, row in enumerate(rows):
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad and index == 0:
            raise CheckpointError(
                f"{', '.join(bad)} is not finite at the first checkpoint (step {row['step']:.0f})",
                "lower the learning rates and train again",
            )
        if bad:
            reason = (
                f"{', '.join(bad)} became non-finite at step {row['step']:.0f}; only checkpoints "
                "before it are read"
            )
            return rows[:index], [reason]
    return rows, []


def _overfit(
    steps: np.ndarray, raw: np.ndarray, smooth: np.ndarray, peak: int, thresholds: Thresholds
) -> Tuple[bool, List[str]]:
    """Return whether dataset Q fell early, far and steadily enough after a peak, and why."""
    at = (
        f"dataset Q peaks at step {int(steps[peak])} ({smooth[peak]:.3g}) and ends at "
        f"{smooth[-1]:.3g}"
    )
    if steps[peak] > steps[-1] - thresholds.tail * (steps[-1] - steps[0]):
        return False, [f"{at}: no fall to speak of"]
    if len(steps) - peak < LEAST_POINTS:
        reason = (
            f"{at}: {len(steps) - peak} checkpoints from the peak on are too few to tell a fall "
            f"from noise ({LEAST_POINTS} needed)"
        )
        return False, [reason]
    fall = float(smooth[peak] - smooth[-1])
    rise = float(smooth[peak] - smooth[: peak + 1].min())
    noise = float(np.std(raw - smooth))
    needed = max(thresholds.noise * noise, thresholds.drop * rise)
    # On the raw curve: the median makes neighbours alike, so the interval would be too narrow.
    slope, _, low, high = stats.theilslopes(raw[peak:], steps[peak:], 0.95)
    reasons = [
        at,
        f"it fell by {fall:.3g}; {needed:.3g} would count ({thresholds.noise:.0f} x "
        f"noise {noise:.3g}, {100 * thresholds.drop:.0f} % of rise {rise:.3g})",
        f"slope after the peak {1e3 * slope:.3g} per 1000 steps (95 %: {1e3 * low:.3g} "
        f"to {1e3 * high:.3g})",
    ]
    if peak == 0:
        reasons.append(
            "the peak is the first checkpoint after the warm start, little more than imitation"
        )
    return bool(fall > needed and high < 0), reasons


def _still_rising(steps: np.ndarray, raw: np.ndarray, thresholds: Thresholds) -> bool:
    """Return whether dataset Q gains clearly (95 %) and enough over the last third of training."""
    start = len(raw) - max(LEAST_POINTS, len(raw) // 3)
    if start < 0:
        return False
    slope, _, low, _ = stats.theilslopes(raw[start:], steps[start:], 0.95)
    gain = slope * (steps[-1] - steps[start])
    return bool(low > 0 and gain > thresholds.rising * (raw.max() - raw.min()))


def _running_median(values: np.ndarray, width: int) -> np.ndarray:
    """Return the centred running median; the window shrinks at the ends."""
    half = width // 2
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )
