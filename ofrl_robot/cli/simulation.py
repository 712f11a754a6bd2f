"""Define the verbs that run the simulated robot: collect, evaluate, sim."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Optional, Tuple, Union

import tyro
from typing_extensions import Annotated

from ofrl_robot.cli.progress import (
    at_least,
    print_total,
    require_seeds,
    require_text,
    with_progress,
)
from ofrl_robot.errors import ConfigError
from ofrl_robot.policy.choice import MODE, ActionChoice
from ofrl_robot.sim.options import SimOptions

Positional = tyro.conf.Positional
subcommand = tyro.conf.subcommand


@dataclasses.dataclass(frozen=True)
class Collect:
    """Record scripted episodes in simulation, without ROS (the same recorder)."""

    task: str
    """Simulator task id, e.g. Widow250SingleObjGrasp-v0."""
    out: Path
    """Dataset folder; new episodes are added to those in it."""
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
    """Processes to record in, 0 for one per core; the episodes are the same with any number."""
    operator: str = ""
    """Name of the person who collects, stored in every episode."""
    mixed_tasks: bool = False
    """Allow a dataset folder that holds episodes of another task or robot."""

    def run(self) -> None:
        """Record the episodes and print how many succeeded."""
        from ofrl_robot.processes import available_cores
        from ofrl_robot.recording.parallel import record_parallel
        from ofrl_robot.recording.session import episode_meta, record_episodes

        at_least("episodes", self.episodes, 1)
        require_seeds(self.seed, self.episodes)
        require_text("operator", self.operator)
        at_least("workers", self.workers, 0)
        rig, actor = self.rig_and_actor()
        meta = episode_meta(rig, actor.settings, actor="scripted", operator=self.operator)
        workers = min(self.workers or available_cores(), self.episodes)
        if workers == 1:
            record = functools.partial(record_episodes, rig, actor, mixed_tasks=self.mixed_tasks)
        else:
            rig.close()  # each process makes its own; this one gave the specs
            record = functools.partial(
                record_parallel, self.rig_and_actor, workers, mixed_tasks=self.mixed_tasks
            )
        try:
            successes = with_progress(record, self.out, self.episodes, self.seed, meta)
        finally:
            rig.close()
        print(f"recorded now: {successes} of {self.episodes} succeeded")
        print_total(self.out)

    def rig_and_actor(self) -> Tuple[Any, Any]:
        """Build one of each; every process that records needs them."""
        from ofrl_robot.evaluation.simulated import sim_rig
        from ofrl_robot.teleop.scripted import ScriptedDevice

        actor = ScriptedDevice(self.task, self.noise, self.policy)
        return sim_rig(self.task, self.sim), actor


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Run trials of a policy in simulation, without ROS, and print k/n."""

    policy: Positional[Path]
    """Run folder (its selected checkpoint) or checkpoint file."""
    out: Path
    """Dataset folder for the trials, must be new or empty."""
    task: str = ""
    """Simulator task id (empty: the task of the training data)."""
    any_task: bool = False
    """Allow another task than that of the training data."""
    trials: int = 50
    """Number of trials."""
    seed: int = 1000000
    """Seed of the first trial; keep it away from the seeds of collection."""
    action_choice: ActionChoice = MODE
    """How to choose an action: the mode of the policy, a sample of it, or (max_q) the one of 10
    samples that has the largest Q-value."""
    sim: SimOptions = SimOptions(image_size=0)

    def run(self) -> None:
        """Run the trials and print k/n."""
        from ofrl_robot.data.episodes.schema import episode_paths
        from ofrl_robot.evaluation.simulated import rig_for, use_one_thread
        from ofrl_robot.policy.checkpoint import resolve_checkpoint
        from ofrl_robot.policy.policy import Policy
        from ofrl_robot.recording.session import episode_meta, record_episodes

        at_least("trials", self.trials, 1)
        require_seeds(self.seed, self.trials)
        if self.out.is_dir() and episode_paths(self.out):
            raise ConfigError("holds episodes already", "choose a new folder for trials", self.out)
        use_one_thread()
        policy = Policy(resolve_checkpoint(self.policy), self.action_choice)
        rig = rig_for(policy, self.sim, self.task, self.any_task)
        print(f"policy: {policy.path}")
        for note in policy.notes(rig.environment, rig.task.name):
            print(f"note: {note}")
        meta = episode_meta(rig, actor="policy", policy=policy.identity())
        record = functools.partial(record_episodes, rig, policy)
        try:
            with_progress(record, self.out, self.trials, self.seed, meta)
        finally:
            rig.close()
        print_total(self.out)


@dataclasses.dataclass(frozen=True)
class Replay:
    """Replay recordings of the real roboverse and compare where they lead."""

    file: Positional[Path]
    """Roboverse .npy file of scripted trajectories."""
    task: str = ""
    """Simulator task id (empty: the one in the file name)."""
    report: Optional[Path] = None
    """JSON file to write."""
    picture: Optional[Path] = None
    """PNG file to write: frames of the first episode, recorded above and rendered below."""

    def run(self) -> None:
        """Replay every episode, print the errors and write the report."""
        from ofrl_robot.evaluation.fidelity.report import (
            replay_file,
            require_writable,
            write_picture,
            write_report,
        )

        for output in (self.report, self.picture):
            if output is not None:
                require_writable(output)
        fidelity = replay_file(self.file, self.task, print)
        print("\n".join(fidelity.lines()))
        if self.report is not None:
            write_report(fidelity, self.report)
            print(f"report: {self.report}")
        if self.picture is not None:
            write_picture(fidelity, self.picture)
            print(f"picture: {self.picture}")


# The second member is never shown: a union of one member would be no union of subcommands.
Job = Union[Annotated[Replay, subcommand("replay")], Annotated[None, tyro.conf.Suppress]]


@dataclasses.dataclass(frozen=True)
class Sim:
    """Compare the embedded simulator with the real roboverse."""

    command: Job

    def run(self) -> None:
        """Run the chosen job."""
        assert self.command is not None
        self.command.run()
