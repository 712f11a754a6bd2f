"""Read the cameras of a rig in this process and hand out their newest frames."""

from __future__ import annotations

import functools
import threading
import time
from typing import Dict, Optional, Sequence, Tuple

from ofrl_robot.cameras.camera import Frame
from ofrl_robot.cameras.health import DISCONNECTED, ENDED, FROZEN, STALE, STARTING, Health
from ofrl_robot.cameras.registry import make_camera
from ofrl_robot.cameras.settings import CameraConfig
from ofrl_robot.cameras.stream import CameraStream
from ofrl_robot.errors import CameraError, CameraStoppedError
from ofrl_robot.specs import CameraSpec

_POLL = 0.05  # s between two looks at cameras that are not ready and give no frame
_FIXES = {
    STARTING: "wait for its first frame",
    DISCONNECTED: "check its plug and its settings",
    STALE: "check its plug and how busy the computer is",
    FROZEN: "unplug it and plug it in again",
    ENDED: "set loop: true to repeat the recording",
}


class LocalCameras:
    """The cameras of a cameras file, each read by a thread of this process.

    :meth:`newest` never waits for a device. Every method may be called from any thread.

    Args:
        configs: cameras, as :func:`~ofrl_robot.cameras.config.load_cameras` returns them.

    Attributes:
        specs: size and crop of the observation that is made of each camera's raw frame, in order.

    Raises:
        ConfigError: a driver is not installed.
    """

    def __init__(self, configs: Sequence[CameraConfig]) -> None:
        self.specs: Tuple[CameraSpec, ...] = tuple(config.observation for config in configs)
        self._frames: Dict[str, Frame] = {}
        self._changed = threading.Condition()
        self._streams: Dict[str, CameraStream] = {}
        for config in configs:
            health = Health(config.fps, config.stale_after, config.frozen_after)
            self._streams[config.name] = CameraStream(
                make_camera(config),
                (config.height, config.width),
                health,
                functools.partial(self._keep, config.name),
            )
        for stream in self._streams.values():
            stream.start()

    def newest(self) -> Dict[str, Frame]:
        """Return the newest raw frame of each camera, with the time of its capture.

        ``images.prepare(frame.pixels, spec)`` makes the observation of it.

        Returns:
            Frames by camera name, in the order of ``specs``; pixels are uint8 RGB
            (height, width, 3) at the size of the config.

        Raises:
            CameraError: naming the first camera that is not usable and the reason: starting,
                disconnected, stale, frozen or ended. CameraStoppedError when it gave frames before.
        """
        error = self._unusable()
        if error is not None:
            raise error
        with self._changed:
            return {name: self._frames[name] for name in self._streams}

    def wait_ready(self, timeout: float) -> None:
        """Wait until every camera is usable.

        Args:
            timeout: longest wait, s.

        Raises:
            CameraError: a camera is not usable after ``timeout``; as :meth:`newest`.
        """
        deadline = time.monotonic() + timeout
        while True:
            error = self._unusable()
            if error is None:
                return
            left = deadline - time.monotonic()
            if left <= 0.0:
                raise error
            with self._changed:
                self._changed.wait(min(left, _POLL))

    def close(self) -> None:
        """Stop all threads and release the devices. Calling it again does nothing."""
        for stream in self._streams.values():  # tell all, then wait: a device may hang
            stream.stop(timeout=0.0)
        for stream in self._streams.values():
            stream.stop()

    def _keep(self, name: str, frame: Frame) -> None:
        """Note a new frame; called in the camera's own thread."""
        with self._changed:
            self._frames[name] = frame
            self._changed.notify_all()

    def _unusable(self) -> Optional[CameraError]:
        """Return an error for the first camera that cannot be used, or None."""
        for name, stream in self._streams.items():
            status = stream.status()
            reason, text = status.reason, status.text
            if not reason and name not in self._frames:  # judged good, but not handed over yet
                reason, text = STARTING, "no frame yet"
            if reason:
                kind = CameraStoppedError if name in self._frames else CameraError
                return kind(f"camera {name} is {reason} ({text})", _FIXES[reason])
        return None
