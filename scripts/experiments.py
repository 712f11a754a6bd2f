"""Run the experiments behind docs/experiments.md: k/n on unseen seeds for every run.

``make experiments`` runs all of them, `--only NAME` some. They need no ROS (the loop is the same,
see tests/ros/test_launch.py) and take hours on 2 cores. Finished trainings and evaluations are not
repeated, so a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from ofrl_robot.evaluation.trials import rate_text, report_trials
from ofrl_robot.policy.checkpoint import checkpoint_hash
from ofrl_robot.policy.choice import CHOICE_WORDS, MODE, SAMPLE
from ofrl_robot.training.run_folder import (
    CONFIG,
    checkpoint_path,
    checkpoint_steps,
    read_config,
)
from ofrl_robot.workflow.choose_checkpoint import select_checkpoint

ROOT = Path(__file__).resolve().parent.parent
GRASP, TRAY = "Widow250SingleObjGrasp-v0", "Widow250PickTray-v0"
OPEN = "Widow250DoubleDrawerOpenGraspNeutral-v0"
CLOSE_OPEN = "Widow250DoubleDrawerCloseOpenGraspNeutral-v0"
EPISODES = 300


class Experiment(NamedTuple):
    """One training setting, repeated over seeds.

    Attributes:
        task: simulator task of data and trials.
        config: file in config/training.
        flags: settings that differ from that file.
        seeds: training seeds.
        choices: action choices to evaluate the selected checkpoint with.
        every: evaluate all checkpoints, not only the selected one.
    """

    task: str
    config: str
    flags: Tuple[str, ...] = ()
    seeds: Tuple[int, ...] = (0,)
    choices: Tuple[str, ...] = (MODE,)
    every: bool = False


EXPERIMENTS: Dict[str, Experiment] = {
    "grasp-cql": Experiment(GRASP, "grasp_cql", seeds=(0, 1, 2), every=True),
    "grasp-cql-raw-actor": Experiment(GRASP, "grasp_cql", ("--actor-average", "1"), every=True),
    "grasp-cql-no-bc": Experiment(GRASP, "grasp_cql", ("--actor-bc-weight", "0"), every=True),
    "grasp-cql-weight-5": Experiment(GRASP, "grasp_cql", ("--cql-weight", "5"), every=True),
    "grasp-cql-alpha-1": Experiment(GRASP, "grasp_cql", ("--initial-alpha", "1"), every=True),
    "grasp-cql-one-sample": Experiment(GRASP, "grasp_cql", ("--target-samples", "1"), every=True),
    "grasp-bc": Experiment(GRASP, "grasp_bc", seeds=(0, 1, 2), choices=(MODE, SAMPLE)),
    "open-cql": Experiment(OPEN, "open_grasp_cql", seeds=(0, 1, 2)),
    "open-cql-gaussian": Experiment(OPEN, "open_grasp_cql", ("--action-head", "gaussian")),
    "open-cql-fp32": Experiment(OPEN, "open_grasp_cql", ("--precision", "fp32"), every=True),
    "open-brac": Experiment(OPEN, "open_grasp_brac"),
    "open-bc": Experiment(OPEN, "drawer_bc", seeds=(0, 1, 2)),
    "close-open-cql": Experiment(CLOSE_OPEN, "close_open_grasp_cql", seeds=(0, 1, 2)),
    "close-open-bc": Experiment(CLOSE_OPEN, "drawer_bc", seeds=(0, 1, 2)),
    "tray-cql": Experiment(TRAY, "pick_tray_cql", seeds=(0,), every=True),
    "tray-bc": Experiment(TRAY, "grasp_bc", choices=(MODE, SAMPLE)),
}


def call(*words: object) -> None:
    """Run a command, and end the experiments if it fails."""
    code = subprocess.call([str(w) for w in words], cwd=ROOT)
    if code != 0:
        sys.exit(f"experiments: {words[1]} failed with exit code {code}")


def dataset(task: str) -> Path:
    """Return the dataset of a task: 300 scripted episodes, collected once."""
    folder = ROOT / "datasets" / "experiments" / task
    have = report_trials(folder).trials if folder.is_dir() else 0
    if have < EPISODES:
        call("ofrl", "collect", "--task", task, "--episodes", EPISODES - have, "--out", folder)
    return folder


def finished(run: Path) -> bool:
    """Return whether the run has the checkpoint of its last step."""
    if not (run / CONFIG).is_file():
        return False
    return checkpoint_path(run, read_config(run)["train"]["steps"]).is_file()


def evaluate(run: Path, step: int, trials: int, action_choice: str = MODE) -> str:
    """Return k/n of one checkpoint; trials that are on disk already are not run again."""
    name = f"{run.name}-{step}-{action_choice}"
    choice = ("--action-choice", action_choice)
    out = ROOT / "datasets" / "experiments" / "trials" / name
    if not evaluated(out, checkpoint_path(run, step), trials):
        shutil.rmtree(out, ignore_errors=True)  # unfinished, or of another policy
        checkpoint = checkpoint_path(run, step)
        call("ofrl", "evaluate", checkpoint, "--trials", trials, "--out", out, *choice)
    report = report_trials(out)
    return f"{report.successes}/{report.trials}"


def evaluated(out: Path, checkpoint: Path, trials: int) -> bool:
    """Return whether ``out`` has exactly that many trials of exactly that checkpoint."""
    if not out.is_dir() or not list(out.glob("*.h5")):
        return False
    report = report_trials(out)
    same = report.policy.get("sha256") == checkpoint_hash(checkpoint)
    return same and report.trials == trials


def run_experiment(name: str, trials: int) -> List[str]:
    """Run one experiment and return its results as Markdown lines."""
    experiment = EXPERIMENTS[name]
    data = dataset(experiment.task)
    behaviour = report_trials(data)
    lines = [f"### {name}", ""]
    settings = " ".join([f"`config/training/{experiment.config}.yaml`", *experiment.flags])
    rate = rate_text(behaviour.successes, behaviour.trials)
    lines.append(f"{settings}; demonstrations {rate}")
    columns = ["seed", "verdict", "selected step"]
    columns += [CHOICE_WORDS[choice] for choice in experiment.choices] + ["by step"]
    lines += ["", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for seed in experiment.seeds:
        run = ROOT / "runs" / "experiments" / f"{name}-seed{seed}"
        if not finished(run):
            shutil.rmtree(run, ignore_errors=True)  # an unfinished training
            config = ROOT / "config" / "training" / f"{experiment.config}.yaml"
            place = ("--seed", seed, "--out", run.parent, "--name", run.name)
            call("ofrl", "train", data, "--config", config, *experiment.flags, *place)
        selected = select_checkpoint(run)
        rates = [evaluate(run, selected.selected_step, trials, c) for c in experiment.choices]
        by_step = "-"
        if experiment.every:
            by_step = ", ".join(
                f"{step}: {evaluate(run, step, trials)}"
                for step in checkpoint_steps(run)
                if step >= 2000
            )
        row = [str(seed), selected.verdict, str(selected.selected_step), *rates, by_step]
        lines.append(f"| {' | '.join(row)} |")
    return lines + [""]


def main() -> None:
    """Run the experiments that the command line names, and write their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=sorted(EXPERIMENTS), help="run these")
    parser.add_argument("--trials", type=int, default=50, help="per checkpoint (default: 50)")
    arguments = parser.parse_args()
    results = ROOT / "runs" / "experiments" / "results"
    results.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or EXPERIMENTS:
        lines = run_experiment(name, arguments.trials)
        print("\n".join(lines), flush=True)
        (results / f"{name}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
