"""Publish what surrounds a simulated arm: its camera, its objects and whether the task succeeded.

A twin is a node that speaks a vendor's topics in front of a simulated arm, so that the vendor's
own client and the driver can be tried without the arm. What is here knows no arm and no vendor.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, Protocol, Tuple

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger, TriggerResponse

from ofrl_robot.errors import ConfigError, OfrlError
from ofrl_robot.sim.real_time import RealTimePhysics
from ofrl_robot.specs import WORLD
from ofrl_ros import messages
from ofrl_ros.diagnostics import status_message

ARRANGE, NEXT_SEED, GROUND_TRUTH = "twin/arrange", "twin/next_seed", "twin/ground_truth"
FAULT, NEXT_FAULT = "twin/fault", "twin/next_fault"
SUCCESS, ARRANGED = "success", "arranged"  # beside the ground truth: 0 or 1; seed of the scene
TRUTH_HZ = 50.0


class Scene(Protocol):
    """What stands around an arm. Every method is called with the physics' lock held."""

    def arrange(self, seed: int) -> None:
        """Place the objects of an episode; the arm stays where it is."""

    def image(self) -> np.ndarray:
        """Draw the camera: uint8 RGB (h, w, 3)."""
        ...

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, float64, m, world axes."""
        ...

    def success(self) -> bool:
        """Return whether the task has succeeded now."""
        ...


class TwinWorld:
    """The topics of a scene that goes on in real time, in the namespace of the node.

    - ``camera/<name>/image_raw``, ``camera_info``, ``status``, as a camera node has them;
    - ``twin/ground_truth`` (JointState, 50 Hz), with ``success`` and the seed of the scene;
    - ``twin/arrange`` (Trigger): places the objects by the seed in parameter ``twin/next_seed``.

    Args:
        scene: the objects and the camera.
        physics: moves them; its lock guards the scene.
        camera: name of the camera.
        fps: frames per second.
    """

    def __init__(self, scene: Scene, physics: RealTimePhysics, camera: str, fps: float) -> None:
        self._scene, self._physics = scene, physics
        self._camera, self._period = camera, 1.0 / fps
        self._seed = -1
        self._closed = threading.Event()
        topic = f"camera/{camera}/"
        self._images = rospy.Publisher(
            messages.IMAGE_TOPIC.format(camera), Image, queue_size=10, tcp_nodelay=True
        )
        self._infos = rospy.Publisher(
            topic + "camera_info", CameraInfo, queue_size=10, tcp_nodelay=True
        )
        self._status = rospy.Publisher(topic + "status", DiagnosticStatus, queue_size=1, latch=True)
        self._truth = rospy.Publisher(GROUND_TRUTH, JointState, queue_size=1, tcp_nodelay=True)
        self._status.publish(
            status_message(f"camera/{camera}", DiagnosticStatus.OK, "ok", {"reason": ""})
        )
        self._threads = [
            threading.Thread(target=run_at, args=(hz, job, self._closed), name=name, daemon=True)
            for name, hz, job in (("camera", fps, self._show), ("truth", TRUTH_HZ, self._tell))
        ]
        self._service = rospy.Service(ARRANGE, Trigger, self._on_arrange)

    def start(self) -> None:
        """Arrange a first scene and let time pass."""
        self._arrange(0)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End threads and topics. Calling it again does nothing."""
        self._closed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(1.0)
        self._service.shutdown("closed")
        for publisher in (self._images, self._infos, self._status, self._truth):
            publisher.unregister()

    def _on_arrange(self, _request: Any) -> TriggerResponse:
        seed = rospy.get_param(NEXT_SEED, 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            return TriggerResponse(False, f"{NEXT_SEED} is {seed!r}; use 0 or more")
        try:
            self._arrange(seed)
            self._show()  # or tick 0 would show the scene before
        except OfrlError as error:
            return TriggerResponse(False, str(error))
        return TriggerResponse(True, "")

    def _arrange(self, seed: int) -> None:
        with self._physics.lock:
            self._physics.pause()
            try:
                self._scene.arrange(seed)
                self._seed = seed
            finally:
                self._physics.start()

    def _show(self) -> None:
        with self._physics.lock:
            stamp = time.time_ns()
            pixels = self._scene.image()
        info = CameraInfo(height=pixels.shape[0], width=pixels.shape[1])
        info.header.stamp, info.header.frame_id = messages.stamp_of(stamp), self._camera
        self._infos.publish(info)
        self._images.publish(messages.image_message(pixels, stamp, self._camera))

    def _tell(self) -> None:
        with self._physics.lock:
            stamp = time.time_ns()
            truth = self._scene.ground_truth()
            success, seed = self._scene.success(), self._seed
        values = messages.array_values(truth)
        values.update({SUCCESS: float(success), ARRANGED: float(seed)})
        self._truth.publish(messages.named_values(values, stamp, WORLD))


class TwinFaults:
    """Which fault is injected, for rehearsals: ``twin/fault`` (Trigger).

    It takes the text in parameter ``twin/next_fault``: a name, or ``name:detail``; ``none`` ends
    every fault.

    Args:
        known: names, each with the details that it may have (none: it takes no detail).
    """

    def __init__(self, known: Dict[str, Tuple[str, ...]]) -> None:
        self._known = known
        self._active: Dict[str, str] = {}
        self._service = rospy.Service(FAULT, Trigger, self._on_fault)

    def close(self) -> None:
        """End the service."""
        self._service.shutdown("closed")

    def __contains__(self, name: str) -> bool:
        """Whether a fault is injected now."""
        return name in self._active

    def detail(self, name: str) -> str:
        """Return the detail of a fault that is injected now, or an empty text."""
        return self._active.get(name, "")

    def clear(self, name: str) -> None:
        """End one fault: what mends it has been done."""
        self._active = {k: v for k, v in self._active.items() if k != name}

    def inject(self, text: str) -> None:
        """Begin a fault (``name`` or ``name:detail``), or end all of them (``none``).

        Raises:
            ConfigError: no such fault.
        """
        name, _, detail = str(text).partition(":")
        if name == "none":
            self._active = {}
            return
        details = self._known.get(name)
        if details is None:
            raise ConfigError(f"fault {name!r} is unknown", f"use none, {', '.join(self._known)}")
        if details and detail not in details:
            raise ConfigError(f"fault {name} of {detail!r} is unknown", f"use {', '.join(details)}")
        self._active = {**self._active, name: detail}

    def _on_fault(self, _request: Any) -> TriggerResponse:
        text = rospy.get_param(NEXT_FAULT, "none")
        try:
            self.inject(text)
        except ConfigError as error:
            return TriggerResponse(False, str(error))
        rospy.logwarn("twin: fault %s", text)
        return TriggerResponse(True, str(text))


def run_at(hz: float, job: Callable[[], None], closed: threading.Event) -> None:
    """Call ``job`` at a rate until ``closed``; a late call is not made up for."""
    due = time.monotonic()
    while not closed.wait(max(0.0, due - time.monotonic())) and not rospy.is_shutdown():
        try:
            job()
        except rospy.ROSException:  # the topics are closed before the node is
            if not rospy.core.is_shutdown_requested():
                raise
            return
        due = max(due + 1.0 / hz, time.monotonic())
