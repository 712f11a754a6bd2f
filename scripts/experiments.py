"""Run the experiments behind docs/experiments.md: k/n on unseen seeds for every run.

``make experiments`` runs all of them, `--only NAME` some. They need no ROS (the loop is the same,
see tests/ros/test_launch.py) and take hours on 2 cores. Finished trainings and evaluations are not
repeated, so a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
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
WORK = ROOT / "datasets" / "experiments"
GRASP, TRAY = "Widow250SingleObjGrasp-v0", "Widow250PickTray-v0"
OPEN = "Widow250DoubleDrawerOpenGraspNeutral-v0"
CLOSE_OPEN = "Widow250DoubleDrawerCloseOpenGraspNeutral-v0"
PLACE_OPEN = "Widow250DoubleDrawerPickPlaceOpenGraspNeutral-v0"
REAL = ("--sim-backend", "roboverse")
# where the selected checkpoint is tried: flags of `ofrl evaluate`
CONDITIONS: Dict[str, Tuple[str, ...]] = {
    "embedded": (),
    "roboverse": REAL,
    "looks harsh": ("--realism", "looks=harsh"),
}
# what the data is recorded in: episodes and flags of `ofrl collect`
SOURCES: Dict[str, Tuple[int, Tuple[str, ...]]] = {
    "embedded": (300, ()),
    "roboverse": (100, REAL),
}


class Experiment(NamedTuple):
    """One training setting, repeated over seeds.

    Attributes:
        task: simulator task of data and trials.
        config: file in config/training.
        flags: settings that differ from that file.
        seeds: training seeds.
        choices: action choices to evaluate the selected checkpoint with.
        conditions: names in CONDITIONS, under which the selected checkpoint is evaluated.
        every: evaluate all checkpoints, not only the selected one.
        source: what recorded the data, a name in SOURCES.
    """

    task: str
    config: str
    flags: Tuple[str, ...] = ()
    seeds: Tuple[int, ...] = (0,)
    choices: Tuple[str, ...] = (MODE,)
    conditions: Tuple[str, ...] = ("embedded",)
    every: bool = False
    source: str = "embedded"


ELSEWHERE = ("embedded", "roboverse")
EVERYWHERE = ("embedded", "roboverse", "looks harsh")
DARK = ("--brightness", "0", "--contrast", "0", "--color", "0", "--illumination", "0", "--blur",
        "0", "--pixel-noise", "0")  # fmt: skip
EXPERIMENTS: Dict[str, Experiment] = {
    "grasp-cql": Experiment(GRASP, "grasp_cql", seeds=(0, 1, 2), conditions=EVERYWHERE),
    "grasp-cql-no-light": Experiment(GRASP, "grasp_cql", DARK, conditions=EVERYWHERE),
    "grasp-cql-roboverse": Experiment(GRASP, "grasp_cql", conditions=ELSEWHERE, source="roboverse"),
    "grasp-cql-raw-actor": Experiment(GRASP, "grasp_cql", ("--actor-average", "1"), every=True),
    "grasp-cql-no-bc": Experiment(GRASP, "grasp_cql", ("--actor-bc-weight", "0"), every=True),
    "grasp-cql-weight-5": Experiment(GRASP, "grasp_cql", ("--cql-weight", "5"), every=True),
    "grasp-cql-alpha-1": Experiment(GRASP, "grasp_cql", ("--initial-alpha", "1"), every=True),
    "grasp-cql-one-sample": Experiment(GRASP, "grasp_cql", ("--target-samples", "1"), every=True),
    "grasp-brac": Experiment(GRASP, "grasp_brac", seeds=(0, 1, 2)),
    "grasp-bc": Experiment(
        GRASP, "grasp_bc", seeds=(0, 1, 2), choices=(MODE, SAMPLE), conditions=ELSEWHERE
    ),
    "open-cql": Experiment(OPEN, "open_grasp_cql", seeds=(0, 1, 2, 3, 4), conditions=ELSEWHERE),
    "open-cql-state": Experiment(OPEN, "open_grasp_cql", ("--observe", "image,state")),
    "open-cql-gaussian": Experiment(OPEN, "open_grasp_cql", ("--action-head", "gaussian")),
    "open-cql-fp32": Experiment(OPEN, "open_grasp_cql", ("--precision", "fp32"), every=True),
    "open-brac": Experiment(OPEN, "open_grasp_brac", seeds=(0, 1, 2)),
    "open-bc": Experiment(OPEN, "drawer_bc", seeds=(0, 1, 2)),
    "close-open-cql": Experiment(CLOSE_OPEN, "close_open_grasp_cql", seeds=(0, 1, 2)),
    "close-open-bc": Experiment(CLOSE_OPEN, "drawer_bc", seeds=(0, 1, 2)),
    "place-open-cql": Experiment(PLACE_OPEN, "close_open_grasp_cql", seeds=(0, 1, 2)),
    "tray-cql": Experiment(TRAY, "pick_tray_cql", seeds=(0, 1, 2), conditions=ELSEWHERE),
    "tray-brac": Experiment(TRAY, "pick_tray_brac", seeds=(0, 1, 2)),
    "tray-bc": Experiment(TRAY, "grasp_bc", choices=(MODE, SAMPLE)),
}


def call(*words: object) -> None:
    """Run a command, and end the experiments if it fails."""
    code = subprocess.call([str(w) for w in words], cwd=ROOT)
    if code != 0:
        sys.exit(f"experiments: {words[1]} failed with exit code {code}")


def dataset(task: str, source: str) -> Path:
    """Return the dataset of a task: scripted episodes, collected once."""
    episodes, flags = SOURCES[source]
    folder = WORK / (task if source == "embedded" else f"{task}-{source}")
    have = report_trials(folder).trials if folder.is_dir() else 0
    if have < episodes:
        call("ofrl", "collect", "--task", task, "--episodes", episodes - have, "--out", folder,
             *flags)  # fmt: skip
    return folder


def finished(run: Path) -> bool:
    """Return whether the run has the checkpoint of its last step."""
    if not (run / CONFIG).is_file():
        return False
    return checkpoint_path(run, read_config(run)["train"]["steps"]).is_file()


def evaluate(
    run: Path, step: int, trials: int, action_choice: str = MODE, condition: str = "embedded"
) -> str:
    """Return k/n of one checkpoint; trials that are on disk already are not run again."""
    if condition == "roboverse" and importlib.util.find_spec("roboverse") is None:
        return "not run: roboverse is not installed (docs/simulator.md)"
    name = f"{run.name}-{step}-{action_choice}"
    if condition != "embedded":
        name += f"-{condition.replace(' ', '-')}"
    flags = ("--action-choice", action_choice, *CONDITIONS[condition])
    out = WORK / "trials" / name
    if not evaluated(out, checkpoint_path(run, step), trials):
        shutil.rmtree(out, ignore_errors=True)  # unfinished, or of another policy
        checkpoint = checkpoint_path(run, step)
        call("ofrl", "evaluate", checkpoint, "--trials", trials, "--out", out, *flags)
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
    data = dataset(experiment.task, experiment.source)
    behaviour = report_trials(data)
    lines = [f"### {name}", ""]
    settings = " ".join([f"`config/training/{experiment.config}.yaml`", *experiment.flags])
    rate = rate_text(behaviour.successes, behaviour.trials)
    lines.append(f"{settings}; demonstrations {rate}, {experiment.source}")
    columns = ["seed", "verdict", "selected step"]
    tries = [(choice, place) for choice in experiment.choices for place in experiment.conditions]
    columns += [f"{CHOICE_WORDS[choice]}, {place}" for choice, place in tries] + ["by step"]
    lines += ["", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for seed in experiment.seeds:
        run = ROOT / "runs" / "experiments" / f"{name}-seed{seed}"
        if not finished(run):
            shutil.rmtree(run, ignore_errors=True)  # an unfinished training
            config = ROOT / "config" / "training" / f"{experiment.config}.yaml"
            place = ("--seed", seed, "--out", run.parent, "--name", run.name)
            call("ofrl", "train", data, "--config", config, *experiment.flags, *place)
        selected = select_checkpoint(run)
        rates = [evaluate(run, selected.selected_step, trials, *each) for each in tries]
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
