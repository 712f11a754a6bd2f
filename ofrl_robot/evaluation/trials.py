"""Success rates: k of n with a Wilson interval; aborts and missing labels are counted apart.

Every number is read from episode files on disk, so that the same code counts simulated,
ROS and hand-labelled trials, and counts only what was saved.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

from scipy.stats import binomtest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.schema import LABEL_NAMES, SUCCESS, UNKNOWN
from ofrl_robot.policy.choice import recorded_choice


@dataclasses.dataclass(frozen=True)
class TrialReport:
    """The outcome of a set of trials.

    Attributes:
        successes: k; unlabelled and aborted trials are not in it.
        trials: n; all episodes of the folder.
        unknown: trials without a label.
        aborted: trials that ended by a stop.
        policy: identity of the policy, empty without one, ``{"mixed": count}`` for several.
        actor: who acted; several are joined by commas.
        task: of the first trial.
        robot: of the first trial.
        rows: one dict per trial: file, seed, label, steps, abort_reason.
    """

    successes: int
    trials: int
    unknown: int
    aborted: int
    policy: Dict[str, Any]
    actor: str
    task: str
    robot: str
    rows: List[Dict[str, Any]]

    @property
    def interval(self) -> Tuple[float, float]:
        """Wilson 95 % interval of the success rate (E. B. Wilson 1927)."""
        return wilson(self.successes, self.trials)

    def line(self) -> str:
        """Return k/n with its interval, and the unlabelled and aborted trials, in one line."""
        text = rate_text(self.successes, self.trials)
        if self.unknown:
            text += f", {self.unknown} without a label"
        if self.aborted:
            text += f", {self.aborted} aborted"
        return text

    def to_json(self) -> str:
        """Return all fields and the interval as JSON."""
        low, high = self.interval
        data = {**dataclasses.asdict(self), "wilson_low": low, "wilson_high": high}
        return f"{json.dumps(data, indent=2)}\n"


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


def report_trials(folder: Path) -> TrialReport:
    """Count the episodes of a folder.

    Raises:
        DatasetError: the folder holds no episode, or one that cannot be read; nothing is
            counted then.
    """
    dataset = open_dataset(folder)
    rows = [
        {
            "file": path.name,
            "seed": meta.seed,
            "label": LABEL_NAMES.get(meta.success, "unknown"),
            "steps": steps,
            "abort_reason": meta.abort_reason,
        }
        for path, meta, steps in zip(dataset.paths, dataset.metas, dataset.lengths)
    ]
    first = dataset.metas[0]
    # A policy is identified by its hash, not its path; sampled and deterministic are two policies.
    policies = {(m.policy.get("sha256"), recorded_choice(m.policy)) for m in dataset.metas}
    return TrialReport(
        successes=sum(m.success == SUCCESS and not m.abort_reason for m in dataset.metas),
        trials=len(rows),
        unknown=sum(m.success == UNKNOWN for m in dataset.metas),
        aborted=sum(bool(m.abort_reason) for m in dataset.metas),
        policy=first.policy if len(policies) == 1 else {"mixed": len(policies)},
        actor=", ".join(sorted({m.actor for m in dataset.metas})),
        task=first.task,
        robot=first.robot,
        rows=rows,
    )
