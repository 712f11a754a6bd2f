"""From a run's own files to its verdict and the checkpoint to deploy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from ofrl_robot import files
from ofrl_robot.algos.configs.base import AlgoConfig
from ofrl_robot.algos.registry import config_class
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.policy.checkpoint import SELECTED
from ofrl_robot.training import run_folder
from ofrl_robot.workflow.corrections import NextStep, next_steps
from ofrl_robot.workflow.diagnosis import LEAST_POINTS, Diagnosis, diagnose

_PARTS = ("algo_config", "nets", "train")  # groups of settings in config.json


def diagnose_run(folder: Path) -> Diagnosis:
    """Diagnose a finished or interrupted run.

    Raises:
        CheckpointError: ``folder`` is not a run, its files are damaged, or there is no
            checkpoint to judge.
    """
    config = _config(folder)
    settings: Dict[str, Any] = {}
    for part in _PARTS:
        settings.update(config[part])
    try:
        warm_start = _number(settings, "warm_start_steps", int)
        algo_config = _algo_config(config)
        rows = run_folder.read_metrics(folder)
        return diagnose(
            rows,
            _ignored_steps(rows, warm_start, algo_config.settling_steps),
            may_be_negative=_values_may_be_negative(config, algo_config),
            settings=settings,
        )
    except CheckpointError as error:
        where = error.where or folder
        raise CheckpointError(error.what, error.fix, where) from error


def select_checkpoint(folder: Path) -> Diagnosis:
    """Diagnose a run and write the choice to its ``selected.json``, which deployment reads.

    Raises:
        CheckpointError: there is nothing to deploy.
        OutputError: the choice cannot be written.
    """
    diagnosis = diagnose_run(folder)
    chosen = run_folder.checkpoint_path(folder, diagnosis.selected_step)
    if not chosen.is_file():
        raise CheckpointError("the selected checkpoint is missing", "train again", chosen)
    choice = {
        "file": str(chosen.relative_to(folder)),
        "step": diagnosis.selected_step,
        "verdict": diagnosis.verdict,
        "reasons": diagnosis.reasons,
        "corrections": [dataclasses.asdict(c) for c in diagnosis.corrections],
        "thresholds": dataclasses.asdict(diagnosis.thresholds),
    }
    files.write_whole(folder / SELECTED, f"{json.dumps(choice, indent=2)}\n")
    return diagnosis


def run_next_steps(folder: Path, diagnosis: Diagnosis) -> List[NextStep]:
    """Return what to do after a run, in words, with the command line of each step."""
    return next_steps(folder, _config(folder), diagnosis.corrections)


def verdict_lines(folder: Path, diagnosis: Diagnosis) -> List[str]:
    """Return the written verdict of a run: checkpoint, reasons, what to do next."""
    lines = [f"verdict: {diagnosis.verdict}   deploy: step {diagnosis.selected_step}"]
    lines += [f"  {reason}" for reason in diagnosis.reasons]
    for step in run_next_steps(folder, diagnosis):
        lines.append(f"  next: {step.why}")
        if step.command:
            lines.append(f"    {step.command}")
    return lines


def _config(folder: Path) -> Dict[str, Any]:
    """Return the run's settings. Raises CheckpointError unless all groups are there."""
    config = run_folder.read_config(folder)
    missing = [part for part in _PARTS if not isinstance(config.get(part), dict)]
    missing += [name for name in ("algo", "dataset") if not isinstance(config.get(name), str)]
    if missing:
        raise CheckpointError(
            f"damaged (no {', '.join(missing)})", "train again", folder / run_folder.CONFIG
        )
    return config


def _ignored_steps(rows: Sequence[Mapping[str, float]], warm_start: int, settled: int) -> int:
    """Return the step up to which checkpoints are not judged.

    It is the end of settling, or in a run too short for that the end of the warm start.
    """
    judged = sum(row.get("step", 0.0) > settled for row in rows)
    return settled if judged >= LEAST_POINTS else warm_start


def _values_may_be_negative(config: Mapping[str, Any], algo_config: AlgoConfig) -> bool:
    """Return whether true values below 0 are possible, by rewards or by penalties in targets."""
    train = config["train"]
    scale = _number(train, "reward_scale", float, 1.0)
    bias = _number(train, "reward_bias", float)
    return algo_config.values_may_be_negative(scale, bias)


def _algo_config(config: Mapping[str, Any]) -> AlgoConfig:
    """Return the run's own settings of its algorithm; those that it lacks are today's."""
    form = config_class(config["algo"])
    known = {field.name for field in dataclasses.fields(form)}
    settings = {name: value for name, value in config["algo_config"].items() if name in known}
    try:
        return form(**settings)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"damaged ({error})", "train again") from error


def _number(settings: Mapping[str, Any], name: str, kind: type, default: float = 0) -> Any:
    try:
        return kind(settings.get(name, default))
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"damaged ({name} {settings[name]!r:.40} is not a number)", "train again"
        ) from error
