"""Add a kind of camera: a test picture with a bar that moves.

    python examples/custom_camera.py

A class with ``open``, ``read`` and ``close`` is a camera. Registered under a name, it can be used
in a cameras file like the built-in kinds. So that ``roslaunch ofrl_robot cameras.launch`` finds it
too, name it in an entry point of your own package, which then needs no call of ``register``::

    [options.entry_points]
    ofrl_robot.cameras =
        test_picture = my_package.test_picture:TEST_PICTURE
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from ofrl_robot.cameras.camera import ARRIVAL, Frame
from ofrl_robot.cameras.config import load_cameras
from ofrl_robot.cameras.registry import CAMERAS
from ofrl_robot.cameras.rig import LocalCameras
from ofrl_robot.cameras.settings import CameraConfig, CameraKind, whole
from ofrl_robot.images import prepare

CAMERAS_FILE = """
cameras:
  - name: front
    source: test_picture
    speed: 7                 # pixels per frame
    fps: 50
    observation: {height: 48, width: 48}
"""


class TestPicture:
    """A camera that draws a white bar on black, a little further to the right in every frame."""

    binding = "test picture"

    def __init__(self, config: CameraConfig) -> None:
        self._shape = (config.height, config.width, 3)
        self._period = 1.0 / config.fps
        self._speed = config.options["speed"]
        self._left = 0

    def open(self) -> None:
        """Find the device and start it; raise CameraError when it is not there."""

    def read(self) -> Frame:
        """Wait for the next frame; raise CameraError when none comes."""
        time.sleep(self._period)
        self._left = (self._left + self._speed) % self._shape[1]
        pixels = np.zeros(self._shape, np.uint8)
        pixels[:, self._left : self._left + 10] = 255
        return Frame(pixels, time.time_ns(), ARRIVAL)

    def close(self) -> None:
        """Release the device."""


TEST_PICTURE = CameraKind(make=TestPicture, settings={"speed": whole(1, default=5)})


def main() -> None:
    """Register the camera, open it through a cameras file, and show where its bar is."""
    CAMERAS.register("test_picture", TEST_PICTURE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cameras.yaml"
        file.write_text(CAMERAS_FILE)
        configs = load_cameras(file)
    cameras = LocalCameras(configs)
    try:
        cameras.wait_ready(timeout=10.0)
        for _ in range(3):
            frame = cameras.newest()["front"]
            bar = int(frame.pixels[0, :, 0].argmax())
            image = prepare(frame.pixels, cameras.specs[0])
            print(f"bar at {bar} px, raw {frame.pixels.shape}, observation {image.shape}")
            time.sleep(0.1)
    finally:
        cameras.close()


if __name__ == "__main__":
    main()
