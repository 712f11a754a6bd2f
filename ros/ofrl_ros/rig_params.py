"""Build the rig that the robot node's parameters describe."""

from __future__ import annotations

from typing import Optional

import rospy

from ofrl_robot.cameras.config import load_cameras
from ofrl_robot.control.protocols import Cameras, Task
from ofrl_robot.control.rig import Rig
from ofrl_robot.robots.config import ArmConfig, load_limits
from ofrl_robot.robots.operator_task import OperatorTask
from ofrl_robot.robots.registry import make_rig
from ofrl_ros.params import bool_param, dict_param, int_param, path_param
from ofrl_ros.topic_cameras import TopicCameras


def rig_from_params() -> Rig:
    """Build the rig of this node's private parameters (docs/ros_interface.md).

    Raises:
        ConfigError: a parameter cannot be used; or a camera of ``~cameras`` sends nothing.
    """
    robot = str(rospy.get_param("~robot", "sim"))
    name = str(rospy.get_param("~task", ""))
    config = ArmConfig(
        name=robot,
        task=name,
        limits=load_limits(robot, path_param("limits")),
        lockstep=bool_param("lockstep", True),
        settings=dict_param("settings"),
    )
    file = path_param("cameras")
    cameras: Optional[Cameras] = None
    if file is not None:
        cameras = TopicCameras([camera.observation for camera in load_cameras(file)])
    horizon = int_param("horizon", 0, low=0)
    task: Optional[Task] = None
    if horizon:
        text = str(rospy.get_param("~instruction", "auto"))
        task = OperatorTask(name, horizon, "" if text == "auto" else text)
    return make_rig(config, cameras, task)
