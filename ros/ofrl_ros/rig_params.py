"""Build the rig that the robot node's parameters describe."""

from __future__ import annotations

from typing import Any, Dict, Optional

import rospy

from ofrl_robot.cameras.config import load_cameras
from ofrl_robot.control.protocols import Cameras, Task
from ofrl_robot.control.rig import Rig
from ofrl_robot.errors import ConfigError
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.operator_task import OperatorTask
from ofrl_robot.robots.registry import make_rig
from ofrl_ros.params import bool_param, dict_param, int_param, path_param
from ofrl_ros.topic_cameras import TopicCameras
from ofrl_ros.twin import rig as twin_rig

# s after which a camera node that says nothing is not believed any more; it says by itself when a
# frame is stale
CAMERA_GRACE = 0.1


def lockstep_param() -> bool:
    """Return whether ticks wait for their actions; by default only in simulation.

    Raises:
        ConfigError: it is asked for on an arm that is no simulator.
    """
    simulated = str(rospy.get_param("~robot", "sim")) == "sim"
    if rospy.get_param("~lockstep", "auto") == "auto":
        return simulated
    lockstep = bool_param("lockstep", simulated)
    if lockstep and not simulated:
        raise ConfigError("lockstep is true", "time does not stand still on an arm: leave it out")
    return lockstep


def rig_from_params() -> Rig:
    """Build the rig of this node's private parameters (docs/ros_interface.md).

    Raises:
        ConfigError: a parameter cannot be used; or a camera of ``~cameras`` sends nothing.
    """
    robot = str(rospy.get_param("~robot", "sim"))
    task_name = str(rospy.get_param("~task", ""))
    twin = bool_param("twin", False)
    limits = twin_rig.limits_of(robot) if twin else robot
    defaults = twin_rig.DRIVER_SETTINGS.get(robot, {}) if twin else {}
    config = ArmConfig(
        name=robot,
        task=task_name,
        file=load_arm_file(limits, path_param("limits"), bool_param("widen_limits", False)),
        lockstep=lockstep_param(),
        settings=_with_rate({**defaults, **dict_param("settings")}),
    )
    for name in config.file.widened:
        rospy.logwarn("limit %s is wider than the one shipped for robot %s", name, robot)
    file = path_param("cameras")
    cameras: Optional[Cameras] = None
    if file is not None:
        found = load_cameras(file)
        cameras = TopicCameras(
            [camera.observation for camera in found],
            max_ages={c.name: c.stale_after / c.fps + CAMERA_GRACE for c in found},
        )
    horizon = int_param("horizon", 0, low=0)
    text = str(rospy.get_param("~instruction", "auto"))
    instruction = "" if text == "auto" else text
    task: Optional[Task] = None
    if twin:
        size = int_param("image_size", 48, low=1, high=1024)
        cameras, task = twin_rig.parts(task_name, horizon, instruction, size)
    elif horizon:
        task = OperatorTask(task_name, horizon, instruction)
    return make_rig(config, cameras, task)


def _with_rate(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Return the settings with the control rate of ``~rate``, unless that is auto."""
    rate = rospy.get_param("~rate", "auto")
    if rate == "auto":
        return settings
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0:
        raise ConfigError(f"rate is {rate!r}", "use ticks per second, such as 5, 10 or 20")
    return {**settings, "control_rate_hz": int(rate) if rate == int(rate) else float(rate)}
