"""Read USB and other V4L2 cameras through OpenCV."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import cv2
import numpy as np

from ofrl_robot.cameras.binding import Binding
from ofrl_robot.cameras.camera import Frame, wall_stamp
from ofrl_robot.cameras.settings import (
    CameraConfig,
    CameraKind,
    Setting,
    is_text,
    text,
    whole,
)
from ofrl_robot.errors import CameraError

_BROKEN_FRAMES = 10  # in a row before read() gives up; USB now and then breaks an MJPEG


class V4L2Camera:
    """A camera of the Linux kernel, found by serial, path or index at every opening.

    Args:
        device: serial, path or index of the camera.
        width, height: size of the frames to ask for, pixels.
        fps: frames per second to ask for.
        fourcc: pixel format to ask for, e.g. MJPG, or empty for OpenCV's choice (mostly YUYV:
            two such streams of 640x480 at 30 fps do not fit on one USB 2 bus).
    """

    def __init__(self, device: Binding, width: int, height: int, fps: float, fourcc: str) -> None:
        self.binding = str(device)
        self._device, self._size, self._fps, self._fourcc = device, (width, height), fps, fourcc
        self._capture: Any = None

    def open(self) -> None:
        """Find the device and start it. Raises CameraError when it does not open."""
        # OpenCV waits 10 s for a camera that hangs; it reads this before its first wait
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
        node = self._device.resolve()
        self._capture = cv2.VideoCapture(str(node), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise CameraError(
                f"{node} ({self.binding}) does not open",
                f"check who uses it (fuser -v {node}) and that you are in group video",
            )
        if self._fourcc:  # before the size: a format has its own list of sizes
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._fourcc))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        self._capture.set(cv2.CAP_PROP_FPS, self._fps)

    def read(self) -> Frame:
        """Wait for the next frame. Raises CameraError after 2 s or 10 broken frames."""
        for _ in range(_BROKEN_FRAMES):
            if not self._capture.grab():
                break
            monotonic_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            _, bgr = self._capture.retrieve()
            if bgr is not None and bgr.ndim == 3:
                return self._frame(bgr, monotonic_ns, wall_ns)
        raise CameraError(
            f"the camera at {self.binding} gave no frame",
            "check its plug and whether another program uses it",
        )

    def _frame(self, bgr: np.ndarray, monotonic_ns: int, wall_ns: int) -> Frame:
        # with V4L2 this is the kernel's stamp of the buffer: ms, to the microsecond
        microseconds = int(round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e3))
        stamp_ns, clock = wall_stamp(microseconds * 1000, monotonic_ns, wall_ns)
        return Frame(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), stamp_ns, clock)

    def close(self) -> None:
        """Release the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _make(config: CameraConfig) -> V4L2Camera:
    options = config.options
    device = Binding(
        options.get("serial", ""), options.get("path", ""), options.get("index", Binding.index)
    )
    return V4L2Camera(device, config.width, config.height, config.fps, options["fourcc"])


def _is_stable_path(value: Any) -> bool:
    return is_text(value) and re.match(r"(/dev/)?video\d+\Z", value) is None


KIND = CameraKind(
    _make,
    bindings={
        "serial": text(),
        "path": Setting(
            _is_stable_path,
            "use a name in /dev/v4l/by-path or a serial, because the numbers of /dev/video* change "
            "at a reboot; use index: N if any camera will do",
        ),
        "index": whole(0),
    },
    settings={
        "fourcc": Setting(
            lambda v: is_text(v) and len(v) == 4, "use four letters, e.g. MJPG", default=""
        )
    },
)
