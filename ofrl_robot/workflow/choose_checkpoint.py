"""From a run's own files to its verdict and the checkpoint that is deployed."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from ofrl_robot.errors import CheckpointError
from ofrl_robot.policy.checkpoint import SELECTED
from ofrl_robot.training import run_folder
from ofrl_robot.workflow.diagnosis import Diagnosis, diagnose


def diagnose_run(folder: Path) -> Diagnosis:
    """Diagnose a finished or interrupted run."""
    config = run_folder.read_config(folder)
    rows = run_folder.read_metrics(folder)
    algo_config, train = config["algo_config"], config["train"]
    may_be_negative = (
        config["algo"] == "brac"
        or algo_config.get("entropy_backup", False)
        or min(train.get("reward_scale", 1.0), train.get("reward_bias", 0.0)) < 0
    )
    return diagnose(
        rows, int(algo_config.get("warm_start_steps", 0)), may_be_negative=may_be_negative
    )


def select_checkpoint(folder: Path) -> Diagnosis:
    """Diagnose a run and write the choice into its ``selected.json``, which deployment reads.

    Raises CheckpointError when there is nothing to deploy.
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
        "next_step": diagnosis.next_step,
        "thresholds": dataclasses.asdict(diagnosis.thresholds),
    }
    temporary = folder / (f"{SELECTED}.tmp")
    try:
        temporary.write_text(f"{json.dumps(choice, indent=2)}\n")
        os.replace(str(temporary), str(folder / SELECTED))
    except OSError as error:
        raise CheckpointError(
            f"cannot write the choice ({error.strerror})",
            "make the run folder writable",
            folder / SELECTED,
        ) from error
    return diagnosis
