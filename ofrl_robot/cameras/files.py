"""Recorded frames in the place of a camera: a video file or a folder of images, at a fixed rate."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Callable, Iterator, List, Union

import cv2
import numpy as np

from ofrl_robot.cameras.camera import ARRIVAL, CameraEnded, Frame
from ofrl_robot.control.pacing import Pacer
from ofrl_robot.errors import CameraError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


class FileCamera:
    """Plays frames at ``fps``; those that nobody took in time are not caught up in a burst.

    Args:
        path: file or folder, for ``frames``.
        frames: :func:`video_frames` or :func:`image_frames`.
        fps: frames per second, whatever the recording says of itself.
        loop: begin again at the end; otherwise :meth:`read` raises CameraEnded there.
    """

    def __init__(
        self,
        path: Path,
        frames: Callable[[Path], Iterator[np.ndarray]],
        fps: float,
        loop: bool,
    ) -> None:
        self.binding = str(path)
        self._path, self._play, self._loop = path, frames, loop
        self._pacer = Pacer(1.0 / fps)
        self._frames: Iterator[np.ndarray] = iter(())

    def open(self) -> None:
        if not self._path.exists():
            raise CameraError(f"nothing at {self._path}", "mend the path of this camera")
        self._frames = self._play(self._path)
        self._pacer.start(time.monotonic())

    def read(self) -> Frame:
        pixels = next(self._frames, None)
        if pixels is None:
            if not self._loop:
                raise CameraEnded(f"{self._path} is over", "set loop: true to repeat it")
            self._frames = self._play(self._path)
            pixels = next(self._frames, None)
            if pixels is None:
                raise CameraError(f"{self._path} holds no frame", "choose another")
        time.sleep(self._pacer.wait(time.monotonic()))
        self._pacer.tick(time.monotonic())
        return Frame(pixels, time.time_ns(), ARRIVAL)

    def close(self) -> None:
        self._frames = iter(())


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """Frames of a video file, uint8 RGB (H, W, 3). Raises CameraError when it is no video."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise CameraError(f"{path} is no video that OpenCV reads", "choose another")
        found, bgr = capture.read()
        while found:
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            found, bgr = capture.read()
    finally:
        capture.release()


def image_frames(path: Path) -> Iterator[np.ndarray]:
    """Images of a folder in the order of their numbers, uint8 RGB (H, W, 3).

    Raises CameraError naming what cannot be read.
    """
    try:
        files = sorted((p for p in path.iterdir() if p.suffix.lower() in SUFFIXES), key=_numbers)
    except OSError as error:
        raise CameraError(f"{path} is no folder of images", "choose another") from error
    for file in files:
        try:
            bgr = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error):  # removed meanwhile; empty
            bgr = None
        if bgr is None:
            raise CameraError(f"{file} cannot be read as an image", "remove or mend it")
        yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _numbers(file: Path) -> List[Union[int, str]]:
    """Sorting key: im_2 before im_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]
