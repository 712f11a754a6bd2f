"""Corrections: what to change in the next run, as settings, prose and a command line."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ofrl_robot.training import run_folder
from ofrl_robot.workflow.flags import to_flags

LOWER_RATE = 1 / 3  # of the learning rates, after a divergence
LONGER = 2  # times as many steps, while dataset Q still rises
LEARNING_RATES = ("actor_lr", "critic_lr")
DEFAULT_OUT = Path("runs")  # of `ofrl train`


@dataclasses.dataclass(frozen=True)
class Correction:
    """One thing to do after a run.

    Attributes:
        settings: setting of ``ofrl train`` -> value that the next run should have; empty when
            there is nothing to train.
        why: what to do and why, as an imperative clause without a full stop.
    """

    settings: Dict[str, Any]
    why: str


def after_overfitting(settings: Mapping[str, Any]) -> Tuple[Correction, ...]:
    """Return the corrections of an overfitting critic, in the order in which to try them.

    Args:
        settings: settings of the run by name; corrections that it had already are left out.
    """
    found = (
        Correction(
            {"bottleneck": True},
            "retrain with less capacity: a variational bottleneck is the correction to try first",
        ),
        Correction({"dropout": 0.2}, "retrain with less capacity: dropout"),
        Correction(
            {"regularization": "l1"},
            "retrain with less capacity: an L1 penalty on the critics' weights",
        ),
        Correction({}, "or collect more episodes; deploy the checkpoint at the peak meanwhile"),
    )
    return _not_in_use(found, settings)


def after_underfitting(settings: Mapping[str, Any]) -> Tuple[Correction, ...]:
    """Return the corrections of an underfitting critic, see :func:`after_overfitting`."""
    check = "a run that lowers both TD error and CQL term by 20 % confirms the verdict"
    found = (
        Correction(
            {"resnet_enc": True},
            f"retrain with more capacity: a residual image encoder; {check}",
        ),
        Correction({"dr3_feat": True}, f"retrain with the DR3 penalty on the features; {check}"),
    )
    left = _not_in_use(found, settings)
    return left or (Correction({}, f"retrain with larger networks; {check}"),)


def after_clipping() -> Tuple[Correction, ...]:
    """Return the correction of a run whose targets were clipped too often to be judged."""
    why = "train again without clipping targets: this run cannot be judged, only tried"
    return (Correction({"clip_targets": False}, why),)


def after_divergence(settings: Mapping[str, Any]) -> Tuple[Correction, ...]:
    """Return the correction of a run whose metrics became non-finite."""
    rates = {name: settings[name] for name in LEARNING_RATES if name in settings}
    lower = {name: float(f"{LOWER_RATE * rate:.2g}") for name, rate in rates.items()}
    return (Correction(lower, "retrain with lower learning rates: the run diverged"),)


def while_rising(settings: Mapping[str, Any], steps: int) -> Tuple[Correction, ...]:
    """Return the correction of a run of ``steps`` steps whose dataset Q still rises."""
    longer = {"steps": LONGER * int(settings.get("steps", steps)), "resume": True}
    why = "deploy the last checkpoint, and train longer: it is not at its best yet"
    return (Correction(longer, why),)


def after_good_fit() -> Tuple[Correction, ...]:
    """Return what to do after a run with nothing to correct."""
    return (Correction({}, "deploy this checkpoint; more data is the next improvement"),)


def without_values() -> Tuple[Correction, ...]:
    """Return what to do after a run of an algorithm that learns no Q-function."""
    return (Correction({"algo": "cql"}, "train CQL on the same data to get a diagnosis"),)


def _not_in_use(
    corrections: Sequence[Correction], settings: Mapping[str, Any]
) -> Tuple[Correction, ...]:
    return tuple(
        correction
        for correction in corrections
        if not correction.settings or not correction.settings.items() <= settings.items()
    )


# -- as text ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class NextStep:
    """A correction of one run in words.

    Attributes:
        why: what to do and why, as one sentence.
        command: command line that does it, or empty.
    """

    why: str
    command: str


def next_steps(
    run: Path, config: Mapping[str, Any], corrections: Sequence[Correction]
) -> List[NextStep]:
    """Return the corrections of a run as prose with the command line of each.

    Args:
        run: run folder, as the commands should name it.
        config: the run's ``config.json``.
    """
    steps = []
    for correction in corrections:
        sentence = f"{correction.why[0].upper()}{correction.why[1:]}."
        steps.append(NextStep(sentence, _command(run, str(config["dataset"]), correction.settings)))
    return steps


def _command(run: Path, dataset: str, settings: Mapping[str, Any]) -> str:
    """Return the ``ofrl train`` command that repeats a run with other settings."""
    if not settings:
        return ""
    words = ["ofrl", "train", dataset]
    if "algo" not in settings:  # the settings of another algorithm do not apply
        words += ["--config", str(run / run_folder.SETTINGS)]
    words += to_flags(settings)
    if run.parent != DEFAULT_OUT:
        words += ["--out", str(run.parent)]
    name = run.resolve().name
    if settings.get("resume"):
        words += ["--name", name]
    elif "algo" not in settings:
        words += ["--name", f"{name}-{'-'.join(_name(*item) for item in settings.items())}"]
    return " ".join(shlex.quote(word) for word in words)


def _name(setting: str, value: Any) -> str:
    name = setting.replace("_", "-")
    return name if value is True else f"{name}-{value}"
