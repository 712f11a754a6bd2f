#!/usr/bin/env python3
"""Policy server: answers ticks on ``policy/action`` with one checkpoint.

Refuses a robot whose specs or control rate are not the checkpoint's, warms up before it says
ready, and publishes its latency (p50, p99) on /diagnostics. Needs no training code.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import json

import numpy as np
import rospy
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from ofrl_ros.actor_loop import ActorLoop
from ofrl_ros.description import wait_for_description
from ofrl_ros.diagnostics import Diagnostics
from ofrl_ros.node import run_node
from ofrl_ros.params import bool_param, path_param

from ofrl_robot.errors import ConfigError
from ofrl_robot.policy.checkpoint import resolve_checkpoint
from ofrl_robot.policy.choice import MODE
from ofrl_robot.policy.policy import Policy


def main() -> None:
    """Run the checkpoint of the parameters until shutdown."""
    ckpt = path_param("ckpt")
    if ckpt is None:
        raise ConfigError("ckpt is not set", "set ckpt:=<run folder or checkpoint file>")
    policy = Policy(resolve_checkpoint(ckpt), str(rospy.get_param("~action_choice", MODE)))
    robot = wait_for_description()
    policy.require_specs(
        robot.action_spec,
        robot.observation_spec,
        robot.control_rate_hz,
        f"robot {robot.robot}",
        robot.task,
        bool_param("any_task", False),
    )
    # One thread: with torch's default, an action took up to 223 ms (p99) beside two other busy
    # processes on two cores; with one thread 2 ms.
    torch.set_num_threads(1)
    policy.warm_up()
    rospy.set_param("policy", json.dumps(policy.identity()))
    loop = ActorLoop(robot, policy, "policy")

    def describe():
        values = {"checkpoint": str(policy.path), "actions": len(loop.seconds)}
        if loop.seconds:
            p50, p99 = np.percentile(np.array(loop.seconds) * 1e3, (50, 99))
            values.update(latency_p50_ms=f"{p50:.2f}", latency_p99_ms=f"{p99:.2f}")
        return DiagnosticStatus.OK, "ready", values

    Diagnostics("ofrl/policy", describe)
    rospy.loginfo("policy ready: %s", policy.path)
    loop.run()


if __name__ == "__main__":
    run_node("policy", main)
