#!/usr/bin/env python3
"""Camera node: publishes the frames of a rig's cameras on ``camera/<name>/image_raw``.

Each frame is stamped with its capture and sent once. A camera that is unplugged is looked for until
it is back. One that is gone, stale or frozen says so on ``camera/<name>/status`` (latched) and
/diagnostics; an old frame is never sent as new.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import time

from ofrl_ros import messages
from ofrl_ros.diagnostics import Diagnostics, status_message
from ofrl_ros.node import run_node
from ofrl_ros.params import path_param
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image

from ofrl_robot.cameras.camera import Frame
from ofrl_robot.cameras.config import CameraConfig, load_cameras
from ofrl_robot.cameras.health import STARTING, Health
from ofrl_robot.cameras.registry import make_camera
from ofrl_robot.cameras.stream import CameraStream
from ofrl_robot.errors import ConfigError

IMAGES_WAITING = 10  # for a slow subscriber, 9 MB of 640x480; then the oldest is dropped
POLL = 0.02  # s between two looks at every camera: how late a status can be


class CameraTopics:
    """One camera and its topics."""

    def __init__(self, config: CameraConfig) -> None:
        self.name, self._info = config.name, camera_info(config)
        self._published = None  # (reason, text) on the status topic
        camera = make_camera(config)
        self._binding = camera.binding
        topic = f"camera/{config.name}/"
        self._images = rospy.Publisher(
            f"{topic}image_raw", Image, queue_size=IMAGES_WAITING, tcp_nodelay=True
        )
        self._infos = rospy.Publisher(
            f"{topic}camera_info", CameraInfo, queue_size=IMAGES_WAITING, tcp_nodelay=True
        )
        self._statuses = rospy.Publisher(
            f"{topic}status", DiagnosticStatus, queue_size=10, latch=True
        )
        health = Health(config.fps, config.stale_after, config.frozen_after)
        self.stream = CameraStream(camera, (config.height, config.width), health, self._send)

    def _send(self, frame: Frame) -> None:
        """In the camera's thread."""
        self._info.header.stamp = messages.stamp_of(frame.stamp_ns)
        self._infos.publish(self._info)
        self._images.publish(messages.image_message(frame.pixels, frame.stamp_ns, self.name))

    def publish_status(self) -> None:
        """On ``status`` when the reason or its wording has changed."""
        status = self.stream.status()
        now = (status.reason, status.text if status.reason else "ok")
        if now == self._published:
            return
        self._published = now
        quiet = status.reason in ("", STARTING)
        log = rospy.loginfo if quiet else rospy.logwarn
        log("%s: %s", self._images.resolved_name, ": ".join(filter(None, now)))
        level = DiagnosticStatus.ERROR if status.reason else DiagnosticStatus.OK
        values = {"reason": status.reason, "binding": self._binding}
        self._statuses.publish(status_message(f"camera/{self.name}", level, now[1], values))

    def describe(self):
        """Return (level, text, values) for /diagnostics."""
        status = self.stream.status()
        level = DiagnosticStatus.WARN if status.slow else DiagnosticStatus.OK
        level = DiagnosticStatus.ERROR if status.reason else level
        return level, status.text, dict(status.values, reason=status.reason, binding=self._binding)


def camera_info(config: CameraConfig) -> CameraInfo:
    """Without a calibration all but the size is zero, which is what ROS calls uncalibrated."""
    info = CameraInfo(width=config.width, height=config.height)
    info.header.frame_id = config.name
    model = config.calibration
    if model is None:
        rospy.logwarn("camera %s has no calibration: its camera_info is zero", config.name)
        return info
    info.distortion_model, info.D = model.distortion_model, list(model.distortion)
    info.K, info.R, info.P = model.camera_matrix, model.rectification, model.projection
    return info


def main() -> None:
    """Run the cameras of the parameters until shutdown."""
    file = path_param("cameras")
    if file is None:
        raise ConfigError("no cameras given", "set cameras:=<YAML file>; see config/cameras/")
    cameras = [CameraTopics(config) for config in load_cameras(file)]
    try:
        for camera in cameras:
            camera.stream.start()
            Diagnostics(f"ofrl/camera/{camera.name}", camera.describe)
        while not rospy.is_shutdown():
            for camera in cameras:
                camera.publish_status()
            time.sleep(POLL)
    finally:
        for camera in cameras:
            camera.stream.stop()


if __name__ == "__main__":
    run_node("cameras", main)
