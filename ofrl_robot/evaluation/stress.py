"""Stress: a policy's success under single disturbances, each beside the undisturbed trials.

Every row has the same seeds, so the objects lie at the same places and rows are pairs: of each
trial it is known whether it was won without and lost with the disturbance. A row is a folder of
episodes, recorded and counted as by `ofrl evaluate`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from scipy.stats import binomtest

from ofrl_robot import files
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.numbering import unfinished
from ofrl_robot.data.episodes.schema import LABEL_NAMES, SUCCESS, episode_paths
from ofrl_robot.errors import ConfigError, DatasetError, RobotError
from ofrl_robot.evaluation.simulated import rig_for, use_one_thread
from ofrl_robot.evaluation.trials import TrialReport, report_groups, wilson
from ofrl_robot.policy.policy import Policy
from ofrl_robot.processes import Lost, watched_map
from ofrl_robot.recording.session import episode_meta, record_episodes
from ofrl_robot.sim.options import SimOptions
from ofrl_robot.sim.realism import parse_realism

FILE = "stress.json"
UNDISTURBED = "undisturbed"
SECONDS_PER_TRIAL = 60.0  # a process that takes longer hangs; a trial takes 0.2 s
SECONDS_TO_START = 300.0
SENSITIVE = 0.05  # a smaller p of the sign test

# Two strengths of each, a usual one and one that is rare in a lab: see sim/realism.py.
GRID: Tuple[Tuple[str, Tuple[Union[float, str], ...]], ...] = (
    ("light_angle", (20.0, 45.0)),
    ("light_level", (0.3, 0.6)),
    ("light_gradient", (15.0, 30.0, 60.0)),
    ("table_color", (0.1, 0.2)),
    ("table_texture", (1.0,)),
    ("object_color", (0.1, 0.2)),
    ("camera_shift_mm", (5.0, 10.0)),
    ("camera_tilt_deg", (1.0, 2.0)),
    ("exposure", (0.1, 0.2)),
    ("white_balance", (0.08, 0.15)),
    ("image_noise", (5.0, 15.0)),
    ("camera_latency", (1, 3)),
    ("dropped_frames", (0.1, 0.3)),
    ("action_delay", (1, 2)),
    ("action_noise", (0.1, 0.2)),
    ("gripper_delay", (1, 3)),
    ("object_size", (0.85, 1.15)),
    ("looks", ("mild", "harsh")),
)


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """One row: what is changed, and the realism that changes it."""

    name: str
    value: str
    realism: str

    @property
    def disturbed(self) -> bool:
        """Whether anything is changed."""
        return self.name != UNDISTURBED


@dataclasses.dataclass(frozen=True)
class StressRow:
    """The trials under one disturbance.

    Attributes:
        disturbance, value: what was changed, and to what; ``UNDISTURBED`` and empty for nothing.
        realism: all imperfections, as ``parse_realism`` reads them.
        k, n: successes and trials.
        interval: Wilson 95 % interval of k/n.
        lost, gained: trials that were won without the disturbance and lost with it; and the
            other way round.
        p: two-sided p of the exact sign test of lost against gained (McNemar), 1 for none.
        seeds: of the trials, in words.
        backend, control_rate_hz, action_choice: as in ``Conditions``.
        picture_score: median over the trials of how far their pictures are outside the policy's
            training data, None if its checkpoint does not know.
    """

    disturbance: str
    value: str
    realism: str
    k: int
    n: int
    interval: Tuple[float, float]
    lost: int
    gained: int
    p: float
    seeds: str
    backend: str
    control_rate_hz: float
    action_choice: str
    picture_score: Optional[float]

    @property
    def sensitive(self) -> bool:
        """Whether it lost more trials than chance explains."""
        return self.lost > self.gained and self.p < SENSITIVE

    @property
    def name(self) -> str:
        """Disturbance and value, for people."""
        return f"{self.disturbance} {self.value}".strip()


@dataclasses.dataclass(frozen=True)
class Stress:
    """All rows of a policy; the undisturbed one comes first.

    Attributes:
        policy: its identity.
        task: simulated task.
        seed: of the first trial.
        trials: of each row.
        rows: those that are finished.
    """

    policy: Dict[str, Any]
    task: str
    seed: int
    trials: int
    rows: Tuple[StressRow, ...]

    def to_json(self) -> str:
        """Return the contents of ``stress.json``."""
        return f"{json.dumps(dataclasses.asdict(self), indent=2)}\n"

    def lines(self) -> List[str]:
        """Return what the policy is sensitive to, in words."""
        plain = self.rows[0]
        if 2 * plain.k < plain.n:
            return [f"undisturbed only {plain.k}/{plain.n}: there is little to lose, train first"]
        weak = sorted((row for row in self.rows if row.sensitive), key=lambda row: row.k)
        if not weak:
            return ["no disturbance cost more trials than chance explains"]
        return [
            f"sensitive to {row.name}: {row.k}/{row.n} instead of {plain.k}/{plain.n} "
            f"({row.lost} lost, {row.gained} gained, p = {row.p:.2g})"
            for row in weak
        ]


def read_stress(folder: Path) -> Stress:
    """Read ``stress.json`` of a folder.

    Raises:
        ConfigError: it is not there, or no JSON.
        DatasetError: it holds something else.
    """
    path = folder / FILE
    try:
        data = files.read_json(path)
        rows = tuple(
            StressRow(**{**row, "interval": tuple(row["interval"])}) for row in data["rows"]
        )
        return Stress(**{**data, "rows": rows})
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"not the result of a stress ({type(error).__name__})", "run `ofrl stress` again", path
        ) from error


def disturbances(texts: Sequence[str], base: str) -> List[Disturbance]:
    """Return the rows of a stress, the undisturbed one first.

    Args:
        texts: settings such as ``light_gradient=30``, several with commas between; none for
            all of ``GRID``.
        base: realism of the undisturbed row; each disturbance comes on top.

    Raises:
        ConfigError: a text is none that ``parse_realism`` reads, or occurs twice.
    """
    usual = [
        f"{name}={value if isinstance(value, str) else format(value, 'g')}"
        for name, values in GRID
        for value in values
    ]
    rows = [Disturbance(UNDISTURBED, "", base)]
    for text in texts or usual:
        plain = text.replace(" ", "")
        name, given, value = plain.partition("=")
        if not given:
            raise ConfigError(f"disturbance {text!r} has no value", "use NAME=VALUE")
        joined = "," in value
        realism = plain if base == "off" else f"{base},{plain}"
        rows.append(Disturbance(plain if joined else name, "" if joined else value, realism))
    for row in rows:
        parse_realism(row.realism)
    names = [row.realism for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{twice} is there twice", "leave one of them out")
    return rows


@dataclasses.dataclass(frozen=True)
class Trials:
    """How the trials of every row are made; sent to the processes that record.

    Attributes:
        checkpoint: file of the policy.
        action_choice: how it chooses actions.
        options: of the simulator, those of the undisturbed row.
        seed, count: of the first trial, and how many.
        folder: holds a folder for each row.
    """

    checkpoint: Path
    action_choice: str
    options: SimOptions
    seed: int
    count: int
    folder: Path

    def row_folder(self, row: Disturbance) -> Path:
        """Return the folder of a row's episodes."""
        return self.folder / (row.realism if row.disturbed else UNDISTURBED)

    def __call__(self, row: Disturbance) -> int:
        """Record the trials of a row; return how many."""
        policy = _policy(self.checkpoint, self.action_choice)
        rig = rig_for(policy, dataclasses.replace(self.options, realism=row.realism))
        try:
            meta = episode_meta(rig, actor="policy", policy=policy.identity())
            record_episodes(rig, policy, self.row_folder(row), self.count, self.seed, meta)
        finally:
            rig.close()
        return self.count


@functools.lru_cache(maxsize=1)
def _policy(checkpoint: Path, action_choice: str) -> Policy:
    """Load the policy once in each process."""
    use_one_thread()
    return Policy(checkpoint, action_choice)


def run_stress(
    trials: Trials, rows: Sequence[Disturbance], policy: Policy, workers: int
) -> Iterator[Stress]:
    """Record the rows that are not on disk yet; yield the result so far after each.

    ``stress.json`` is written anew before each yield, the rows in the given order. Rows that are
    finished on disk are counted, not recorded again. A row that was cut short is recorded anew.

    Raises:
        ConfigError: the folder holds trials of another policy or with other settings.
        RobotError: a row failed; the message names it, finished rows are kept.
    """
    missing = [row for row in rows if not _finished(trials, row, policy)]
    done = [row for row in rows if row not in missing]
    for row in missing:
        _clear(trials.row_folder(row))
    if not missing:
        yield _written(trials, done, policy)
    elif rows[0] in missing:  # the others are compared with it
        missing.remove(rows[0])
        done.insert(0, rows[0])
        for _ in _recorded(trials, [rows[0]], 1):
            yield _written(trials, done, policy)
    for row in _recorded(trials, missing, workers):
        done = [known for known in rows if known in (*done, row)]
        yield _written(trials, done, policy)


def _clear(folder: Path) -> None:
    """Remove the episodes of a row that was cut short, and nothing else.

    Raises:
        DatasetError: a recorder is at work in the folder.
    """
    if folder.is_dir():
        with one_writer(folder):
            for path in (*episode_paths(folder), *unfinished(folder)):
                path.unlink()


def _recorded(trials: Trials, rows: Sequence[Disturbance], workers: int) -> Iterator[Disturbance]:
    """Record rows in processes; yield each when it is finished."""
    seconds = SECONDS_TO_START + SECONDS_PER_TRIAL * trials.count
    for index, result in watched_map(trials, rows, lambda _: seconds, workers):
        if isinstance(result, Lost):
            raise RobotError(
                f"its trials failed ({result.reason})",
                "finished rows are kept; run it again to go on",
                rows[index].realism,
            )
        yield rows[index]


def _finished(trials: Trials, row: Disturbance, policy: Policy) -> bool:
    """Return whether a row's folder holds all of its trials.

    Raises:
        ConfigError: it holds other trials.
    """
    folder = trials.row_folder(row)
    if not (folder.is_dir() and episode_paths(folder)):
        return False
    reports = report_groups(folder)
    identity = policy.identity()
    seeds = {one["seed"] for report in reports for one in report.rows}
    first = reports[0]
    if (
        len(reports) > 1
        or first.policy.get("sha256") != identity["sha256"]
        or first.conditions.action_choice != identity["action_choice"]
        or first.conditions.realism != row.realism
        or not seeds <= set(range(trials.seed, trials.seed + trials.count))
    ):
        raise ConfigError(
            f"holds trials of another policy or other settings ({first.line()})",
            "choose another --out",
            folder,
        )
    return len(first.rows) == trials.count


def _written(trials: Trials, rows: Sequence[Disturbance], policy: Policy) -> Stress:
    """Count the rows on disk, write the result and return it."""
    reports = [report_groups(trials.row_folder(row))[0] for row in rows]
    plain = _won(reports[0])
    result = Stress(
        policy.identity(),
        policy.header.task,
        trials.seed,
        trials.count,
        tuple(_row(row, report, plain) for row, report in zip(rows, reports)),
    )
    files.make_folder(trials.folder)
    files.write_whole(trials.folder / FILE, result.to_json())
    return result


def _row(row: Disturbance, report: TrialReport, plain: Dict[int, bool]) -> StressRow:
    won = _won(report)
    lost = sum(plain[seed] and not won[seed] for seed in won)
    gained = sum(won[seed] and not plain[seed] for seed in won)
    changed = lost + gained
    scores = [one["pictures"]["score"] for one in report.rows if "score" in one["pictures"]]
    return StressRow(
        disturbance=row.name,
        value=row.value,
        realism=row.realism,
        k=report.successes,
        n=report.trials,
        interval=wilson(report.successes, report.trials),
        lost=lost,
        gained=gained,
        p=float(binomtest(lost, changed).pvalue) if changed else 1.0,
        seeds=report.seeds,
        backend=report.conditions.backend,
        control_rate_hz=report.conditions.control_rate_hz,
        action_choice=report.conditions.action_choice,
        picture_score=float(np.median(scores)) if scores else None,
    )


def _won(report: TrialReport) -> Dict[int, bool]:
    """Return by seed whether a trial was a success."""
    return {row["seed"]: row["label"] == LABEL_NAMES[SUCCESS] for row in report.rows}
