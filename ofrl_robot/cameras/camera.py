"""What a camera is: opened, read frame by frame, closed; each frame knows when it was captured."""

from __future__ import annotations

import dataclasses
from typing import Protocol, Tuple

import numpy as np

from ofrl_robot.errors import CameraError

DEVICE, ARRIVAL = "device", "arrival"  # whose clock stamped a frame
_MAX_AGE_NS = 10_000_000_000  # a driver's stamp older than this is on a clock we do not know


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        pixels: uint8 RGB (height, width, 3).
        stamp_ns: time of capture, ns since the epoch.
        clock: ``DEVICE``: the driver's own stamp; ``ARRIVAL``: when the frame was handed over.
    """

    pixels: np.ndarray
    stamp_ns: int
    clock: str


class Camera(Protocol):
    """A source of frames, used by one thread (:class:`~ofrl_robot.cameras.stream.CameraStream`).

    Attributes:
        binding: what it is bound to, for messages; the same device at every :meth:`open`.
    """

    binding: str

    def open(self) -> None:
        """Find the device and start it. Raises CameraError when it is not there."""

    def read(self) -> Frame:
        """The next frame; waits for it. Raises CameraError when there is none, and
        :class:`CameraEnded` when there will never be another."""

    def close(self) -> None:
        """Let go of the device; also when it is gone or was never opened."""


class CameraEnded(CameraError):
    """A recorded source is over: opening it again would play it again."""


def wall_stamp(device_ns: int, monotonic_ns: int, wall_ns: int) -> Tuple[int, str]:
    """A driver's stamp as (ns since the epoch, clock).

    V4L2 drivers stamp with the monotonic clock, a few with the wall clock, and OpenCV does not
    tell which: the one that makes the frame 0 to 10 s old is taken. Neither (some drivers leave
    the stamp at 0): the frame is stamped with its arrival, ``wall_ns``.

    Args:
        device_ns: stamp given by the driver.
        monotonic_ns, wall_ns: both clocks, read when the frame was handed over.
    """
    for now in (monotonic_ns, wall_ns):
        age = now - device_ns
        if 0 <= age < _MAX_AGE_NS:
            return wall_ns - age, DEVICE
    return wall_ns, ARRIVAL
