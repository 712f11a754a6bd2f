"""Read the colour stream of Intel RealSense cameras through pyrealsense2."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ofrl_robot.cameras.camera import ARRIVAL, DEVICE, Frame
from ofrl_robot.cameras.settings import CameraConfig, CameraKind, text
from ofrl_robot.errors import CameraError, ConfigError

_TIMEOUT_MS = 2000


class RealSenseCamera:
    """A RealSense camera, found by its serial number.

    Args:
        serial: as printed on it and by ``rs-enumerate-devices``.
        width, height: size of the frames, pixels.
        fps: frames per second. The camera supports only some combinations of size and rate.

    Raises:
        ConfigError: pyrealsense2 is not installed.
    """

    def __init__(self, serial: str, width: int, height: int, fps: float) -> None:
        try:
            import pyrealsense2
        except ImportError as error:
            raise ConfigError(
                f"source realsense needs pyrealsense2 ({error})",
                "pip install pyrealsense2",
            ) from error
        self._rs: Any = pyrealsense2
        self.binding = f"serial {serial}"
        self._serial = serial
        self._mode = (width, height, int(fps))
        self._pipeline: Any = None

    def open(self) -> None:
        """Start the colour stream. Raises CameraError when the camera is not there."""
        width, height, fps = self._mode
        config = self._rs.config()
        config.enable_device(self._serial)
        config.enable_stream(self._rs.stream.color, width, height, self._rs.format.rgb8, fps)
        pipeline = self._rs.pipeline()
        try:
            pipeline.start(config)
        except RuntimeError as error:  # what pyrealsense2 raises for everything
            raise CameraError(
                f"RealSense {self._serial} does not start at {width}x{height}, {fps} fps ({error})",
                "run rs-enumerate-devices to see what is connected and what it supports",
            ) from error
        self._pipeline = pipeline

    def read(self) -> Frame:
        """Wait at most 2 s for the next frame. Raises CameraError when none came."""
        try:
            color = self._pipeline.wait_for_frames(_TIMEOUT_MS).get_color_frame()
        except RuntimeError as error:
            raise CameraError(
                f"RealSense {self._serial} gave no frame ({error})", "check its plug"
            ) from error
        arrival = time.time_ns()
        domain = self._rs.timestamp_domain
        pixels = np.array(color.get_data(), np.uint8)  # a copy: the buffer is the driver's
        if color.get_frame_timestamp_domain() in (domain.global_time, domain.system_time):
            microseconds = int(round(color.get_timestamp() * 1e3))  # from ms since the epoch
            return Frame(pixels, microseconds * 1000, DEVICE)
        return Frame(pixels, arrival, ARRIVAL)  # the camera's own clock has another origin

    def close(self) -> None:
        """Stop the stream."""
        if self._pipeline is not None:
            pipeline = self._pipeline
            self._pipeline = None
            try:
                pipeline.stop()
            except RuntimeError:
                pass  # unplugged: it stopped by itself


def _make(config: CameraConfig) -> RealSenseCamera:
    return RealSenseCamera(config.options["serial"], config.width, config.height, config.fps)


KIND = CameraKind(_make, bindings={"serial": text()})
