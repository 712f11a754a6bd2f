#!/usr/bin/env python3
"""Teleop node: a teleoperation device answers ticks on ``teleop/action``.

``scripted`` (simulation) is a scripted policy with action noise.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import json

import rospy
from ofrl_ros.actor_loop import ActorLoop
from ofrl_ros.description import wait_for_description
from ofrl_ros.node import run_node
from ofrl_ros.params import dict_param

from ofrl_robot.errors import ConfigError
from ofrl_robot.teleop.device import DeviceConfig, make_device


def main() -> None:
    """Run the device of the parameters until shutdown."""
    robot = wait_for_description()
    name = str(rospy.get_param("~device", "scripted"))
    config = DeviceConfig(name, robot.task, robot.action_spec, dict_param("device_settings"))
    device = make_device(config)
    if device.needs_ground_truth and not robot.ground_truth:
        raise ConfigError(
            f"device {name} needs ground truth, and robot {robot.robot} has none",
            "use it in simulation, or choose another teleop:=",
        )
    rospy.set_param("~settings", json.dumps(device.settings))
    ActorLoop(robot, device, "teleop", ground_truth=device.needs_ground_truth).run()


if __name__ == "__main__":
    run_node("teleop", main)
