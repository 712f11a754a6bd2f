"""Success rates: k of n with a Wilson interval; aborts, help and missing labels are counted apart.

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
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import LABEL_NAMES, SUCCESS, UNKNOWN, EpisodeMeta
from ofrl_robot.policy.choice import recorded_choice


@dataclasses.dataclass(frozen=True)
class TrialReport:
    """The outcome of a set of trials.

    Attributes:
        successes: k; the policy's own: without an intervention.
        trials: n; all episodes of the folder that were not aborted.
        unknown: trials without a label; they are in n.
        aborted: episodes that a stop or the end of the session cut short; not in n, since nobody
            knows how they would have ended.
        helped: trials in which a human overrode the policy at least once; in n.
        helped_successes: those of them that succeeded; not in k.
        policy: identity of the policy, empty without one, ``{"mixed": count}`` for several.
        actor: who acted; several are joined by commas.
        task: of the first trial.
        robot: of the first trial.
        rows: one dict per episode, aborted ones too: file, seed, label, steps, abort_reason,
            interventions (steps in which a human overrode the policy).
    """

    successes: int
    trials: int
    unknown: int
    aborted: int
    helped: int
    helped_successes: int
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
        """Return k/n with its interval and, apart, all other trials, in one line."""
        text = rate_text(self.successes, self.trials)
        if self.helped:
            text += f" without help, {self.helped_successes} of {self.helped} with help"
        if self.unknown:
            text += f", {self.unknown} without a label"
        if self.aborted:
            text += f", {self.aborted} aborted (not counted)"
        return text

    def to_json(self) -> str:
        """Return all fields and the interval as JSON."""
        low, high = self.interval
        data = {**dataclasses.asdict(self), "wilson_low": low, "wilson_high": high}
        return f"{json.dumps(data, indent=2)}\n"


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
            "interventions": _interventions(path, meta),
        }
        for path, meta, steps in zip(dataset.paths, dataset.metas, dataset.lengths)
    ]
    counted = [row for row in rows if not row["abort_reason"]]
    helped = [row for row in counted if row["interventions"]]
    won = LABEL_NAMES[SUCCESS]
    first = dataset.metas[0]
    # A policy is identified by its hash, not its path; sampled and deterministic are two policies.
    policies = {(m.policy.get("sha256"), recorded_choice(m.policy)) for m in dataset.metas}
    return TrialReport(
        successes=sum(row["label"] == won and not row["interventions"] for row in counted),
        trials=len(counted),
        unknown=sum(row["label"] == LABEL_NAMES[UNKNOWN] for row in counted),
        aborted=len(rows) - len(counted),
        helped=len(helped),
        helped_successes=sum(row["label"] == won for row in helped),
        policy=first.policy if len(policies) == 1 else {"mixed": len(policies)},
        actor=", ".join(sorted({m.actor for m in dataset.metas})),
        task=first.task,
        robot=first.robot,
        rows=rows,
    )
