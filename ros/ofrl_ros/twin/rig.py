"""What a rig with a twin consists of beside the driver: its camera, its task, its defaults."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from ofrl_robot.specs import CameraSpec
from ofrl_ros.topic_cameras import TopicCameras
from ofrl_ros.twin.task import TwinTask

CAMERA = "image"  # the simulator's name of its camera
MAX_FRAME_AGE = 0.3  # s; the twin's camera has 25 frames a second
# Settings of the drivers that suit a twin, unless others are given. Twins need no sleep pose.
DRIVER_SETTINGS: Dict[str, Dict[str, Any]] = {
    # noise of 14 deg per step tilts the gripper by up to 21 deg in 30 steps, and a policy that
    # learns from it by more; with 5 deg behavioural cloning had 18/20 instead of 11/20
    "widowx": {
        "start_joints": "roboverse",
        "sleep_on_close": False,
        "control_rate_hz": 10,
        "action_scale": [0.05, 5.0],
    },
}

# Devices that act on a twin by themselves; `scripted` knows the simulator's tasks only.
DEVICES = {"sawyer": "reach_grasp"}


def limits_of(robot: str) -> str:
    """Return the name of the limits of a robot's twin: its scene lies elsewhere."""
    return f"{robot}_twin"


def parts(task: str, horizon: int, instruction: str, size: int) -> Tuple[TopicCameras, TwinTask]:
    """Connect to a twin's camera and task; its node may still be starting.

    Args:
        task: id of the simulated task.
        horizon: steps of an episode.
        instruction: the task in a sentence.
        size: pixels per side of the camera image.

    Raises:
        ConfigError: the twin's camera sends nothing.
    """
    cameras = TopicCameras([CameraSpec(CAMERA, size, size)], max_ages={CAMERA: MAX_FRAME_AGE})
    return cameras, TwinTask(task, horizon, instruction)
