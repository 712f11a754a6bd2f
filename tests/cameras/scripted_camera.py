"""A camera by script, for the tests of this folder."""

from __future__ import annotations

import threading
import time
from typing import List

import numpy as np
import pytest

from ofrl_robot.cameras.camera import DEVICE, Frame
from ofrl_robot.errors import CameraError

SIZE = (24, 32)  # height, width


def noise(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size + (3,), dtype=np.uint8)


def wait_for(condition, what: str):
    """Poll until ``condition()`` is true and return it; fail naming ``what`` after 30 s."""
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    pytest.fail(f"gave up waiting for {what}")


class ScriptedCamera:
    """Gives new frames at 100 Hz while ``plugged``; ``hangs`` in a read as a driver may."""

    binding = "script"

    def __init__(self) -> None:
        self.plugged, self.hangs, self.frozen = True, threading.Event(), False
        self.opened = self.closed = self.reads = 0
        self.size = SIZE
        self.attempts: List[float] = []

    def open(self) -> None:
        self.attempts.append(time.monotonic())
        if not self.plugged:
            raise CameraError("no camera at script", "plug it in")
        self.opened += 1

    def read(self) -> Frame:
        if self.hangs.is_set():
            time.sleep(60)
        time.sleep(0.01)
        if not self.plugged:
            raise CameraError("gave no frame", "see its plug")
        self.reads += not self.frozen
        return Frame(noise(self.reads, self.size), time.time_ns(), DEVICE)

    def close(self) -> None:
        self.closed += 1
