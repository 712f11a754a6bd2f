#!/usr/bin/env python3
"""Policy server: answers ticks on ``policy/action`` with one checkpoint.

Refuses a robot whose specs or control rate are not the checkpoint's, warms up before it says
ready, and publishes its latency (p50, p99) on /diagnostics. Needs no training code.

It compares the pictures with those of its training data, says on /diagnostics how far outside they
are, and tells the recorder on ``policy/pictures``.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import json
from typing import Optional

import numpy as np
import rospy
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from ofrl_ros import messages
from ofrl_ros.actor_loop import ActorLoop
from ofrl_ros.description import wait_for_description
from ofrl_ros.diagnostics import Diagnostics
from ofrl_ros.messages import PICTURES_TOPIC
from ofrl_ros.node import QUEUE, run_node
from ofrl_ros.params import bool_param, path_param
from std_msgs.msg import String

from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError
from ofrl_robot.policy.checkpoint import resolve_checkpoint
from ofrl_robot.policy.choice import MODE
from ofrl_robot.policy.picture_check import PictureReport
from ofrl_robot.policy.policy import Policy


class TellingPolicy:
    """A policy that tells the recorder what it says of the pictures.

    It does so before its answer goes out, so that the recorder knows it when the episode ends.

    Args:
        policy: that acts.
    """

    def __init__(self, policy: Policy) -> None:
        self.source = policy.source
        self._policy, self._seed = policy, 0
        self._told: Optional[PictureReport] = None
        self._warned = False
        self._publisher = rospy.Publisher(PICTURES_TOPIC, String, queue_size=QUEUE)

    def reset(self, seed: int) -> None:
        """Start an episode."""
        self._seed, self._told = seed, None
        self._policy.reset(seed)

    def act(self, tick: Tick) -> np.ndarray:
        """Return the policy's action."""
        action = self._policy.act(tick)
        report = self._policy.pictures
        if report is not None and report is not self._told:
            self._told = report
            self._publisher.publish(messages.pictures_message(self._seed, report.to_dict()))
            if report.outside and not self._warned:  # once: 50 trials would say it 50 times
                self._warned = True
                rospy.logwarn("policy: %s", report.line())
        return action


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
    for note in policy.notes(robot.environment, robot.task):
        rospy.logwarn("policy: %s", note)
    rospy.set_param("policy", json.dumps(policy.identity()))
    loop = ActorLoop(robot, TellingPolicy(policy), "policy")

    def describe():
        values = {"checkpoint": str(policy.path), "actions": len(loop.seconds)}
        if loop.seconds:
            p50, p99 = np.percentile(np.array(loop.seconds) * 1e3, (50, 99))
            values.update(latency_p50_ms=f"{p50:.2f}", latency_p99_ms=f"{p99:.2f}")
        report = policy.pictures
        if policy.picture_failure:
            return DiagnosticStatus.WARN, f"pictures: {policy.picture_failure}", values
        if report is None:
            return DiagnosticStatus.OK, "ready", values
        values.update(pictures_score=f"{report.score:.2f}", pictures=report.words)
        if report.outside:
            return DiagnosticStatus.WARN, report.line(), values
        return DiagnosticStatus.OK, "ready", values

    Diagnostics("ofrl/policy", describe)
    rospy.loginfo("policy ready: %s", policy.path)
    loop.run()


if __name__ == "__main__":
    run_node("policy", main)
