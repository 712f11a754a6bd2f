"""Between the library's signals and ROS messages. Standard messages only; no cv_bridge.

Imported by the nodes from their own folder. The topics are described in docs/ros_interface.md.
"""

from __future__ import annotations

import collections
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState, Joy

from ofrl_robot.control.signals import Applied, Command, Tick
from ofrl_robot.errors import ConfigError, OfrlError
from ofrl_robot.specs import ActionSpec, ObservationSpec

QUEUE = 100  # messages a publisher may hold; an episode in lockstep never has as many in flight
IMAGE_BUFFER = 2**24  # bytes; rospy's default of 64 KiB makes images stale (0.6 s measured)
BOOKKEEPING = ("step", "seed", "reward", "terminated", "truncated")
SOURCES = {"teleop/action": "human", "policy/action": "policy"}


def run_node(name: str, main: Callable[[], None]) -> None:
    """Run a node's main; an OfrlError becomes one line and exit code 2, never a traceback."""
    try:
        rospy.init_node(name)
        main()
    except OfrlError as error:
        print("{}: {}".format(name, error), file=sys.stderr, flush=True)
        sys.exit(2)
    except rospy.ROSInterruptException:
        pass  # Ctrl-C or roslaunch stopping us while we waited


def stamp_of(ns: int) -> rospy.Time:
    return rospy.Time(ns // 1_000_000_000, ns % 1_000_000_000)


# -- robot description -----------------------------------------------------------------------


def publish_spec(robot: Any) -> None:
    """Put the robot's specs on the parameter server as ``spec`` (JSON text)."""
    spec = {
        "robot": robot.name,
        "task": robot.task,
        "horizon": robot.horizon,
        "control_rate_hz": robot.control_rate_hz,
        "action_spec": robot.action_spec.to_dict(),
        "observation_spec": robot.observation_spec.to_dict(),
    }
    rospy.set_param("spec", json.dumps(spec))


class RemoteRobot:
    """The robot as the other nodes see it: its specs, from the parameter server.

    Raises ConfigError when no robot node has announced itself within ``timeout`` seconds.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not rospy.has_param("spec"):
            if time.monotonic() > deadline or rospy.is_shutdown():
                raise ConfigError(
                    "no robot node announced itself on {} within {:.0f} s".format(
                        rospy.resolve_name("spec"), timeout
                    ),
                    "start the robot node in the same namespace",
                )
            time.sleep(0.05)
        spec = json.loads(rospy.get_param("spec"))
        self.name: str = spec["robot"]
        self.task: str = spec["task"]
        self.horizon: int = spec["horizon"]
        self.control_rate_hz: float = spec["control_rate_hz"]
        self.action_spec = ActionSpec.from_dict(spec["action_spec"])
        self.observation_spec = ObservationSpec.from_dict(spec["observation_spec"])


# -- messages --------------------------------------------------------------------------------


def image_message(pixels: np.ndarray, stamp_ns: int, frame: str) -> Image:
    """uint8 RGB (H, W, 3) -> Image, rgb8."""
    message = Image(encoding="rgb8", height=pixels.shape[0], width=pixels.shape[1])
    message.header.stamp, message.header.frame_id = stamp_of(stamp_ns), frame
    message.step, message.data = pixels.shape[1] * 3, np.ascontiguousarray(pixels).tobytes()
    return message


def image_pixels(message: Image) -> np.ndarray:
    """Image -> uint8 RGB (H, W, 3), read-only. Raises ConfigError for other encodings."""
    if message.encoding not in ("rgb8", "bgr8"):
        raise ConfigError(
            "image encoding {!r}".format(message.encoding), "publish rgb8 or bgr8",
            message.header.frame_id,
        )  # fmt: skip
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : message.width * 3].reshape(message.height, message.width, 3)
    return pixels[..., ::-1] if message.encoding == "bgr8" else pixels


def named_values(values: Dict[str, float], stamp_ns: int, frame: str = "") -> JointState:
    """Named float64 values as a JointState (names and positions)."""
    message = JointState(name=list(values), position=[float(v) for v in values.values()])
    message.header.stamp, message.header.frame_id = stamp_of(stamp_ns), frame
    return message


def tick_message(tick: Tick, spec: ObservationSpec, seed: int) -> JointState:
    """State vector and bookkeeping of a tick; images travel apart with the same stamp."""
    values = dict(zip(spec.state_names, tick.state))
    values.update(zip(BOOKKEEPING, (tick.step, seed, tick.reward, tick.terminated, tick.truncated)))
    return named_values(values, tick.stamp_ns, "base")


def pose_message(tick: Tick) -> PoseStamped:
    """End-effector pose in the robot's base frame, from the first seven state entries."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = stamp_of(tick.stamp_ns), "base"
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = tick.state[:3]
    orientation.x, orientation.y, orientation.z, orientation.w = tick.state[3:7]
    return message


def action_message(action: np.ndarray, stamp_ns: int, source: str) -> Joy:
    """An action: axes in ActionSpec order, the stamp of the tick it answers, who sent it."""
    message = Joy(axes=[float(a) for a in action])
    message.header.stamp, message.header.frame_id = stamp_of(stamp_ns), source
    return message


def applied_message(applied: Applied) -> Joy:
    """What was applied: axes applied then requested, buttons = (limited, intervention)."""
    axes = np.concatenate([applied.action, applied.requested])
    message = action_message(axes, applied.stamp_ns, applied.source)
    message.buttons = [int(applied.limited), int(applied.intervention)]
    return message


def applied_from(message: Joy) -> Applied:
    """Inverse of :func:`applied_message`; the names of the limits are not transmitted."""
    axes = np.asarray(message.axes, np.float64)
    half = len(axes) // 2
    return Applied(
        stamp_ns=message.header.stamp.to_nsec(),
        action=axes[:half],
        requested=axes[half:],
        source=message.header.frame_id,
        reasons=("limited",) if message.buttons[0] else (),
        intervention=bool(message.buttons[1]),
    )


def command_from(message: Joy, source: str) -> Command:
    return Command(message.header.stamp.to_nsec(), np.asarray(message.axes, np.float64), source)


# -- assembling ticks ------------------------------------------------------------------------


class TickAssembler:
    """Puts tick, images and ground truth of one stamp together; they come on several sockets.

    Args:
        spec: which cameras and state entries belong to a tick.
        ready: called with (tick, seed) once per complete tick, in the thread that completed it.
        ground_truth: also wait for the simulator's ground truth.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        ready: Callable[[Tick, int], None],
        ground_truth: bool = False,
    ) -> None:
        self._spec, self._ready = spec, ready
        self._wanted = {"tick"} | {c.name for c in spec.cameras}
        self._wanted |= {"ground_truth"} if ground_truth else set()
        self._parts: "collections.OrderedDict[int, Dict[str, Any]]" = collections.OrderedDict()
        self._lock = threading.Lock()
        self.subscribers = [self._subscribe("tick", JointState, "tick")]
        for camera in spec.cameras:
            topic = "camera/{}/image_raw".format(camera.name)
            self.subscribers.append(self._subscribe(topic, Image, camera.name))
        if ground_truth:
            self.subscribers.append(self._subscribe("ground_truth", JointState, "ground_truth"))

    def _subscribe(self, topic: str, kind: type, part: str) -> rospy.Subscriber:
        return rospy.Subscriber(
            topic, kind, self._take, callback_args=part, tcp_nodelay=True, buff_size=IMAGE_BUFFER
        )

    def _take(self, message: Any, part: str) -> None:
        stamp = message.header.stamp.to_nsec()
        with self._lock:
            parts = self._parts.setdefault(stamp, {})
            parts[part] = message
            complete = self._wanted <= set(parts)
            if complete:
                del self._parts[stamp]
            while len(self._parts) > QUEUE:  # parts whose siblings were lost
                self._parts.popitem(last=False)
        if complete:
            self._ready(*self._assemble(stamp, parts))

    def _assemble(self, stamp: int, parts: Dict[str, Any]) -> "tuple[Tick, int]":
        values = dict(zip(parts["tick"].name, parts["tick"].position))
        truth: Dict[str, List[float]] = {}
        if "ground_truth" in parts:
            message = parts["ground_truth"]
            for name, value in zip(message.name, message.position):
                truth.setdefault(name.rsplit("/", 1)[0], []).append(value)
        tick = Tick(
            stamp_ns=stamp,
            step=int(values["step"]),
            images={c.name: c.apply(image_pixels(parts[c.name])) for c in self._spec.cameras},
            state=np.array([values[name] for name in self._spec.state_names]),
            reward=values["reward"],
            terminated=bool(values["terminated"]),
            truncated=bool(values["truncated"]),
            image_stamps_ns={c.name: stamp for c in self._spec.cameras},
            ground_truth={name: np.array(entries) for name, entries in truth.items()},
        )
        return tick, int(values["seed"])


def ground_truth_message(tick: Tick) -> JointState:
    values = {
        "{}/{}".format(name, i): entry
        for name, array in tick.ground_truth.items()
        for i, entry in enumerate(array)
    }
    return named_values(values, tick.stamp_ns, "base")


def wait_connected(wires: List[Any], timeout: float = 30.0) -> None:
    """Wait until every publisher and subscriber has a peer. Raises ConfigError naming the rest."""
    deadline = time.monotonic() + timeout
    while not rospy.is_shutdown():
        lonely = [w.resolved_name for w in wires if w.get_num_connections() == 0]
        if not lonely:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                "nobody at the other end of {} after {:.0f} s".format(", ".join(lonely), timeout),
                "see which node did not start",
            )
        time.sleep(0.02)


# -- diagnostics -----------------------------------------------------------------------------


def status_message(name: str, level: int, text: str, values: Dict[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key, str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=text, hardware_id="", values=pairs)


class Diagnostics:
    """Publishes one DiagnosticStatus on /diagnostics once a second.

    Args:
        name: of the status. describe: returns (level, text, values) when asked.
    """

    def __init__(self, name: str, describe: Callable[[], Any]) -> None:
        self._name, self._describe = name, describe
        self._publisher = rospy.Publisher("/diagnostics", DiagnosticArray, queue_size=1)
        self._timer = threading.Thread(target=self._run, daemon=True)
        self._timer.start()

    def _run(self) -> None:
        while not rospy.is_shutdown():
            level, text, values = self._describe()
            array = DiagnosticArray(status=[status_message(self._name, level, text, values)])
            array.header.stamp = rospy.Time.now()
            self._publisher.publish(array)
            time.sleep(1.0)


def seconds_param(name: str, default: float) -> float:
    """A positive private parameter in seconds. Raises ConfigError otherwise."""
    value = rospy.get_param("~" + name, default)
    if not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(
            "{} is {!r}".format(rospy.resolve_name("~" + name), value), "use seconds > 0"
        )
    return float(value)


def path_param(name: str) -> Optional[Path]:
    """Private parameter as a path, taken from where roslaunch ran; None when empty or "auto".

    roslaunch starts nodes in ~/.ros, so a relative path means nothing there by itself.
    """
    text = str(rospy.get_param("~" + name, "") or "")
    if text in ("", "auto"):  # roslaunch calls an argument with an empty default a required one
        return None
    return Path(str(rospy.get_param("~cwd", "."))) / text
