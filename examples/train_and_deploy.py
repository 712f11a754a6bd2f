"""Do the whole path from Python: collect, train, diagnose, deploy in simulation, count.

python examples/train_and_deploy.py FOLDER        (a few minutes: 100 episodes, 2000 steps)

The same with the command line is in the README; over ROS, the launch files do it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ofrl_robot.algos.configs.cql import CQLConfig
from ofrl_robot.evaluation.trials import report_trials
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.policy.checkpoint import resolve_checkpoint
from ofrl_robot.policy.policy import Policy
from ofrl_robot.recording.session import episode_meta, record_episodes
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import make_rig
from ofrl_robot.teleop.scripted import ScriptedDevice
from ofrl_robot.training.config import RunConfig, TrainConfig
from ofrl_robot.training.loop import train
from ofrl_robot.workflow.choose_checkpoint import select_checkpoint, verdict_lines

TASK = "Widow250SingleObjGrasp-v0"


def main(folder: Path, episodes: int = 100, steps: int = 2000, trials: int = 20) -> None:
    """Run the path below ``folder``."""
    rig = make_rig(ArmConfig("sim", TASK, load_arm_file("sim"), settings={"image_size": 48}))

    device = ScriptedDevice(TASK, noise=0.1)
    meta = episode_meta(rig, device.settings, actor="scripted")
    record_episodes(rig, device, folder / "data", episodes, first_seed=0, meta=meta)

    settings = TrainConfig(steps=steps, checkpoint_every=max(1, steps // 4), batch_size=64)
    algo = CQLConfig(warm_start_steps=steps // 10)
    train(RunConfig(folder / "data", "cql", algo, NetConfig(), settings), folder / "run")

    diagnosis = select_checkpoint(folder / "run")
    print("\n".join(verdict_lines(folder / "run", diagnosis)))

    policy = Policy(resolve_checkpoint(folder / "run"))
    meta = episode_meta(rig, actor="policy", policy=policy.identity())
    record_episodes(rig, policy, folder / "trials", trials, first_seed=1_000_000, meta=meta)
    print(report_trials(folder / "trials").line())
    rig.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
