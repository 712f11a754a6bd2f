"""Draw the result of `ofrl stress`: a success rate with its interval for each disturbance."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from ofrl_robot import files
from ofrl_robot.evaluation.stress import Stress
from ofrl_robot.pages.plots import BLUE, GREY, INK, RED

FILE = "stress.png"
_WIDTH, _ROW_HEIGHT, _MARGIN, _DPI = 9.2, 0.24, 1.1, 144  # inches; dots per inch


def stress_picture(stress: Stress) -> bytes:
    """Draw the rows of a stress, the undisturbed one on top; return a PNG file.

    Rows that lost more trials than chance explains are red. The band is the interval of the
    undisturbed trials.
    """
    rows = stress.rows
    figure = Figure(figsize=(_WIDTH, _MARGIN + _ROW_HEIGHT * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    low, high = (100.0 * limit for limit in rows[0].interval)
    axes.axvspan(low, high, color=BLUE, alpha=0.12, linewidth=0)
    for place, row in enumerate(rows):
        rate = 100.0 * row.k / max(1, row.n)
        color = RED if row.sensitive else BLUE if place == 0 else INK
        axes.plot([100.0 * limit for limit in row.interval], [place, place], color=color, alpha=0.5)
        axes.plot(rate, place, "o", color=color, markersize=4.5, clip_on=False)
        axes.annotate(
            f"{row.k}/{row.n}", (101.5, place), va="center", fontsize=8, color=color,
            annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("successes, %, and Wilson 95 % interval; red: sign test p < 0.05")
    axes.grid(axis="x", color=GREY, alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI)
    return data.getvalue()


def write_picture(stress: Stress, folder: Path) -> Path:
    """Write ``stress.png`` into a folder and return its path.

    Raises:
        OutputError: the disk refuses.
    """
    path = folder / FILE
    files.write_whole(path, stress_picture(stress))
    return path
