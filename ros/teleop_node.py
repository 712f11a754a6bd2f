#!/usr/bin/env python3
"""Teleop node: a human (or what sits in the human's seat) answers ticks on ``teleop/action``.

Devices: ``scripted`` (simulation: a scripted policy with action noise).
"""

import prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import rospy
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
import wires

from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError


def make_device(kind: str, task: str):
    """Teleoperation device by name."""
    if kind == "scripted":
        from ofrl_robot.robots.actors import ScriptedActor

        return ScriptedActor(task, float(rospy.get_param("~noise", 0.1)))
    raise ConfigError("unknown teleop device {!r}".format(kind), "use teleop:=scripted")


class TeleopNode:
    def __init__(self) -> None:
        robot = wires.RemoteRobot()
        self._device = make_device(rospy.get_param("~device", "scripted"), robot.task)
        self._action = rospy.Publisher(
            "teleop/action", Joy, queue_size=wires.QUEUE, tcp_nodelay=True
        )
        assembler = wires.TickAssembler(robot.observation_spec, self._on_tick, ground_truth=True)
        ready = rospy.Publisher("teleop/ready", Bool, queue_size=1, latch=True)
        wires.wait_connected([self._action] + assembler.subscribers)
        ready.publish(True)

    def _on_tick(self, tick: Tick, seed: int) -> None:
        if tick.step == 0:
            self._device.reset(seed)
        if not tick.last:
            action = self._device.act(tick)
            self._action.publish(wires.action_message(action, tick.stamp_ns, "human"))


def main() -> None:
    node = TeleopNode()  # noqa: F841 (kept alive by its subscribers)
    rospy.spin()


if __name__ == "__main__":
    wires.run_node("teleop", main)
