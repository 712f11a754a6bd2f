"""The loop that teleop and policy nodes share: hear a tick, let the actor answer, publish."""

from __future__ import annotations

import collections
import time
from typing import Any, Deque

import rospy
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from ofrl_ros import messages, wires


class ActorLoop:
    """Answers ticks on ``<name>/action`` and says so on ``<name>/ready``.

    Args:
        robot: whose ticks.
        actor: ``reset(seed)``, ``act(tick)``, ``source``.
        name: "teleop" or "policy".
        ground_truth: the actor reads the simulator's ground truth.
    """

    def __init__(
        self, robot: wires.RemoteRobot, actor: Any, name: str, ground_truth: bool = False
    ) -> None:
        self.seconds: Deque[float] = collections.deque(maxlen=1000)
        self._actor = actor
        self._publisher = rospy.Publisher(
            f"{name}/action", Joy, queue_size=wires.QUEUE, tcp_nodelay=True
        )
        self._ready = rospy.Publisher(f"{name}/ready", Bool, queue_size=1, latch=True)
        self._events = wires.Events()
        self._assembler = messages.TickAssembler(robot.observation_spec, self._events, ground_truth)

    def run(self) -> None:
        """Until shutdown. An error of the actor is the node's own."""
        wires.wait_connected([self._publisher, *self._assembler.subscribe()])
        self._ready.publish(True)
        while True:
            kind, parts = self._events.get(timeout=1.0)
            if kind is None:
                continue
            tick, seed = self._assembler.assemble(parts)
            if tick.step == 0:
                self._actor.reset(seed)
            if tick.last or self._events.waiting:
                continue  # over, or late: a newer tick is there, and only its answer counts
            start = time.perf_counter()
            action = self._actor.act(tick)
            self.seconds.append(time.perf_counter() - start)
            self._publisher.publish(
                messages.action_message(action, tick.stamp_ns, self._actor.source)
            )
