"""Run the whole path in simulation, through real ROS: collect, train, diagnose, deploy, report.

``make demo`` runs it. Every number in its report and in demo.json is measured by the same run, the
seconds of each part included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

from ofrl_robot.errors import OfrlError
from ofrl_robot.evaluation.trials import TrialReport, report_trials
from ofrl_robot.files import read_json, write_whole
from ofrl_robot.pages.run_report import write_report
from ofrl_robot.policy.checkpoint import SELECTED
from ofrl_robot.workflow.choose_checkpoint import select_checkpoint, verdict_lines

ROOT = Path(__file__).resolve().parent.parent
TASK = "Widow250SingleObjGrasp-v0"
# lines of our nodes, among those of roslaunch: progress, counts, log messages, errors
NODE_LINE = re.compile(r"episodes \d|.*: \d+/\d+ = |\[(INFO|WARN|ERROR|FATAL)|\w+: .*;|Traceback")


class Demo:
    """One run of the demo.

    Args:
        name: run and dataset name; earlier output of that name is renamed.
        episodes: how many to collect.
        trials: how many to run with each policy.
        noise: action noise of the scripted teleoperator.

    Attributes:
        seconds: part of the demo -> wall time that it took.
    """

    def __init__(self, name: str, episodes: int, trials: int, noise: float) -> None:
        self.episodes, self.trials, self.noise = episodes, trials, noise
        self.seconds: Dict[str, float] = {}
        self.data = Path("datasets") / name
        self.trials_folder = Path("datasets") / f"{name}-trials"
        self.run, self.bc_run = Path("runs") / name, Path("runs") / f"{name}-bc"
        self.ros_log = Path("runs") / f"{name}-ros-log"
        for folder in (self.data, self.trials_folder, self.run, self.bc_run):
            set_aside(folder)
        # Its own master on a free port, so that a robot run from this machine is not disturbed.
        self.port = free_port()
        self.environment = dict(
            os.environ,
            ROS_MASTER_URI=f"http://127.0.0.1:{self.port}",
            ROS_IP="127.0.0.1",
            ROS_LOG_DIR=str(ROOT / self.ros_log),
            PWD=str(ROOT),  # the launch files resolve relative paths against it
        )

    def go(self) -> None:
        """Run all parts and print the result."""
        cql_config, bc_config = "config/training/grasp_cql.yaml", "config/training/grasp_bc.yaml"
        with self.timed("collect"):
            self.collect()
        with self.timed("train"):
            say(f"train CQL from pixels ({cql_config})")
            self.train(self.run, cql_config)
            say(f"train BC on the same episodes ({bc_config})")
            self.train(self.bc_run, bc_config)
        with self.timed("diagnose"):
            say("diagnose both runs")
            self.diagnose(self.run)
            self.diagnose(self.bc_run)
        with self.timed("deploy"):
            trials = {
                "cql": self.deploy("cql", self.run),
                "bc": self.deploy("bc", self.bc_run),
                "bc_sampled": self.deploy("bc_sampled", self.bc_run, action_choice="sample"),
            }
        with self.timed("report"):
            folders = [self.trials_folder / name for name in trials] + [self.data]
            page = write_report(self.run, folders)
        self.result(trials, page)

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the wall time of the block to that part of the demo."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - start

    def collect(self) -> None:
        """Record the dataset through ROS."""
        say(f"collect {self.episodes} scripted, noisy episodes of {TASK}")
        self.roslaunch(
            "collect.launch", task=TASK, episodes=self.episodes, noise=self.noise, out=self.data
        )
        if report_trials(self.data).trials != self.episodes:
            sys.exit(
                "demo: fewer episodes on disk than asked for; see runs/*-ros-log/roslaunch.log"
            )

    def train(self, run: Path, config: str) -> None:
        """Train one policy on the dataset."""
        command = ["ofrl", "train", str(self.data), "--config", config]
        self.call(command + ["--out", str(run.parent), "--name", run.name])

    def diagnose(self, run: Path) -> None:
        """Write and print the verdict on a run; deployment takes the checkpoint it selects."""
        print("\n".join(verdict_lines(run, select_checkpoint(run))))

    def deploy(self, name: str, run: Path, action_choice: str = "mode") -> TrialReport:
        """Run the trials of one policy through ROS, and count them."""
        say(f"deploy {name} for {self.trials} trials on unseen seeds")
        out = self.trials_folder / name
        self.roslaunch(
            "deploy.launch", task=TASK, ckpt=run, trials=self.trials, out=out,
            action_choice=action_choice,
        )  # fmt: skip
        report = report_trials(out)
        if report.trials != self.trials:
            sys.exit("demo: fewer trials on disk than asked for; see runs/*-ros-log/roslaunch.log")
        return report

    def result(self, trials: Dict[str, TrialReport], page: Path) -> None:
        """Print the counts and the time of each part, and write them to demo.json."""
        choice = read_json(self.run / SELECTED)
        trials["behaviour"] = report_trials(self.data)
        total = sum(self.seconds.values())
        result: Dict[str, Any] = {
            "task": TASK,
            "episodes": self.episodes,
            "seconds": round(total, 1),
            "seconds_by_part": {part: round(took, 1) for part, took in self.seconds.items()},
            "selected_step": choice["step"],
            "verdict": choice["verdict"],
        }
        for name, report in trials.items():
            result[name] = {"successes": report.successes, "trials": report.trials}
        path = page.parent / "demo.json"
        write_whole(path, f"{json.dumps(result, indent=2)}\n")
        say(f"result after {total:.0f} s")
        for name, report in trials.items():
            print(f"  {name:<11} {report.line()}")
        print(f"  verdict     {choice['verdict']}, deployed step {choice['step']}")
        parts = ", ".join(f"{part} {took:.0f}" for part, took in self.seconds.items())
        print(f"  seconds     {parts}")
        print(f"\nreport: {page}\n        {path}")

    def roslaunch(self, launch: str, **args: Any) -> None:
        """Run a launch file to its end; print the lines of our nodes, and log all lines."""
        words = ["roslaunch", "-p", str(self.port), "ofrl_robot", launch]
        words += [f"{k}:={v}" for k, v in {**args, "after_stop": "end"}.items()]  # nobody waits
        print(f"$ {' '.join(words[:1] + words[3:]).replace(f'{ROOT!s}/', '')}", flush=True)
        self.ros_log.mkdir(parents=True, exist_ok=True)
        log_path = self.ros_log / "roslaunch.log"
        with open(log_path, "a") as log, subprocess.Popen(
            words, env=self.environment, cwd=str(ROOT), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, universal_newlines=True,
        ) as process:  # fmt: skip
            try:
                for line in process.stdout or ():
                    log.write(line)
                    if NODE_LINE.match(line):
                        print(f"  {line.rstrip().replace(f'{ROOT!s}/', '')}", flush=True)
            except KeyboardInterrupt:
                # roslaunch got the same Ctrl-C; it ends its nodes before it closes its output
                for line in process.stdout or ():
                    log.write(line)
                raise
        if process.returncode != 0:
            sys.exit(f"demo: roslaunch {launch} failed; see {log_path}")

    def call(self, command: List[str]) -> None:
        """Run a command, and end the demo if it fails."""
        code = subprocess.call(command, env=self.environment, cwd=str(ROOT))
        if code != 0:
            sys.exit(f"demo: `{' '.join(command[:4])}` ended with exit code {code}")


def set_aside(folder: Path) -> None:
    """Rename the output of an earlier demo, so that nothing is overwritten."""
    if folder.exists():
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(folder.stat().st_mtime))
        kept = folder.with_name(f"{folder.name}-{stamp}")
        folder.rename(kept)
        print(f"kept the earlier {folder} as {kept}")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(text: str) -> None:
    """Print the headline of a part."""
    print(f"\n\033[1m== {text} ==\033[0m", flush=True)


def main() -> None:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="demo", help="run and dataset name (default: demo)")
    parser.add_argument("--episodes", type=int, default=300, help="to collect (default: 300)")
    parser.add_argument("--trials", type=int, default=50, help="per policy (default: 50)")
    parser.add_argument("--noise", type=float, default=0.1, help="of the actions (default: 0.1)")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    if shutil.which("roslaunch") is None:
        sys.exit("demo: no roslaunch; install ROS 1 (`make setup` names the packages)")
    try:
        Demo(**vars(arguments)).go()
    except OfrlError as error:
        print(f"demo: {error}; the log is runs/*-ros-log/roslaunch.log", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; whole episodes and checkpoints are kept")


if __name__ == "__main__":
    main()
