"""USB and other V4L2 cameras through OpenCV."""

from __future__ import annotations

import os
import time
from typing import Any

import cv2
import numpy as np

from ofrl_robot.cameras.binding import Binding
from ofrl_robot.cameras.camera import Frame, wall_stamp
from ofrl_robot.errors import CameraError

_BROKEN_FRAMES = 10  # in a row before the camera is given up; USB breaks an MJPEG now and then


class V4L2Camera:
    """A camera of the Linux kernel, found by serial, path or index at every opening.

    Args:
        device: which one.
        width, height: pixels asked for; fps: frames per second asked for.
        fourcc: pixel format asked for, e.g. MJPG, or empty for OpenCV's choice (mostly YUYV: two
            such streams of 640x480 at 30 fps do not fit on one USB 2 bus).
    """

    def __init__(self, device: Binding, width: int, height: int, fps: float, fourcc: str) -> None:
        self.binding = str(device)
        self._device, self._size, self._fps, self._fourcc = device, (width, height), fps, fourcc
        self._capture: Any = None

    def open(self) -> None:
        # OpenCV waits 10 s for a camera that hangs; read when it waits for the first time
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
        node = self._device.resolve()
        self._capture = cv2.VideoCapture(str(node), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise CameraError(
                f"{node} ({self.binding}) does not open",
                f"see who uses it (fuser -v {node}) and whether you are in group video",
            )
        if self._fourcc:  # before the size: a format has its own list of sizes
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*self._fourcc))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        self._capture.set(cv2.CAP_PROP_FPS, self._fps)

    def read(self) -> Frame:
        for _ in range(_BROKEN_FRAMES):
            if not self._capture.grab():
                break
            monotonic_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            _, bgr = self._capture.retrieve()
            if bgr is not None and bgr.ndim == 3:
                return self._frame(bgr, monotonic_ns, wall_ns)
        raise CameraError(
            f"the camera at {self.binding} gave no frame",
            "see its plug and whether another program uses it",
        )

    def _frame(self, bgr: np.ndarray, monotonic_ns: int, wall_ns: int) -> Frame:
        # with V4L2 this is the kernel's stamp of the buffer: ms, exact to the microsecond
        microseconds = int(round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e3))
        stamp_ns, clock = wall_stamp(microseconds * 1000, monotonic_ns, wall_ns)
        return Frame(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), stamp_ns, clock)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
