"""Find an arm by name and put a rig together around it."""

from __future__ import annotations

from typing import Any, Optional

from ofrl_robot.control.protocols import Cameras, Task
from ofrl_robot.control.rig import Rig
from ofrl_robot.errors import ConfigError
from ofrl_robot.registry import Registry
from ofrl_robot.robots.config import ArmConfig

# An entry is a factory: ArmConfig -> Arm. A simulated arm may bring cameras and a task of its own
# as attributes `cameras` and `task`; a real arm gets those that it is given.
ARMS = Registry(
    "robot",
    "ofrl_robot.arms",
    {
        "sim": "ofrl_robot.robots.sim:SimArm",
        "rehearsal": "ofrl_robot.robots.rehearsal:RehearsalArm",
        "widowx": "ofrl_robot.robots.widowx:WidowXArm",
        "sawyer": "ofrl_robot.robots.sawyer:SawyerArm",
    },
)


def make_rig(
    config: ArmConfig, cameras: Optional[Cameras] = None, task: Optional[Task] = None
) -> Rig:
    """Build the arm that ``config`` names and compose it with cameras and a task.

    Args:
        cameras: None for those that the arm brings (a simulator's).
        task: None for the one that the arm brings.

    Raises:
        ConfigError: the name is unknown, a setting is impossible, or cameras or task are missing.
    """
    arm: Any = ARMS.load(config.name)(config)
    arm.settings = {**arm.settings, **config.stored()}
    try:
        cameras = cameras or getattr(arm, "cameras", None)
        task = task or getattr(arm, "task", None)
        if cameras is None:
            raise ConfigError(
                f"robot {config.name} has no cameras of its own", "name a file: cameras:=FILE"
            )
        if task is None:
            raise ConfigError(
                f"robot {config.name} has no task of its own",
                "give horizon:=STEPS, and instruction:=TEXT for the operator",
            )
        return Rig(arm, cameras, task)
    except Exception:
        arm.close()
        raise
