"""Receive a tick, compute an action, publish it: the loop that teleop and policy nodes share."""

from __future__ import annotations

import collections
import time
from typing import Deque

import numpy as np
import rospy
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from ofrl_robot.control.protocols import ActionSource
from ofrl_robot.control.signals import HUMAN
from ofrl_ros import messages
from ofrl_ros.assembler import TickAssembler
from ofrl_ros.description import RobotDescription
from ofrl_ros.events import Events
from ofrl_ros.node import QUEUE, wait_connected


class ActorLoop:
    """Answers ticks on ``<name>/action`` and announces itself on ``<name>/ready``.

    Args:
        robot: whose ticks.
        actor: computes the actions.
        name: "teleop" or "policy".
        ground_truth: the actor reads the simulator's ground truth.

    Attributes:
        seconds: durations of the newest actions.
    """

    def __init__(
        self, robot: RobotDescription, actor: ActionSource, name: str, ground_truth: bool = False
    ) -> None:
        self.seconds: Deque[float] = collections.deque(maxlen=1000)
        self._robot, self._actor = robot, actor
        self._publisher = rospy.Publisher(name + "/action", Joy, queue_size=QUEUE, tcp_nodelay=True)
        self._ready = rospy.Publisher(name + "/ready", Bool, queue_size=1, latch=True)
        self._events = Events()
        self._assembler = TickAssembler(robot.observation_spec, self._events, ground_truth)

    def run(self) -> None:
        """Answer ticks until shutdown. An error of the actor is the node's own."""
        speakers = self._assembler.subscribe(self._robot.node, self._robot.camera_nodes)
        wait_connected([self._publisher, *speakers.values()])
        self._ready.publish(True)
        while True:
            kind, parts = self._events.get(timeout=1.0)
            if kind is None:
                continue
            tick, info = self._assembler.assemble(parts)
            if tick.step == 0:
                self._actor.reset(info.seed)
            if tick.last or self._events.waiting:
                continue  # over, or late: a newer tick is there, and only its answer counts
            start = time.perf_counter()
            action = self._actor.act(tick)
            self.seconds.append(time.perf_counter() - start)
            if action is None:
                if self._actor.source != HUMAN:
                    continue
                action = np.zeros(0)  # a human who is there and does not command
            self._publisher.publish(
                messages.action_message(action, tick.stamp_ns, self._actor.source)
            )
