"""Overfit, underfit or good, from the probe metrics alone; no rollout enters the verdict.

After "A Workflow for Offline Model-Free Robotic RL" (Kumar et al. 2021, arXiv 2109.10813):
overfitting shows as the average dataset Q-value rising and then falling with more gradient
steps; the policies around its peak are the good ones. Underfitting shows as TD error and CQL
regulariser that stay high. The paper gives trends, not thresholds: **the numbers in
:class:`Thresholds` are this project's own**.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, List, Sequence, Tuple

import numpy as np
from scipy import stats

from ofrl_robot.errors import CheckpointError

OVERFIT, UNDERFIT, GOOD, NO_VALUE = "overfit", "underfit", "good", "no_value_function"
_FALL_POINTS = 4  # with fewer, not even a strict fall has a 95 % interval below 0
_NEEDED = ("data_q", "td_error", "target_variance")


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """This project's numbers (not the paper's).

    Attributes:
        smooth: checkpoints in the running median of dataset Q.
        tail: fraction of training at the end in which a peak is no peak yet.
        drop: fall from the peak, as a fraction of the rise before it, that counts.
        noise: the fall must also exceed this many standard deviations of the curve's noise.
        rising: gain of dataset Q over the last third of training, as a fraction of its range,
            above which longer training is advised.
        td_ratio: TD error over target variance above which the critic does not fit its targets.
    """

    smooth: int = 3
    tail: float = 0.1
    drop: float = 0.1
    noise: float = 3.0
    td_ratio: float = 0.5
    rising: float = 0.1


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The verdict and what it rests on.

    Attributes:
        verdict: ``overfit``, ``underfit``, ``good`` or ``no_value_function`` (BC).
        selected_step: checkpoint to deploy.
        reasons: measured numbers against thresholds, one line each.
        next_step: what to run next, in words.
        peak_step: where the smoothed dataset Q is highest (0 for BC).
        smoothed_q: smoothed dataset Q per considered checkpoint, by step.
    """

    verdict: str
    selected_step: int
    reasons: List[str]
    next_step: str
    peak_step: int
    smoothed_q: Dict[int, float]
    thresholds: Thresholds

    def lines(self) -> List[str]:
        """The written verdict."""
        head = f"verdict: {self.verdict}   deploy: step {self.selected_step}"
        return [head] + [f"  {r}" for r in self.reasons] + [f"  next: {self.next_step}"]


def diagnose(
    rows: Sequence[Dict[str, float]],
    warm_start_steps: int = 0,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    may_be_negative: bool = False,
) -> Diagnosis:
    """Read the probe metrics of one run.

    Args:
        rows: ``metrics.csv``, one dict a checkpoint, ascending steps.
        warm_start_steps: checkpoints up to here are ignored (the actor only imitated).
        may_be_negative: values below 0 are possible (negative rewards, penalties in the target).

    Raises:
        CheckpointError: when there is no checkpoint, none after the warm start, or none with
            finite metrics.
    """
    if not rows:
        raise CheckpointError("no checkpoint was probed yet", "train longer")
    rows, diverged = _until_divergence(rows)
    last = int(rows[-1]["step"])
    if "data_q" not in rows[0]:
        return Diagnosis(
            NO_VALUE, last,
            diverged + ["the algorithm learns no Q-function; the last checkpoint is taken"],
            "train --algo cql on the same data for a diagnosis", 0, {}, thresholds,
        )  # fmt: skip
    missing = [name for name in _NEEDED if name not in rows[0]]
    if missing:
        raise CheckpointError(f"the metrics lack {', '.join(missing)}", "train again")
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
    if overfit:
        return Diagnosis(
            OVERFIT, int(steps[peak]), reasons,
            "retrain with less capacity (--bottleneck first; then --dropout 0.2, --regularization "
            "l1), or collect more episodes; deploy the peak meanwhile",
            int(steps[peak]), by_step, thresholds,
        )  # fmt: skip
    tail = max(1, int(np.ceil(0.2 * len(rows))))
    td = float(np.mean([row["td_error"] for row in rows[-tail:]]))
    variance = float(np.mean([row["target_variance"] for row in rows[-tail:]]))
    ratio = td / variance if variance > 0 else np.inf
    reasons.append(
        f"TD error {td:.3g} is {100 * ratio:.0f} % of its targets' variance (underfit "
        f"above {100 * thresholds.td_ratio:.0f} %)"
    )
    if ratio > thresholds.td_ratio:
        return Diagnosis(
            UNDERFIT, last, reasons,
            "retrain with more capacity (--resnet-enc, --dr3-feat) and compare both TD error and "
            "CQL term: a bigger run that lowers both by 20 % confirms it",
            int(steps[peak]), by_step, thresholds,
        )  # fmt: skip
    next_step = "deploy; more data is the next lever"
    if diverged:
        next_step = "retrain with lower learning rates, the run diverged"
    elif _still_rising(steps, raw, thresholds):
        reasons.append("dataset Q still rises at the end: value has not travelled back yet")
        next_step = "deploy the last checkpoint, and train longer: it is not at its best yet"
    return Diagnosis(GOOD, last, reasons, next_step, int(steps[peak]), by_step, thresholds)


def _until_divergence(
    rows: Sequence[Dict[str, float]],
) -> Tuple[Sequence[Dict[str, float]], List[str]]:
    """The rows before the first non-finite metric, and a reason line when some were cut off.

    NaN compares false with every threshold, so a diverged run would else be called good.
    """
    for index, row in enumerate(rows):
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad and index == 0:
            raise CheckpointError(
                f"{', '.join(bad)} is not finite at the first checkpoint (step {row['step']:.0f})",
                "lower the learning rates and train again",
            )
        if bad:
            text = "{} became non-finite at step {:.0f}; only checkpoints before it are read"
            return rows[:index], [text.format(", ".join(bad), row["step"])]
    return rows, []


def _overfit(
    steps: np.ndarray, raw: np.ndarray, smooth: np.ndarray, peak: int, thresholds: Thresholds
) -> Tuple[bool, List[str]]:
    """Whether dataset Q fell after a peak: early enough, far enough and steadily enough."""
    at = (
        f"dataset Q peaks at step {int(steps[peak])} ({smooth[peak]:.3g}) and ends at "
        f"{smooth[-1]:.3g}"
    )
    if steps[peak] > steps[-1] - thresholds.tail * (steps[-1] - steps[0]):
        return False, [f"{at}: no fall to speak of"]
    if len(steps) - peak < _FALL_POINTS:
        text = ": {} checkpoints from the peak on are too few to tell a fall from noise ({} needed)"
        return False, [at + text.format(len(steps) - peak, _FALL_POINTS)]
    fall = float(smooth[peak] - smooth[-1])
    rise = float(smooth[peak] - smooth[: peak + 1].min())
    noise = float(np.std(raw - smooth))
    needed = max(thresholds.noise * noise, thresholds.drop * rise)
    # Of the raw curve: the median ties neighbours together, and the interval would be too narrow.
    slope, _, low, high = stats.theilslopes(raw[peak:], steps[peak:], 0.95)
    reasons = [
        at,
        f"it fell by {fall:.3g}; {needed:.3g} would count ({thresholds.noise:.0f} x "
        f"noise {noise:.3g}, {100 * thresholds.drop:.0f} % of rise {rise:.3g})"
        ,
        f"slope after the peak {1e3 * slope:.3g} per 1000 steps (95 %: {1e3 * low:.3g} "
        f"to {1e3 * high:.3g})",
    ]  # fmt: skip
    if peak == 0:
        reasons.append(
            "the peak is the first checkpoint after the warm start, little more than imitation"
        )
    return bool(fall > needed and high < 0), reasons


def _still_rising(steps: np.ndarray, raw: np.ndarray, thresholds: Thresholds) -> bool:
    """Whether dataset Q surely gains over the last third of training, and not just a little."""
    start = len(raw) - max(_FALL_POINTS, len(raw) // 3)
    if start < 0:
        return False
    slope, _, low, _ = stats.theilslopes(raw[start:], steps[start:], 0.95)
    gain = slope * (steps[-1] - steps[start])
    return bool(low > 0 and gain > thresholds.rising * (raw.max() - raw.min()))


def _running_median(values: np.ndarray, width: int) -> np.ndarray:
    """Centred running median; the window shrinks at the ends."""
    half = width // 2
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )
