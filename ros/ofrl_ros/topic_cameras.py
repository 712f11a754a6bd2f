"""See cameras that publish on topics: which frame is newest, and whether it can be used."""

from __future__ import annotations

import threading
import time
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo

from ofrl_robot.errors import CameraStoppedError, ConfigError
from ofrl_robot.specs import CameraSpec
from ofrl_ros.diagnostics import status_reason
from ofrl_ros.node import raise_on_shutdown
from ofrl_ros.speakers import Speaker

STARTING = "starting"  # reason of a camera that has sent nothing yet


class StampedFrame(NamedTuple):
    """A frame whose pixels travel on their own topic; only its capture time is known here."""

    stamp_ns: int
    pixels: Optional[None] = None


class TopicCameras:
    """Cameras of a camera node, seen by the robot node through ``camera_info`` and ``status``.

    Implements :class:`~ofrl_robot.control.protocols.Cameras`. Pixels are not received here: the
    recorder and the actor receive them, and the tick names the frame by its capture stamp.

    Args:
        specs: every camera, in order, as it is recorded.
        timeout: seconds to wait for the first frame of every camera.
        max_ages: seconds, by camera: age of its newest frame above which it cannot be used.

    Raises:
        ConfigError: a camera sent nothing within ``timeout``.
    """

    def __init__(
        self,
        specs: Sequence[CameraSpec],
        timeout: float = 30.0,
        max_ages: Optional[Mapping[str, float]] = None,
    ) -> None:
        self.specs: Tuple[CameraSpec, ...] = tuple(specs)
        self._lock = threading.Lock()
        self._stamps: Dict[str, int] = {}
        self._max_ages = dict(max_ages or {})
        self._reasons: Dict[str, str] = {}
        self._infos: Dict[str, Speaker] = {}
        self._statuses: List[Speaker] = []
        for spec in self.specs:
            topic, name = f"camera/{spec.name}/", spec.name
            self._infos[name] = Speaker(
                topic + "camera_info", CameraInfo, lambda m, n=name: self._on_info(m, n)
            )
            self._statuses.append(
                Speaker(topic + "status", DiagnosticStatus, lambda m, n=name: self._on_status(m, n))
            )
        self._wait(timeout)

    @property
    def nodes(self) -> Dict[str, str]:
        """Name of the node that publishes the frames, by camera."""
        return {name: speaker.node for name, speaker in self._infos.items()}

    def _on_info(self, message: CameraInfo, name: str) -> None:
        with self._lock:
            self._stamps[name] = message.header.stamp.to_nsec()

    def _on_status(self, message: DiagnosticStatus, name: str) -> None:
        with self._lock:
            self._reasons[name] = status_reason(message)

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            raise_on_shutdown()
            silent = [spec.name for spec in self.specs if spec.name not in self._stamps]
            if not silent:
                return
            if time.monotonic() > deadline:
                topic = rospy.resolve_name(f"camera/{silent[0]}/camera_info")
                raise ConfigError(
                    f"camera {', '.join(silent)} sent nothing on {topic} for {timeout:.0f} s",
                    "start the camera node in the same namespace and see what it prints",
                )
            time.sleep(0.02)

    def newest(self) -> Mapping[str, StampedFrame]:
        """Return the capture stamp of each camera's newest frame.

        Raises:
            CameraStoppedError: a camera says that its frames cannot be used.
        """
        with self._lock:
            for name, reason in self._reasons.items():
                if reason and reason != STARTING:
                    raise CameraStoppedError(
                        f"camera {name} stopped",
                        f"it is {reason}: check its plug and the camera node",
                    )
            now = time.time_ns()
            for name, stamp in self._stamps.items():
                age = (now - stamp) * 1e-9
                if age > self._max_ages.get(name, float("inf")):
                    raise CameraStoppedError(
                        f"camera {name} stopped",
                        f"its newest frame is {age:.1f} s old: check its plug and the camera node",
                    )
            return {name: StampedFrame(stamp) for name, stamp in self._stamps.items()}

    def close(self) -> None:
        """Unsubscribe."""
        for speaker in (*self._infos.values(), *self._statuses):
            speaker.unregister()
