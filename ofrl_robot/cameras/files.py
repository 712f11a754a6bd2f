"""Play a video file or a folder of images in the place of a camera, at a fixed rate."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Callable, Iterator, List, Tuple, Union

import cv2
import numpy as np

from ofrl_robot.cameras.camera import ARRIVAL, CameraEnded, Frame
from ofrl_robot.cameras.settings import CameraConfig, CameraKind, Setting, is_text, switch
from ofrl_robot.control.pacing import Pacer
from ofrl_robot.errors import CameraError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


class FileCamera:
    """Plays recorded frames at ``fps``. After a pause it goes on at ``fps``, without a burst.

    Args:
        path: file or folder that ``frames`` reads.
        frames: :func:`video_frames` or :func:`image_frames`.
        fps: frames per second; the rate that the recording names is not used.
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
        """Begin at the first frame. Raises CameraError when the path does not exist."""
        if not self._path.exists():
            raise CameraError(f"{self._path} does not exist", "fix the path of this camera")
        self._frames = self._play(self._path)
        self._pacer.start(time.monotonic())

    def read(self) -> Frame:
        """Wait until the next frame is due and return it, stamped with that time."""
        pixels = next(self._frames, None)
        if pixels is None:
            if not self._loop:
                raise CameraEnded(f"{self._path} is over", "set loop: true to repeat it")
            self._frames = self._play(self._path)
            pixels = next(self._frames, None)
            if pixels is None:
                raise CameraError(f"{self._path} has no frame", "choose another file or folder")
        time.sleep(self._pacer.wait(time.monotonic()))
        self._pacer.tick(time.monotonic())
        return Frame(pixels, time.time_ns(), ARRIVAL)

    def close(self) -> None:
        """Close the file that is being played."""
        self._frames = iter(())


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video file, uint8 RGB (H, W, 3).

    Raises:
        CameraError: OpenCV cannot read it.
    """
    capture = cv2.VideoCapture(str(path))  # OpenCV takes no Path
    try:
        if not capture.isOpened():
            raise CameraError(f"{path} is not a video that OpenCV reads", "choose another file")
        found, bgr = capture.read()
        while found:
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            found, bgr = capture.read()
    finally:
        capture.release()


def image_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the images of a folder in the order of their numbers, uint8 RGB (H, W, 3).

    Raises:
        CameraError: naming the folder or image that cannot be read.
    """
    try:
        files = sorted((p for p in path.iterdir() if p.suffix.lower() in SUFFIXES), key=_numbers)
    except OSError as error:
        raise CameraError(f"{path} is not a folder of images", "choose another folder") from error
    for file in files:
        try:
            bgr = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error):  # removed in between; empty
            bgr = None
        if bgr is None:
            raise CameraError(f"{file} cannot be read as an image", "remove or replace it")
        yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _numbers(file: Path) -> List[Union[int, str]]:
    """Return a sorting key that puts im_2 before im_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def _make_video(config: CameraConfig) -> FileCamera:
    path, loop = _path_and_loop(config)
    return FileCamera(path, video_frames, config.fps, loop)


def _make_images(config: CameraConfig) -> FileCamera:
    path, loop = _path_and_loop(config)
    return FileCamera(path, image_frames, config.fps, loop)


def _path_and_loop(config: CameraConfig) -> Tuple[Path, bool]:
    return Path(config.options["path"]), config.options["loop"]


_PATH = {"path": Setting(is_text, "give text, in quotes", is_path=True)}
_LOOP = {"loop": switch(default=True)}
VIDEO = CameraKind(_make_video, bindings=_PATH, settings=_LOOP)
IMAGES = CameraKind(_make_images, bindings=_PATH, settings=_LOOP)
