"""Describe the robot to the other nodes: specs, task and rate, on a parameter and a topic."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any, Dict

import rospy
from std_msgs.msg import String

from ofrl_robot.control.rig import Rig
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import ActionSpec, ObservationSpec
from ofrl_ros.node import raise_on_shutdown

_SPECS = {"action_spec": ActionSpec, "observation_spec": ObservationSpec}


@dataclasses.dataclass
class RobotDescription:
    """What a node needs to know of a robot that it does not command.

    Attributes:
        robot: kind of the arm.
        task: task id. instruction: the task in a sentence.
        horizon: steps of an episode.
        control_rate_hz: ticks per second.
        environment: settings to store with every episode.
        rewards_known: whether ticks carry rewards and success can be told from them.
        ground_truth: whether ground truth is published.
        action_latency: seconds from a tick to its action; 0 in lockstep.
        node: name of the robot node: only its ticks count.
        camera_nodes: node that publishes the frames, by camera; the robot node where it is absent.
    """

    robot: str
    task: str
    instruction: str
    horizon: int
    control_rate_hz: float
    environment: Dict[str, Any]
    rewards_known: bool
    ground_truth: bool
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    action_latency: float = 0.0
    node: str = ""
    camera_nodes: Dict[str, str] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(
        rig: Rig, action_latency: float, node: str, camera_nodes: Dict[str, str]
    ) -> "RobotDescription":
        """Describe a rig."""
        return RobotDescription(
            robot=rig.name,
            task=rig.task.name,
            instruction=rig.task.instruction,
            horizon=rig.task.horizon,
            control_rate_hz=rig.control_rate_hz,
            environment=rig.environment,
            rewards_known=rig.task.rewards_known,
            ground_truth=rig.task.has_ground_truth,
            action_spec=rig.action_spec,
            observation_spec=rig.observation_spec,
            action_latency=action_latency,
            node=node,
            camera_nodes=camera_nodes,
        )

    def to_json(self) -> str:
        """Return the description as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "RobotDescription":
        """Build a description from :meth:`to_json`.

        Raises:
            ConfigError: a field is missing or unknown.
        """
        try:
            values = json.loads(text)
            for name, spec in _SPECS.items():
                values[name] = spec.from_dict(values[name])
            return RobotDescription(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the robot's description is damaged ({type(error).__name__}: {error})",
                "run the robot node of the same version",
            ) from error


def publish_description(description: RobotDescription) -> rospy.Publisher:
    """Describe a rig in parameter ``spec``, and for bags on the latched topic ``spec``."""
    text = description.to_json()
    rospy.set_param("spec", text)
    publisher = rospy.Publisher("spec", String, queue_size=1, latch=True)
    publisher.publish(text)
    return publisher


def wait_for_description(timeout: float = 30.0) -> RobotDescription:
    """Return what the robot node of this namespace says of itself.

    Raises:
        ConfigError: no robot node has described itself within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not rospy.has_param("spec"):
        raise_on_shutdown()
        if time.monotonic() > deadline:
            raise ConfigError(
                f"parameter {rospy.resolve_name('spec')} is not there after {timeout:.0f} s",
                "start the robot node in the same namespace",
            )
        time.sleep(0.05)
    return RobotDescription.from_json(rospy.get_param("spec"))
