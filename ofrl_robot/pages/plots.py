"""Curves over gradient steps as PNG pictures, drawn from the rows of ``metrics.csv``.

Figures are plain objects, without pyplot: there is no global state and no display is needed. The
colours are those of Okabe and Ito, which colour-blind readers can tell apart; line styles differ,
too, for print.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Dict, List, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogFormatter

from ofrl_robot.policy.choice import CHOICE_WORDS, MAX_Q, MODE, SAMPLE
from ofrl_robot.workflow.diagnosis import OVERFIT, Diagnosis

Rows = Sequence[Dict[str, float]]

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, INK = "#8a8f98", "#33373d"
_STYLES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (GREY, ":"), (RED, (0, (5, 1, 1, 1))))
_SHADES = (INK, RED, GREY, BLUE)  # of success rates under other conditions
_WIDE, _HALF = (9.2, 3.5), (4.5, 2.7)  # inches
_DPI = 144


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure for the page.

    Attributes:
        png: the figure as the bytes of a PNG file.
        title: what it shows; title and caption are also its alternative text.
        wide: takes the whole width of the page.
    """

    png: bytes
    title: str
    caption: str
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class _Panel:
    """A small figure: (column of the metrics, words of the legend) for each curve."""

    title: str
    caption: str
    curves: Tuple[Tuple[str, str], ...]
    log: bool = False


_PANELS = (
    _Panel(
        "Q of the policy's actions",
        "Far above the dataset's, the policy exploits errors of the critic.",
        (
            ("data_q", "dataset"),
            ("mode_q", "policy, mode"),
            ("policy_q", "policy, sampled"),
            ("data_q_min", "dataset, lowest critic"),
        ),
    ),
    _Panel(
        "Q of random actions",
        "Conservative training keeps them well below the dataset's.",
        (("data_q", "dataset"), ("random_q", "random")),
    ),
    _Panel(
        "TD error against its targets",
        "A critic that fits has an error well below the variance of what it regresses on.",
        (
            ("td_error", "TD error, as trained"),
            ("td_error_average", "with the averaged actor"),
            ("target_variance", "variance of targets"),
        ),
        log=True,
    ),
    _Panel(
        "Conservative term",
        "CQL regulariser, not multiplied by its weight. It stays high when the critic underfits.",
        (("cql_term", "CQL term"),),
    ),
    _Panel(
        "Divergence",
        "How far the policy is from the data's behaviour (BRAC), not multiplied by its weight.",
        (("divergence", "divergence"),),
    ),
    _Panel(
        "Held-out episodes",
        "Dataset Q of held-out episodes beside that of the training data (with --prior: of both "
        "data sets, the held-out episodes are the task's).",
        (("data_q", "train"), ("valid_data_q", "held out")),
    ),
    _Panel(
        "Clipped targets",
        "Share of the targets that clipping changed. Above 5 % there is no verdict.",
        (("targets_clipped", "share clipped"),),
    ),
    _Panel(
        "Behaviour policy",
        "Loss of BRAC's behaviour policy; it is frozen where the held-out loss was least.",
        (("behavior_loss", "train"), ("valid_behavior_loss", "held out")),
    ),
    _Panel(
        "Imitation: log-probability",
        "How likely the policy finds the actions of the data.",
        (("data_log_prob", "log prob of data actions"),),
    ),
    _Panel(
        "Imitation: squared error",
        "Between the mode of the policy and the actions of the data.",
        (("action_mse", "mean squared error"),),
    ),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A success rate measured with a checkpoint of this run, and its interval (0 to 1).

    Attributes:
        conditions: where it was measured, in words; other conditions are another series.
    """

    step: int
    choice: str
    rate: float
    low: float
    high: float
    conditions: str = ""


def pictures(
    rows: Rows, diagnosis: Diagnosis, warm_start: int = 0, measured: Sequence[Measured] = ()
) -> List[Picture]:
    """Draw every figure that the metrics allow; an unknown column gets a figure of its own.

    Args:
        rows: of ``metrics.csv``.
        warm_start: last step of the warm start.
        measured: success rates, drawn below dataset Q if there are two or more steps.
    """
    found = []
    if diagnosis.smoothed_q:
        found.append(_dataset_q(rows, diagnosis, warm_start, measured))
    known = {name for panel in _PANELS for name, _ in panel.curves} | {"step"}
    extra = [
        _Panel(name.replace("_", " "), f"Probe metric {name}.", ((name, name),))
        for name in rows[0]
        if name not in known
    ]
    for panel in _PANELS + tuple(extra):
        present = sum(name in rows[0] for name, _ in panel.curves)
        if present >= min(2, len(panel.curves)):  # a comparison needs two curves
            found.append(_small(panel, rows, diagnosis, warm_start))
    return found


def _dataset_q(
    rows: Rows, diagnosis: Diagnosis, warm_start: int, measured: Sequence[Measured]
) -> Picture:
    """Draw the curve that the verdict reads and, below it, the success rates measured later."""
    trend = (
        "It fell after a peak: the critic overfits."
        if diagnosis.verdict == OVERFIT
        else "It shows no steady fall after a peak."
    )
    caption = f"{trend} The verdict reads the smoothed curve after the warm start"
    if len({m.step for m in measured}) < 2:
        figure = _figure(_WIDE)
        axes = figure.add_subplot()
        caption += "."
    else:
        figure = _figure((_WIDE[0], 1.75 * _WIDE[1]))
        axes, below = figure.subplots(2, 1, height_ratios=(3, 2))
        _rates(below, measured)
        _axes(below, rows, diagnosis.selected_step, warm_start, notes=False)
        axes.tick_params(labelbottom=False)
        caption += "; it did not see the success rates below it, which were measured afterwards."
    steps, peak = list(diagnosis.smoothed_q), diagnosis.peak_step
    axes.plot(steps, list(diagnosis.smoothed_q.values()), color=BLUE, lw=2.2, label="smoothed")
    axes.plot(
        _column(rows, "step"),
        _column(rows, "data_q"),
        "o",
        color=BLUE,
        ms=5,
        mfc="white",
        mew=1.1,
        label="at each checkpoint",
    )
    axes.plot(
        [peak],
        [diagnosis.smoothed_q[peak]],
        "v",
        color=RED,
        ms=9,
        mec="white",
        label="peak of the smoothed curve",
        zorder=5,
    )
    axes.margins(y=0.12)
    axes.set_ylabel("mean Q of dataset actions")
    _axes(axes, rows, diagnosis.selected_step, warm_start)
    if len(figure.axes) > 1:
        axes.set_xlabel("")
    _legend(axes)
    return Picture(_png(figure), "Dataset Q", caption, wide=True)


def _rates(axes: Axes, measured: Sequence[Measured]) -> None:
    """Draw success rates with their intervals, one series for each choice and conditions."""
    styles = {MODE: ("o", GREEN), SAMPLE: ("s", ORANGE), MAX_Q: ("^", BLUE)}
    places = list(dict.fromkeys(m.conditions for m in measured))
    for choice, (marker, color) in styles.items():
        for number, place in enumerate(places):
            chosen = [m for m in measured if m.choice == choice and m.conditions == place]
            if not chosen:
                continue
            rate = np.array([m.rate for m in chosen])
            reach = [rate - [m.low for m in chosen], [m.high for m in chosen] - rate]
            label = CHOICE_WORDS[choice]
            axes.errorbar(
                [m.step for m in chosen],
                100 * rate,
                yerr=100 * np.clip(reach, 0, 1),
                fmt=marker,
                color=_SHADES[number % len(_SHADES)] if number else color,
                mfc="white" if number else color,
                capsize=3,
                lw=1.5,
                label=f"{label}: {place}" if len(places) > 1 else label,
            )
    axes.set_ylim(-3, 103)
    axes.set_ylabel("success in trials, %")
    _legend(axes)


def _small(panel: _Panel, rows: Rows, diagnosis: Diagnosis, warm_start: int) -> Picture:
    figure = _figure(_HALF)
    axes = figure.add_subplot()
    curves = [(name, label) for name, label in panel.curves if name in rows[0]]
    lowest = np.inf
    for (name, label), (color, style) in zip(curves, _STYLES):
        values = _column(rows, name)
        lowest = min(lowest, np.nanmin(values, initial=np.inf))
        axes.plot(_column(rows, "step"), values, color=color, ls=style, lw=1.7, label=label)
    if panel.log and lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    if len(curves) > 1:
        _legend(axes)
    _axes(axes, rows, diagnosis.selected_step, warm_start)
    return Picture(_png(figure), panel.title, panel.caption)


def _figure(size: Tuple[float, float]) -> Figure:
    return Figure(figsize=size, layout="constrained")


def _axes(axes: Axes, rows: Rows, selected: int, warm_start: int, notes: bool = True) -> None:
    """Draw what all axes over gradient steps share: the look, warm start and selected step."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.grid(axis="y", color="#e4e6ea", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, labelsize=8, length=3)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("gradient steps", fontsize=9, color=INK)
    axes.yaxis.label.set(fontsize=9, color=INK)
    last = rows[-1]["step"]
    axes.set_xlim(0, 1.03 * last)
    if warm_start > 0:
        axes.axvspan(0, min(warm_start, last), color="#eceef1", lw=0, zorder=0)
    axes.axvline(selected, color=RED, lw=1.3, ls=(0, (4, 2)), zorder=1)
    if notes:
        if warm_start > 0.15 * last:  # otherwise there is no room for the words
            _note(axes, min(warm_start, last) / 2, "warm start")
        _note(axes, selected, f"deploy {selected:,}")


def _note(axes: Axes, x: float, text: str) -> None:
    """Write a word above the axes at step ``x``."""
    axes.annotate(
        text,
        (x, 1.0),
        (0, 3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=INK,
    )


def _legend(axes: Axes) -> None:
    axes.legend(
        fontsize=8,
        frameon=True,
        framealpha=0.85,
        edgecolor="none",
        labelcolor=INK,
        handlelength=2.6,
    )


def _column(rows: Rows, name: str) -> np.ndarray:
    """Return the values of a column; non-finite ones become NaN, a gap in the line."""
    values = np.array([row[name] for row in rows])
    return np.where(np.isfinite(values), values, np.nan)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
