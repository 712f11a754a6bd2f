#!/usr/bin/env python3
"""Teleop node: a human (or what sits in the human's seat) answers ticks on ``teleop/action``.

Devices: ``scripted`` (simulation: a scripted policy with action noise).
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import json

import rospy
from ofrl_ros import wires
from ofrl_ros.actor_loop import ActorLoop

from ofrl_robot.errors import ConfigError


def make_device(kind: str, task: str):
    """Teleoperation device by name."""
    if kind == "scripted":
        from ofrl_robot.teleop.scripted import ScriptedActor

        policy = wires.word_param("policy", "auto")
        return ScriptedActor(
            task, wires.noise_param("noise", 0.1), policy="" if policy == "auto" else policy
        )
    raise ConfigError(f"unknown teleop device {kind!r}", "use teleop:=scripted")


def main() -> None:
    robot = wires.RemoteRobot()
    device = make_device(rospy.get_param("~device", "scripted"), robot.task)
    rospy.set_param("~settings", json.dumps(device.settings))
    ActorLoop(robot, device, "teleop", ground_truth=True).run()


if __name__ == "__main__":
    wires.run_node("teleop", main)
