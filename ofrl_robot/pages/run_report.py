"""One self-contained HTML page about a run: verdict, curves, trials with film strips, settings.

This module gathers the contents; ``templates/report.html.j2`` is the layout, ``plots`` draws the
curves and ``film_strip`` the strips. Everything is read from files on disk, and the page is
written only if all of it could be read.
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot import __version__
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.errors import DatasetError
from ofrl_robot.evaluation.stress import FILE as STRESS_FILE
from ofrl_robot.evaluation.stress import read_stress
from ofrl_robot.evaluation.trials import TrialReport, report_groups
from ofrl_robot.pages.film_strip import choose, film_strip
from ofrl_robot.pages.html import template, write_page
from ofrl_robot.pages.plots import Measured, pictures
from ofrl_robot.pages.stress_plot import stress_picture
from ofrl_robot.policy.checkpoint import Header, checkpoint_hash, load_checkpoint
from ofrl_robot.policy.choice import CHOICE_WORDS, recorded_choice
from ofrl_robot.specs import STATE
from ofrl_robot.training import run_folder
from ofrl_robot.workflow import diagnosis as verdicts
from ofrl_robot.workflow.choose_checkpoint import diagnose_run, run_next_steps
from ofrl_robot.workflow.diagnosis import Diagnosis

FILE = "report.html"
_MAX_STEP = 10**12  # a larger number in an episode's file is no step
_PACKAGES = ("torch", "numpy", "scipy", "h5py", "safetensors", "pybullet", "gymnasium")

_SENTENCES = {  # verdict -> headline, meaning for deployment
    verdicts.OVERFIT: (
        "The critic overfits.",
        "Dataset Q fell after a peak. Deploy {step}, the checkpoint at the peak, not the last one.",
    ),
    verdicts.UNDERFIT: (
        "The critic underfits.",
        "It does not fit its own targets. Until a better run exists, {step}, the last checkpoint, "
        "is the one to deploy.",
    ),
    verdicts.GOOD: (
        "A good fit.",
        "Dataset Q does not fall and the critic fits its targets. Deploy {step}, the last "
        "checkpoint.",
    ),
    verdicts.CLIPPED: (
        "No verdict: targets were clipped.",
        "Dataset Q and TD error show the clip, not the critic. The last checkpoint, {step}, is "
        "taken.",
    ),
    verdicts.NO_VALUE: (
        "No verdict.",
        "{algo} learns no Q-function to diagnose. The last checkpoint, {step}, is taken.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Trials:
    """The episodes of a folder that share their conditions, as a row of the table.

    Attributes:
        folder: of the episodes.
        report: their counts.
        what: who acted, in words.
        step: checkpoint of *this* run that acted, or None (scripted, another run).
        deployed: whether that is the selected checkpoint.
    """

    folder: Path
    report: TrialReport
    what: str
    step: Optional[int]
    deployed: bool

    @property
    def rate(self) -> float:
        """Success rate, 0 to 1; 0 when every trial was aborted."""
        return self.report.successes / max(1, self.report.trials)


def write_report(
    run: Path, trials: Sequence[Path] = (), out: Optional[Path] = None, compare: Sequence[Path] = ()
) -> Path:
    """Write the page of a run and return its path.

    Args:
        run: run folder.
        trials: folders of recorded episodes to set beside the verdict; the dataset that was
            trained on may be one of them.
        out: file to write (default ``<run>/report/report.html``).
        compare: other run folders; a table shows their verdicts and errors beside this run's.

    Raises:
        OfrlError: something cannot be read or written; an existing page is left as it was.
    """
    path = out or run / run_folder.REPORT / FILE
    page = template("report.html.j2").render(_contents(run, trials, compare))
    write_page(path, [page], "report")
    return path


def _contents(run: Path, folders: Sequence[Path], compare: Sequence[Path]) -> Dict[str, Any]:
    """Return the values that the template shows."""
    config = run_folder.read_config(run)
    rows = run_folder.read_metrics(run)
    diagnosis = diagnose_run(run)
    header = _header(run, diagnosis.selected_step)
    trials = [t for folder in folders for t in _trials(run, folder, diagnosis, header)]
    tasks = [header.task] if header else [t.report.conditions.task for t in trials]
    filmed = _filmed(trials)
    shown = choose(filmed.report.rows) if filmed else []
    camera = _camera(config)
    headline, sentence = _SENTENCES[diagnosis.verdict]
    return {
        "run": run.resolve().name,
        "algo": config["algo"].upper(),
        "task": tasks[0] if tasks else "unknown task",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        "diagnosis": diagnosis,
        "next_steps": run_next_steps(run, diagnosis),
        "headline": headline,
        "sentence": sentence.format(
            step=f"step\u00a0{diagnosis.selected_step:,}", algo=config["algo"].upper()
        ),
        "checkpoint": run_folder.checkpoint_path(run, diagnosis.selected_step),
        "checkpoint_found": header is not None,
        "pictures": pictures(
            rows,
            diagnosis,
            int(config["algo_config"].get("warm_start_steps", 0)),
            _measured(trials),
        ),
        "trials": trials,
        "filmed": filmed,
        "strips": [film_strip(filmed.folder, row, camera) for row in shown],
        "stress": _stress(run),
        "siblings": [_sibling(folder) for folder in (run, *compare)] if compare else [],
        "settings": _settings(config),
        "facts": _facts(config, header),
        "versions": _versions(header),
    }


def _camera(config: Dict[str, Any]) -> str:
    """Return the first camera that the policy observes, empty for the dataset's first."""
    names = str(config["train"].get("observe", "")).split(",")
    return next((name.strip() for name in names if name.strip() != STATE), "")


def _header(run: Path, step: int) -> Optional[Header]:
    """Return the header of a checkpoint, None if the file was removed to save space."""
    path = run_folder.checkpoint_path(run, step)
    return load_checkpoint(path)[0] if path.is_file() else None


# -- trials -----------------------------------------------------------------------------------


def _trials(
    run: Path, folder: Path, diagnosis: Diagnosis, header: Optional[Header]
) -> List[Trials]:
    """Return a row for each set of conditions in a folder."""
    return [_row(run, folder, report, diagnosis, header) for report in report_groups(folder)]


def _row(
    run: Path, folder: Path, report: TrialReport, diagnosis: Diagnosis, header: Optional[Header]
) -> Trials:
    step = _step_of_this_run(run, report.policy)
    if report.policy:
        choice = recorded_choice(report.policy)
        algo = str(report.policy.get("algo", "policy")).upper()
        what = f"{algo} step {_recorded_step(report.policy):,}, {CHOICE_WORDS.get(choice, choice)}"
        if step is None:
            what += ", not of this run"
    else:
        trained_on = header and open_dataset(folder).fingerprint() == header.dataset_fingerprint
        what = f"{report.conditions.actor or 'unnamed'} behaviour"
        if trained_on:
            what += ": the data of this run"
    return Trials(folder, report, what, step, step == diagnosis.selected_step)


def _step_of_this_run(run: Path, policy: Dict[str, Any]) -> Optional[int]:
    """Return the step of the run's checkpoint that made the trials, None if it was another one.

    Checkpoints are compared by hash, because files may have been moved.
    """
    step = _recorded_step(policy)
    path = run_folder.checkpoint_path(run, step)
    if path.is_file() and checkpoint_hash(path) == policy.get("sha256"):
        return step
    return None


def _recorded_step(policy: Dict[str, Any]) -> int:
    """Return the step in a policy's identity, 0 if the episodes hold none."""
    step = policy.get("step")
    return step if type(step) is int and 0 <= step < _MAX_STEP else 0


def _measured(trials: Sequence[Trials]) -> List[Measured]:
    """Return the success rates of checkpoints of this run, for the plot."""
    return [
        Measured(
            t.step,
            recorded_choice(t.report.policy),
            t.rate,
            *t.report.interval,
            # the plot tells the policy by its place; all other conditions need words
            dataclasses.replace(t.report.conditions, policy="", actor="").words(),
        )
        for t in trials
        if t.step is not None
    ]


def _filmed(trials: Sequence[Trials]) -> Optional[Trials]:
    """Return the trials to show strips of: the deployed policy's, else a policy's, else any."""
    ranked = sorted(trials, key=lambda t: (not t.deployed, not t.report.policy))  # stable
    return ranked[0] if ranked else None


def _stress(run: Path) -> Optional[Dict[str, Any]]:
    """Return what `ofrl stress` found out about a checkpoint of this run; None if it never ran."""
    folder = run / run_folder.STRESS
    if not (folder / STRESS_FILE).is_file():
        return None
    found = read_stress(folder)
    step = _step_of_this_run(run, found.policy)
    choice = recorded_choice(found.policy)
    return {
        "rows": found.rows,
        "lines": found.lines(),
        "picture": stress_picture(found),
        "folder": folder,
        "task": found.task,
        "what": f"step {_recorded_step(found.policy):,}, {CHOICE_WORDS.get(choice, choice)}"
        + ("" if step is not None else ", not of this run"),
    }


# -- siblings, settings, facts ----------------------------------------------------------------


def _sibling(folder: Path) -> Dict[str, Any]:
    """Return the verdict of a run and its mean errors over the last fifth of the checkpoints.

    Whether more capacity helps is read off these errors.
    """
    rows = run_folder.read_metrics(folder)
    diagnosis = diagnose_run(folder)
    tail = rows[-max(1, len(rows) // 5) :]
    sibling: Dict[str, Any] = {
        "run": folder.resolve().name,
        "verdict": diagnosis.verdict,
        "step": diagnosis.selected_step,
    }
    for name in ("data_q", "td_error", "cql_term"):
        sibling[name] = np.mean([row[name] for row in tail]) if name in rows[0] else None
    return sibling


def _settings(config: Dict[str, Any]) -> List[Tuple[str, List[Tuple[str, str]]]]:
    """Return ``config.json`` as (group, [(name, value)]), in the order of the file."""
    top = [(name, _text(value)) for name, value in config.items() if not isinstance(value, dict)]
    groups = [("run", top)]
    for group, values in config.items():
        if isinstance(values, dict):
            groups.append((group, [(name, _text(value)) for name, value in values.items()]))
    return groups


def _text(value: Any) -> str:
    if value is None or value == "":
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return str(value)


def _facts(config: Dict[str, Any], header: Optional[Header]) -> List[Tuple[str, str]]:
    """Return the facts about the training data, from its folder if it is still there."""
    facts = [("folder", str(config["dataset"]))]
    try:
        data = open_dataset(Path(config["dataset"]))
    except DatasetError:
        facts.append(("episodes", "folder not found; the facts below are the checkpoint's"))
    else:
        count = len(data.paths)
        share = 100.0 * data.successes / count
        text = f"{count:,}, of which {data.successes:,} successes ({share:.0f} %)"
        facts += [("episodes", text), ("transitions", f"{sum(data.lengths):,}")]
        now = data.fingerprint()
        if header and now != header.dataset_fingerprint:
            text = f"the folder is not the one that was trained on: its fingerprint is {now[:16]}"
            facts.append(("changed", text))
    if header:
        facts += [
            ("robot", header.robot),
            (
                "observes",
                ", ".join(f"{k} {'x'.join(map(str, v))}" for k, v in header.shapes.items()),
            ),
            ("control rate", f"{header.control_rate_hz:g} Hz"),
            ("actions", ", ".join(header.action_spec.names)),
            ("fingerprint", header.dataset_fingerprint),
        ]
    return facts


def _versions(header: Optional[Header]) -> List[Tuple[str, str]]:
    trained = f" (trained with {header.software_version})" if header else ""
    versions = [("ofrl_robot", __version__ + trained), ("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            versions.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue  # a workstation that only reads reports need not have the simulator
    return versions
