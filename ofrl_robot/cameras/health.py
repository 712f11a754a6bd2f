"""Judge whether a camera's frames can be trusted. Pure: time is passed in, nothing is read."""

from __future__ import annotations

import collections
from typing import Any, Deque, Dict, Optional

import numpy as np

from ofrl_robot.cameras.camera import Frame

STARTING = "starting"  # no frame yet, no error yet
DISCONNECTED = "disconnected"  # not there, or not what the config says
FROZEN = "frozen"  # frames arrive, but they are all the same
STALE = "stale"  # no new frame for too long
ENDED = "ended"  # a recording that does not repeat is over
REASONS = (STARTING, DISCONNECTED, FROZEN, STALE, ENDED)
_WINDOW = 2.0  # s over which the rate is measured


class Health:
    """Counts the frames of one camera and says what is wrong with it.

    ``now`` is a monotonic clock in seconds.

    A frame that equals the one before it bit by bit is a repeat, not a new frame: sensor noise
    makes two equal frames of a live camera impossible.

    Args:
        fps: frames per second that were asked for.
        stale_after: periods since the capture of the newest frame after which it is stale.
        frozen_after: repeats in a row after which the camera is frozen; 0: recorded frames may
            be equal, nothing is compared.
    """

    def __init__(self, fps: float, stale_after: int, frozen_after: int) -> None:
        self._period, self._fps = 1.0 / fps, fps
        self._limit, self._frozen_after = stale_after / fps, frozen_after
        self._window = max(_WINDOW, 5.0 * self._period)
        self._last: Optional[Frame] = None
        self._captured = 0.0  # of the last new frame, on the clock of ``now``
        self._connected = self._lost = self._ended = False
        self._in_a_row = 0
        self._times: Deque[float] = collections.deque()
        self._frames = self._repeats = self._dropped = self._connections = 0

    def take(self, frame: Frame, wall_ns: int, now: float) -> bool:
        """Note a frame that was handed over at ``wall_ns``, ``now``. Return whether it is new."""
        captured = now - max(0.0, (wall_ns - frame.stamp_ns) * 1e-9)
        if self._connected:
            missed = int(round((captured - self._captured) / self._period)) - 1 - self._in_a_row
        else:
            self._connected, self._lost, missed = True, False, 0
            self._connections += 1
        if self._frozen_after and self._equals_last(frame.pixels):
            self._in_a_row += 1
            self._repeats += 1
            return False
        self._dropped += max(0, missed)
        self._in_a_row = 0
        self._last, self._captured = frame, captured
        self._frames += 1
        self._times.append(now)
        return True

    def lost(self) -> None:
        """Note that the device is gone, or not there."""
        self._connected, self._lost = False, True

    def end(self) -> None:
        """Note that there will never be another frame."""
        self._ended = True

    def reason(self, now: float) -> str:
        """Return one of :data:`REASONS`, or an empty text when frames can be used."""
        if self._ended:
            return ENDED
        if not self._connected:
            return DISCONNECTED if self._lost else STARTING
        if self._frozen_after and self._in_a_row >= self._frozen_after:
            return FROZEN
        return STALE if now - self._captured > self._limit else ""

    def slow(self, now: float) -> bool:
        """Return whether fewer than nine tenths of the frames asked for arrive."""
        return self._rate(now) < 0.9 * self._fps

    def values(self, now: float) -> Dict[str, Any]:
        """Return rates in Hz, age of the newest frame in s, and counts since the start."""
        return {
            "rate_hz": f"{self._rate(now):.2f}",
            "nominal_hz": f"{self._fps:g}",
            "age_s": f"{now - self._captured:.3f}" if self._frames else "",
            "stamp": self._last.clock if self._last is not None else "",
            "frames": self._frames,
            "dropped": self._dropped,
            "repeated": self._repeats,
            "reconnects": max(0, self._connections - 1),
        }

    def _equals_last(self, pixels: np.ndarray) -> bool:
        return self._last is not None and np.array_equal(pixels, self._last.pixels)

    def _rate(self, now: float) -> float:
        while self._times and now - self._times[0] > self._window:
            self._times.popleft()
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])
