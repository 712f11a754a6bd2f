"""Success rates: k of n with a Wilson interval; aborts, help and missing labels are counted apart.

Every number is read from episode files on disk, so that the same code counts simulated,
ROS and hand-labelled trials, and counts only what was saved. Trials under other conditions are
never counted together.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from scipy.stats import binomtest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import LABEL_NAMES, SUCCESS, UNKNOWN, EpisodeMeta
from ofrl_robot.errors import DatasetError
from ofrl_robot.evaluation.conditions import Conditions, conditions_of, seed_words


@dataclasses.dataclass(frozen=True)
class TrialReport:
    """The outcome of a set of trials under the same conditions.

    Attributes:
        successes: k; the policy's own: without an intervention.
        trials: n; all episodes that were not aborted.
        unknown: trials without a label; they are in n.
        aborted: episodes that a stop or the end of the session cut short; not in n, since nobody
            knows how they would have ended.
        helped: trials in which a human overrode the policy at least once; in n.
        helped_successes: those of them that succeeded; not in k.
        policy: identity of the policy, empty without one.
        conditions: of every trial.
        seeds: of the trials that count, in words.
        rows: one dict per episode, aborted ones too: file, seed, label, steps, abort_reason,
            interventions (steps in which a human overrode the policy), pictures (how far they
            are outside the policy's training data: ``PictureReport.to_dict()``, or empty).
    """

    successes: int
    trials: int
    unknown: int
    aborted: int
    helped: int
    helped_successes: int
    policy: Dict[str, Any]
    conditions: Conditions
    seeds: str
    rows: List[Dict[str, Any]]

    @property
    def interval(self) -> Tuple[float, float]:
        """Wilson 95 % interval of the success rate (E. B. Wilson 1927)."""
        return wilson(self.successes, self.trials)

    def line(self) -> str:
        """Return k/n with its interval, all other trials apart, and the conditions, in one line."""
        text = rate_text(self.successes, self.trials)
        if self.helped:
            text += f" without help, {self.helped_successes} of {self.helped} with help"
        if self.unknown:
            text += f", {self.unknown} without a label"
        if self.aborted:
            text += f", {self.aborted} aborted (not counted)"
        return f"{text}; {self.conditions.words()}, {self.seeds}"

    @property
    def picture_score(self) -> Optional[float]:
        """Mean over the trials of how far outside their pictures are; None if unknown."""
        scores = [float(p["score"]) for p in self._pictures()]
        return float(np.mean(scores)) if scores else None

    def picture_line(self) -> str:
        """Say in one line how the pictures compare with the training data; empty if unknown."""
        known = self._pictures()
        if not known:
            return ""
        outside = sum(bool(pictures.get("outside")) for pictures in known)
        numbers = (
            f"score {self.picture_score:.2f} (mean), {float(known[-1]['score']):.2f} (largest); "
            "99 % of the data are below 1"
        )
        if not outside and (self.picture_score or 0.0) <= 1.0:
            return f"pictures: as in the training data; {numbers}"
        if not outside:
            return f"pictures: the cameras' as in the data, but the arm goes elsewhere; {numbers}"
        words = [str(p.get("words", "")) for p in known if p.get("outside")][outside // 2]
        return (
            f"pictures: {outside} of {len(known)} trials are outside the training data; "
            f"{numbers}; {words}"
        )

    def _pictures(self) -> List[Dict[str, Any]]:
        """Return what the trials say of their pictures, by score; episodes may be old."""
        known = [row["pictures"] for row in self.rows if _is_number(row["pictures"].get("score"))]
        return sorted(known, key=lambda pictures: float(pictures["score"]))

    def to_json(self) -> str:
        """Return all fields and the interval as JSON."""
        low, high = self.interval
        data = {**dataclasses.asdict(self), "wilson_low": low, "wilson_high": high}
        # as an object of name and value, not as pairs
        data["conditions"]["settings"] = {
            name: json.loads(value) for name, value in self.conditions.settings
        }
        return f"{json.dumps(data, indent=2)}\n"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _interventions(path: Path, meta: EpisodeMeta) -> int:
    """Count the steps in which a human overrode a policy; without a policy nobody could."""
    if not meta.policy:
        return 0
    return int(read_episode(path, cameras=()).intervention.sum())


def wilson(successes: int, trials: int) -> Tuple[float, float]:
    """Return the Wilson 95 % interval of a success rate; (0, 1) without any trial."""
    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rate_text(successes: int, trials: int) -> str:
    """Return a success rate as text: ``47/50 = 94 % (Wilson 95 %: 84-98 %)``."""
    if trials == 0:
        return "0/0"
    low, high = wilson(successes, trials)
    return (
        f"{successes}/{trials} = {100.0 * successes / trials:.0f} % (Wilson 95 %: "
        f"{100.0 * low:.0f}-{100.0 * high:.0f} %)"
    )


def report_groups(folder: Path) -> List[TrialReport]:
    """Count the episodes of a folder, those under other conditions apart.

    Returns:
        One report for each set of conditions, in the order in which they first occur.

    Raises:
        DatasetError: the folder holds no episode, or one that cannot be read; nothing is
            counted then.
    """
    dataset = open_dataset(folder)
    # Checkpoints are told apart by their whole hash, conditions only name the beginning of it.
    groups: Dict[Tuple[Conditions, str], List[int]] = {}
    for i, meta in enumerate(dataset.metas):
        key = conditions_of(meta), str(meta.policy.get("sha256", ""))
        groups.setdefault(key, []).append(i)
    reports = []
    for (conditions, _), members in groups.items():
        rows = [_row(dataset.paths[i], dataset.metas[i], dataset.lengths[i]) for i in members]
        reports.append(_report(rows, dataset.metas[members[0]].policy, conditions))
    return reports


def report_trials(folder: Path) -> TrialReport:
    """Count the episodes of a folder that were all recorded under the same conditions.

    Raises:
        DatasetError: as :func:`report_groups`; or the conditions differ, so that no one rate
            describes the folder.
    """
    reports = report_groups(folder)
    if len(reports) > 1:
        first, second = (report.conditions.words() for report in reports[:2])
        raise DatasetError(
            f"holds trials under {len(reports)} different conditions ({first}; {second})",
            "report it with `ofrl report --trials`, which keeps them apart",
            folder,
        )
    return reports[0]


def _row(path: Path, meta: EpisodeMeta, steps: int) -> Dict[str, Any]:
    return {
        "file": path.name,
        "seed": meta.seed,
        "label": LABEL_NAMES.get(meta.success, "unknown"),
        "steps": steps,
        "abort_reason": meta.abort_reason,
        "interventions": _interventions(path, meta),
        "pictures": meta.pictures,
    }


def _report(
    rows: List[Dict[str, Any]], policy: Dict[str, Any], conditions: Conditions
) -> TrialReport:
    counted = [row for row in rows if not row["abort_reason"]]
    helped = [row for row in counted if row["interventions"]]
    won = LABEL_NAMES[SUCCESS]
    return TrialReport(
        successes=sum(row["label"] == won and not row["interventions"] for row in counted),
        trials=len(counted),
        unknown=sum(row["label"] == LABEL_NAMES[UNKNOWN] for row in counted),
        aborted=len(rows) - len(counted),
        helped=len(helped),
        helped_successes=sum(row["label"] == won for row in helped),
        policy=policy,
        conditions=conditions,
        seeds=seed_words(row["seed"] for row in counted or rows),
        rows=rows,
    )
