"""Define a camera and its frames, and convert a driver's stamps to wall time."""

from __future__ import annotations

import dataclasses
from typing import Protocol, Tuple

import numpy as np

from ofrl_robot.errors import CameraError

DEVICE, ARRIVAL = "device", "arrival"  # who stamped a frame
_MAX_AGE_NS = 10_000_000_000  # a stamp older than this comes from an unknown clock


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame and the time of its capture.

    Attributes:
        pixels: uint8 RGB (height, width, 3).
        stamp_ns: time of capture, ns since the epoch.
        clock: ``DEVICE``: the driver's own stamp; ``ARRIVAL``: when the frame was handed over.
    """

    pixels: np.ndarray
    stamp_ns: int
    clock: str


class Camera(Protocol):
    """A source of frames.

    One thread uses it (:class:`~ofrl_robot.cameras.stream.CameraStream`): opens it, reads frames,
    closes it, and after an error opens it again. To add a kind of camera, write a class with these
    members and register a :class:`~ofrl_robot.cameras.settings.CameraKind`; see
    examples/custom_camera.py.

    Attributes:
        binding: the device or file that it is bound to, for messages.
    """

    binding: str

    def open(self) -> None:
        """Find the device and start it.

        Raises:
            CameraError: it is not there or does not start. :meth:`open` is tried again later.
        """

    def read(self) -> Frame:
        """Wait for the next frame and return it.

        Raises:
            CameraError: no frame came. The camera is closed and opened again.
            CameraEnded: there will never be another frame.
        """
        ...

    def close(self) -> None:
        """Release the device. Must work when it is gone or was never opened."""


class CameraEnded(CameraError):
    """The end of a recording; opening it again would play it again."""


def wall_stamp(device_ns: int, monotonic_ns: int, wall_ns: int) -> Tuple[int, str]:
    """Convert a driver's stamp to wall time.

    V4L2 drivers stamp with the monotonic clock, a few with the wall clock, and OpenCV does not
    tell which: the one that makes the frame 0 to 10 s old is taken. If neither does (some drivers
    leave the stamp at 0), the frame is stamped with its arrival, ``wall_ns``.

    Args:
        device_ns: stamp given by the driver.
        monotonic_ns, wall_ns: both clocks, read when the frame was handed over.

    Returns:
        Stamp in ns since the epoch, and whose it is: ``DEVICE`` or ``ARRIVAL``.
    """
    for now in (monotonic_ns, wall_ns):
        age = now - device_ns
        if 0 <= age < _MAX_AGE_NS:
            return wall_ns - age, DEVICE
    return wall_ns, ARRIVAL
