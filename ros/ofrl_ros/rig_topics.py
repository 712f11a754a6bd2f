"""Publish what a rig observes and what its arm was told."""

from __future__ import annotations

import contextlib
from typing import Any

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState, Joy
from tf2_msgs.msg import TFMessage

from ofrl_robot.control.rig import Rig
from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_ros import messages
from ofrl_ros.description import RobotDescription, publish_description
from ofrl_ros.node import QUEUE
from ofrl_ros.topic_cameras import TopicCameras


class RigTopics:
    """The topics of a rig (docs/ros_interface.md).

    Args:
        rig: what is published.
        action_latency: seconds from a tick to its action, 0 in lockstep; part of the description.
    """

    def __init__(self, rig: Rig, action_latency: float) -> None:
        self._rig = rig
        cameras = rig.cameras
        camera_nodes = cameras.nodes if isinstance(cameras, TopicCameras) else {}
        self._images = {
            camera.name: self._publisher(messages.IMAGE_TOPIC.format(camera.name), Image)
            for camera in rig.observation_spec.cameras
            if camera.name not in camera_nodes
        }
        self._captured = dict.fromkeys(self._images, 0)  # stamps of the frames sent last
        self._tick = self._publisher("tick", JointState)
        self._truth = self._publisher("ground_truth", JointState)
        self._pose = self._publisher("ee_pose", PoseStamped)
        self._joints = self._publisher("joint_states", JointState)
        self._applied = self._publisher("applied_action", Joy)
        self._status = self._publisher("robot/status", DiagnosticStatus)
        self._transform = self._publisher("/tf_static", TFMessage)
        description = RobotDescription.of(rig, action_latency, rospy.get_name(), camera_nodes)
        self._description = publish_description(description)
        if rig.arm.base_pose is not None:
            self._transform.publish(messages.base_transform(rig.arm.base_pose))

    @staticmethod
    def _publisher(topic: str, kind: Any) -> rospy.Publisher:
        # latched: a subscriber whose connection completes late still gets the first tick
        return rospy.Publisher(topic, kind, queue_size=QUEUE, tcp_nodelay=True, latch=True)

    def publish(self, tick: Tick, info: messages.TickInfo) -> None:
        """Publish everything observed at a tick, the tick itself last; only new frames."""
        for name, publisher in self._images.items():
            captured = tick.image_stamps_ns[name]
            if captured != self._captured[name]:
                publisher.publish(messages.image_message(tick.originals[name], captured, name))
                self._captured[name] = captured
        if tick.ground_truth:
            self._truth.publish(messages.ground_truth_message(tick))
        state, spec = self._rig.arm.state(), self._rig.observation_spec
        self._pose.publish(messages.pose_message(state, spec.state_frame))
        self._joints.publish(messages.joints_message(state))
        self._tick.publish(messages.tick_message(tick, spec, info))

    def publish_applied(self, applied: AppliedAction) -> None:
        """Publish what the arm was told."""
        self._applied.publish(messages.applied_message(applied))

    def publish_status(self, message: DiagnosticStatus) -> None:
        """Publish whether the arm is armed, and why not (latched)."""
        with contextlib.suppress(rospy.ROSException):  # closed at shutdown
            self._status.publish(message)
