"""A simulated task seen through the topics of a twin: the arm is driven as a real one would be."""

from __future__ import annotations

import threading
import time
from typing import Any, Dict

import numpy as np
import rospy
from sensor_msgs.msg import JointState

from ofrl_robot.control.protocols import Outcome
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_ros import messages
from ofrl_ros.node import raise_on_shutdown, service
from ofrl_ros.twin.world import ARRANGE, ARRANGED, GROUND_TRUTH, NEXT_SEED, SUCCESS

MAX_AGE = 1.0  # s of the ground truth, which comes at 50 Hz


class TwinTask:
    """Implements :class:`~ofrl_robot.control.protocols.Task` over ``twin/...``.

    Args:
        name: id of the simulated task, ``task`` in every episode.
        horizon: steps after which an episode ends.
        instruction: the task in a sentence.
    """

    rewards_known = True
    has_ground_truth = True

    def __init__(self, name: str, horizon: int, instruction: str = "") -> None:
        if horizon < 1:
            raise ConfigError(f"horizon is {horizon}", "use 1 step or more")
        self.name, self.horizon = name, horizon
        self.instruction = instruction or name
        self.settings: Dict[str, Any] = {"twin": True}
        if instruction:
            self.settings["instruction"] = instruction
        self._changed = threading.Condition()
        self._newest: Dict[str, np.ndarray] = {}
        self._received, self._stamp_ns = 0.0, 0
        self._arrange = service(ARRANGE)
        self._subscriber = rospy.Subscriber(
            GROUND_TRUTH, JointState, self._on_truth, queue_size=1, tcp_nodelay=True
        )

    def arrange(self, seed: int) -> str:
        """Have the twin place the objects of ``seed``; nobody has to confirm that.

        Raises:
            RobotError: the twin is not there, refuses, or does not show the new scene.
        """
        rospy.set_param(NEXT_SEED, int(seed))
        self._arrange()
        answered, deadline = time.time_ns(), time.monotonic() + 5.0
        with self._changed:
            # what was sent before the answer, a frame of the new scene too, has then arrived
            while self._value(ARRANGED) != float(seed) or self._stamp_ns <= answered:
                raise_on_shutdown()
                if time.monotonic() > deadline:
                    raise RobotError("the twin does not show the new scene", "see what it prints")
                self._changed.wait(0.1)
        return ""

    def outcome(self, step: int) -> Outcome:
        """Return 1 as the reward while the task's success holds; end the episode at its horizon.

        Raises:
            RobotError: the twin says nothing any more.
        """
        self._require_fresh()
        return Outcome(reward=self._value(SUCCESS), truncated=step >= self.horizon)

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return the newest that scripted policies read, world axes."""
        self._require_fresh()
        with self._changed:
            return {k: v for k, v in self._newest.items() if k not in (SUCCESS, ARRANGED)}

    def _on_truth(self, message: JointState) -> None:
        with self._changed:
            self._newest, self._received = messages.arrays_of(message), time.monotonic()
            self._stamp_ns = message.header.stamp.to_nsec()
            self._changed.notify_all()

    def _value(self, name: str) -> float:
        with self._changed:
            return float(self._newest.get(name, np.array([-1.0]))[0])

    def _require_fresh(self) -> None:
        age = time.monotonic() - self._received
        if age > MAX_AGE:
            raise RobotError(
                f"nothing on {rospy.resolve_name(GROUND_TRUTH)} for {age:.1f} s",
                "see what the twin prints",
            )
