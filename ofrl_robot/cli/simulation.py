"""Verbs that run the simulated robot: collect, evaluate, sim."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal, Optional, Tuple

import tyro

from ofrl_robot.cli.progress import at_least, print_total, with_progress
from ofrl_robot.errors import ConfigError
from ofrl_robot.policy.choice import MODE, ActionChoice
from ofrl_robot.sim.options import SimOptions

Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Collect:
    """Record scripted episodes in simulation, without ROS (the same recorder)."""

    task: str
    """Simulator task id, e.g. Widow250SingleObjGrasp-v0."""
    out: Path
    """Dataset folder; episodes are added to what lies there."""
    episodes: int = 100
    """Episodes to record; failures are kept."""
    noise: float = 0.1
    """Standard deviation of the noise added to every action entry (1 = full scale)."""
    seed: int = 0
    """Seed of the first episode; the next has seed + 1, and so on."""
    sim: SimOptions = SimOptions()
    policy: str = ""
    """Scripted policy (empty: the one that solves the task)."""
    workers: int = 1
    """Processes to record in, 0 for one a core; the episodes are the same with any number."""
    operator: str = ""
    """Who collects, stored in every episode."""

    def run(self) -> None:
        from ofrl_robot.processes import available_cores
        from ofrl_robot.recording.parallel import record_parallel
        from ofrl_robot.recording.session import episode_meta, record_episodes

        at_least("episodes", self.episodes, 1)
        at_least("seed", self.seed, 0)
        at_least("workers", self.workers, 0)
        robot, actor = self.robot_and_actor()
        meta = episode_meta(robot, actor.settings, actor="scripted", operator=self.operator)
        workers = min(self.workers or available_cores(), self.episodes)
        if workers == 1:
            record = functools.partial(record_episodes, robot, actor)
        else:
            robot.close()  # was built to know its specs, and to refuse what cannot be built
            record = functools.partial(record_parallel, self.robot_and_actor, workers)
        try:
            successes = with_progress(record, self.out, self.episodes, self.seed, meta)
        finally:
            robot.close()
        print(f"recorded now: {successes} of {self.episodes} succeeded")
        print_total(self.out)

    def robot_and_actor(self) -> Tuple[Any, Any]:
        """One of each, as every process that records needs them."""
        from ofrl_robot.robots.sim import SimRobot
        from ofrl_robot.teleop.scripted import ScriptedActor

        actor = ScriptedActor(self.task, self.noise, self.policy)
        return SimRobot(self.task, self.sim), actor


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Run trials of a policy in simulation, without ROS, and print k/n."""

    policy: Positional[Path]
    """Run folder (its selected checkpoint) or checkpoint file."""
    out: Path
    """Dataset folder for the trials, must be new or empty."""
    task: str = ""
    """Simulator task id (empty: the task of the training data)."""
    trials: int = 50
    """Trials."""
    seed: int = 1000000
    """Seed of the first trial; keep it away from the seeds of collection."""
    action_choice: ActionChoice = MODE
    """How an action is taken from the policy: its mode, a sample, or (max_q) of 10 samples the one
    with the largest Q by the checkpoint's critic."""
    sim: SimOptions = SimOptions(image_size=0)

    def run(self) -> None:
        from ofrl_robot.data.episodes.schema import episode_paths
        from ofrl_robot.policy.checkpoint import resolve_checkpoint
        from ofrl_robot.policy.policy import Policy
        from ofrl_robot.recording.session import episode_meta, record_episodes
        from ofrl_robot.robots.sim import SimRobot

        at_least("trials", self.trials, 1)
        at_least("seed", self.seed, 0)
        if self.out.is_dir() and episode_paths(self.out):
            raise ConfigError("holds episodes already", "choose a new folder for trials", self.out)
        policy = Policy(resolve_checkpoint(self.policy), self.action_choice)
        options = self.sim
        if not options.image_size:
            camera = policy.header.observation_spec.cameras[0]
            options = dataclasses.replace(options, image_size=camera.height)
        robot = SimRobot(self.task or policy.header.task, options)
        policy.require_specs(
            robot.action_spec,
            robot.observation_spec,
            robot.control_rate_hz,
            "robot sim",
            robot.task,
        )
        print(f"policy: {policy.path}")
        meta = episode_meta(robot, actor="policy", policy=policy.identity())
        record = functools.partial(record_episodes, robot, policy)
        try:
            with_progress(record, self.out, self.trials, self.seed, meta)
        finally:
            robot.close()
        print_total(self.out)


@dataclasses.dataclass(frozen=True)
class Sim:
    """Hold the embedded simulator against recordings of the real roboverse."""

    job: Positional[Literal["replay"]]
    """What to do: replay (feed the recorded actions and compare where they lead)."""
    file: Positional[Path]
    """Roboverse .npy file of scripted trajectories."""
    env: str = ""
    """Task id (empty: taken from the file name where it is there)."""
    report: Optional[Path] = None
    """JSON file to write."""

    def run(self) -> None:
        from ofrl_robot.evaluation.fidelity.report import (
            replay_file,
            require_writable,
            write_report,
        )

        if self.report is not None:
            require_writable(self.report)
        fidelity = replay_file(self.file, self.env, print)
        print("\n".join(fidelity.lines()))
        if self.report is not None:
            write_report(fidelity, self.report)
            print(f"report: {self.report}")
