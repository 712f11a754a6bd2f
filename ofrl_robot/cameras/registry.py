"""A camera by the name of its source."""

from __future__ import annotations

from pathlib import Path

from ofrl_robot.cameras.binding import Binding
from ofrl_robot.cameras.camera import Camera
from ofrl_robot.cameras.config import CameraConfig


def make_camera(config: CameraConfig) -> Camera:
    """Camera of a config, not opened yet. Raises ConfigError when its driver is not installed."""
    if config.source == "v4l2":
        from ofrl_robot.cameras.v4l2 import V4L2Camera

        device = Binding(config.serial, config.path, config.index)
        return V4L2Camera(device, config.width, config.height, config.fps, config.fourcc)
    if config.source == "realsense":
        from ofrl_robot.cameras.realsense import RealSenseCamera

        return RealSenseCamera(config.serial, config.width, config.height, config.fps)
    from ofrl_robot.cameras.files import FileCamera, image_frames, video_frames

    frames = video_frames if config.source == "video" else image_frames
    return FileCamera(Path(config.path), frames, config.fps, config.loop)
