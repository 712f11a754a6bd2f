#!/usr/bin/env python3
"""Policy server: answers ticks on ``policy/action`` with one checkpoint.

Refuses a robot whose action or observation spec is not the checkpoint's, warms up before it
says ready, and publishes its latency (p50, p99) on /diagnostics. Needs no training code.
"""

import prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import collections
import json
import time

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
import wires

from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError
from ofrl_robot.policy.checkpoint import resolve_checkpoint
from ofrl_robot.policy.policy import Policy


class PolicyNode:
    def __init__(self) -> None:
        ckpt = wires.path_param("ckpt")
        if ckpt is None:
            raise ConfigError("no checkpoint given", "set ckpt:=<run folder or checkpoint file>")
        self._policy = Policy(resolve_checkpoint(ckpt), bool(rospy.get_param("~sample", False)))
        robot = wires.RemoteRobot()
        self._policy.require_specs(
            robot.action_spec,
            robot.observation_spec,
            robot.control_rate_hz,
            "robot {}".format(robot.name),
        )
        self._policy.warm_up()
        rospy.set_param("policy", json.dumps(self._policy.identity()))
        self._seconds = collections.deque(maxlen=1000)
        self._action = rospy.Publisher(
            "policy/action", Joy, queue_size=wires.QUEUE, tcp_nodelay=True
        )
        assembler = wires.TickAssembler(robot.observation_spec, self._on_tick)
        ready = rospy.Publisher("policy/ready", Bool, queue_size=1, latch=True)
        self._diagnostics = wires.Diagnostics("ofrl/policy", self._describe)
        wires.wait_connected([self._action] + assembler.subscribers)
        ready.publish(True)
        rospy.loginfo("policy ready: %s", self._policy.path)

    def _on_tick(self, tick: Tick, seed: int) -> None:
        if tick.step == 0:
            self._policy.reset(seed)
        if tick.last:
            return
        start = time.perf_counter()
        action = self._policy.act(tick)
        self._seconds.append(time.perf_counter() - start)
        self._action.publish(wires.action_message(action, tick.stamp_ns, "policy"))

    def _describe(self):
        values = {"checkpoint": str(self._policy.path), "actions": len(self._seconds)}
        if self._seconds:
            p50, p99 = np.percentile(np.array(self._seconds) * 1e3, (50, 99))
            values.update(latency_p50_ms="{:.2f}".format(p50), latency_p99_ms="{:.2f}".format(p99))
        return DiagnosticStatus.OK, "ready", values


def main() -> None:
    node = PolicyNode()  # noqa: F841 (kept alive by its subscribers)
    rospy.spin()


if __name__ == "__main__":
    wires.run_node("policy", main)
