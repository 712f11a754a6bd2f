"""Read one camera in its own thread, judge its frames, reopen it after it was unplugged."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Callable, Dict, Optional, Tuple

from ofrl_robot.cameras.camera import Camera, CameraEnded, Frame
from ofrl_robot.cameras.health import DISCONNECTED, ENDED, FROZEN, STALE, STARTING, Health
from ofrl_robot.errors import CameraError

FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0  # s between two attempts to open; doubled each time
_TEXTS = {
    "": "ok",
    STARTING: "no frame yet",
    STALE: "no new frame for too long",
    FROZEN: "the same frame again and again",
}


@dataclasses.dataclass(frozen=True)
class Status:
    """State of a camera.

    Attributes:
        reason: why its frames must not be used (``health.REASONS``), or empty.
        text: the same in words.
        slow: frames can be used, but fewer arrive than were asked for.
        values: rates, ages and counts for diagnostics.
    """

    reason: str
    text: str
    slow: bool
    values: Dict[str, Any]


class CameraStream:
    """A camera and the thread that reads it. No other thread ever waits for the device.

    Args:
        camera: source of the frames.
        size: (height, width) that every frame must have, in pixels.
        health: judges the frames.
        on_frame: called in the thread with each new frame; never with a repeated one.
    """

    def __init__(
        self,
        camera: Camera,
        size: Tuple[int, int],
        health: Health,
        on_frame: Callable[[Frame], None],
    ) -> None:
        self._camera = camera
        self._size = size
        self._on_frame = on_frame
        self._health = health
        self._lock = threading.Lock()
        self._trouble = ""  # why it is disconnected
        self._crash: Optional[Exception] = None
        self._stop = threading.Event()
        # daemon: a driver that hangs in the kernel must not keep the process alive
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread; one that still waits for its device after ``timeout`` s is left alone."""
        self._stop.set()
        self._thread.join(timeout)

    def status(self) -> Status:
        """Return the state now.

        Raises:
            Exception: the error that ended the thread, unless the camera caused it.
        """
        if self._crash is not None:
            raise self._crash
        with self._lock:
            now = time.monotonic()
            reason = self._health.reason(now)
            text = self._trouble if reason in (DISCONNECTED, ENDED) else _TEXTS[reason]
            slow = not reason and self._health.slow(now)
            return Status(reason, "slow" if slow else text, slow, self._health.values(now))

    def _run(self) -> None:
        try:
            self._stay_connected()
        except Exception as error:  # in on_frame, or a bug: status() raises it again
            self._crash = error

    def _stay_connected(self) -> None:
        wait = FIRST_WAIT
        while not self._stop.is_set():
            try:
                self._camera.open()
                while not self._stop.is_set():
                    self._take(self._camera.read())
                    wait = FIRST_WAIT
            except CameraEnded as error:
                with self._lock:
                    self._trouble = str(error)
                    self._health.end()
                return
            except CameraError as error:
                with self._lock:
                    self._trouble = str(error)
                    self._health.lost()
            finally:
                self._camera.close()
            self._stop.wait(wait)
            wait = min(2.0 * wait, LONGEST_WAIT)

    def _take(self, frame: Frame) -> None:
        wall_ns = time.time_ns()
        now = time.monotonic()
        if frame.pixels.shape != self._size + (3,):
            height, width = frame.pixels.shape[:2]
            raise CameraError(
                f"delivers {width}x{height}, its config says {self._size[1]}x{self._size[0]}",
                "set width and height to a size that it supports",
                self._camera.binding,
            )
        with self._lock:
            new = self._health.take(frame, wall_ns, now)
        if new:
            self._on_frame(frame)
