"""Between the library's signals and ROS messages. Standard messages only; no cv_bridge.

The topics are described in docs/ros_interface.md.
"""

from __future__ import annotations

import collections
import json
import threading
from typing import Any, Dict, List

import numpy as np
import rospy
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String

from ofrl_robot.control.signals import AppliedAction, Command, Tick
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.errors import ConfigError
from ofrl_robot.images import prepare
from ofrl_robot.specs import ObservationSpec
from ofrl_ros.wires import QUEUE, Events

IMAGE_BUFFER = 2**24  # bytes; rospy's default of 64 KiB makes images stale (0.6 s measured)
SOURCES = {"teleop/action": "human", "policy/action": "policy"}
BOOKKEEPING = ("step", "seed", "reward", "terminated", "truncated")
IMAGE_AGE = "image_age/{}"  # of a camera in a tick: s since the capture of the frame it shows
IMAGE_TOPIC = "camera/{}/image_raw"
STATE_AGE = "state_age"  # of a tick: s since the capture of the state


def stamp_of(ns: int) -> rospy.Time:
    return rospy.Time(ns // 1_000_000_000, ns % 1_000_000_000)


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
            f"image encoding {message.encoding!r}", "publish rgb8 or bgr8",
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
    """State vector, its age, bookkeeping, and which frames a tick shows; those travel apart."""
    values = dict(zip(spec.state_names, tick.state))
    values.update(zip(BOOKKEEPING, (tick.step, seed, tick.reward, tick.terminated, tick.truncated)))
    values[STATE_AGE] = (tick.stamp_ns - tick.state_stamp_ns) * 1e-9
    for camera in spec.cameras:
        captured = tick.image_stamps_ns.get(camera.name, tick.stamp_ns)
        values[IMAGE_AGE.format(camera.name)] = (tick.stamp_ns - captured) * 1e-9
    return named_values(values, tick.stamp_ns, "base")


def step_of(message: JointState) -> int:
    """Which step of its episode a tick is."""
    return int(_values(message)["step"])


def capture_stamp(message: JointState, camera: str) -> int:
    """When the frame that a tick shows was captured, ns: the stamp of its Image message."""
    return _earlier(message, _values(message)[IMAGE_AGE.format(camera)])


def state_stamp(message: JointState) -> int:
    """When the state in a tick was captured, ns; bags of earlier versions do not say: the tick."""
    return _earlier(message, _values(message).get(STATE_AGE, 0.0))


def _values(message: JointState) -> Dict[str, float]:
    return dict(zip(message.name, message.position))


def _earlier(message: JointState, seconds: float) -> int:
    return message.header.stamp.to_nsec() - int(round(seconds * 1e9))


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


def applied_message(applied: AppliedAction) -> Joy:
    """What was applied: axes applied then requested; buttons limited, intervention and when.

    When: s and ns since the tick, as two whole numbers.
    """
    axes = np.concatenate([applied.action, applied.requested])
    message = action_message(axes, applied.stamp_ns, applied.source)
    delay = divmod(applied.applied_ns - applied.stamp_ns, 1_000_000_000)
    message.buttons = [int(applied.limited), int(applied.intervention), *delay]
    return message


def applied_from(message: Joy) -> AppliedAction:
    """Inverse of :func:`applied_message`; the names of the limits are not transmitted."""
    axes = np.asarray(message.axes, np.float64)
    half = len(axes) // 2
    stamp = message.header.stamp.to_nsec()
    seconds, nanoseconds = message.buttons[2:4] or (0, 0)  # bags of earlier versions lack them
    return AppliedAction(
        stamp_ns=stamp,
        action=axes[:half],
        requested=axes[half:],
        source=message.header.frame_id,
        reasons=("limited",) if message.buttons[0] else (),
        intervention=bool(message.buttons[1]),
        applied_ns=stamp + seconds * 1_000_000_000 + nanoseconds,
    )


def saved_message(meta: EpisodeMeta, transitions: int, first_stamp_ns: int) -> String:
    """What the recorder made of the episode whose tick 0 has that stamp, as JSON."""
    attributes = meta.to_attrs()
    return String(
        json.dumps({"first_stamp": first_stamp_ns, "steps": transitions, "attributes": attributes})
    )


def saved_from(message: String) -> "tuple[EpisodeMeta, int, int]":
    """Inverse of :func:`saved_message`; raises DatasetError for foreign or newer attributes."""
    note = json.loads(message.data)
    meta = EpisodeMeta.from_attrs(note["attributes"], "episode/saved")
    return meta, int(note["steps"]), int(note["first_stamp"])


def command_from(message: Joy, source: str) -> Command:
    return Command(message.header.stamp.to_nsec(), np.asarray(message.axes, np.float64), source)


def ground_truth_message(tick: Tick) -> JointState:
    values = {
        f"{name}/{i}": entry
        for name, array in tick.ground_truth.items()
        for i, entry in enumerate(array)
    }
    return named_values(values, tick.stamp_ns, "base")


class TickAssembler:
    """Puts tick, ground truth and images together; they come on several sockets, or from a bag.

    An image is stamped with its capture: a tick may show one that came with an earlier tick.
    Complete ticks are queued in ``events`` as ("tick", parts), for :meth:`assemble`.

    Args:
        spec: which cameras and state entries belong to a tick.
        ground_truth: also wait for the simulator's ground truth.
    """

    def __init__(self, spec: ObservationSpec, events: Events, ground_truth: bool = False) -> None:
        self._spec, self._events = spec, events
        self._wanted = {"tick", "ground_truth"} if ground_truth else {"tick"}
        # both by stamp, oldest first
        self._parts: "collections.OrderedDict[int, Dict[str, Any]]" = collections.OrderedDict()
        self._frames: "Dict[str, collections.OrderedDict[int, Image]]" = {
            c.name: collections.OrderedDict() for c in spec.cameras
        }
        self._lock = threading.Lock()

    def subscribe(self) -> List[rospy.Subscriber]:
        """Hear the topics from now on."""
        topics = {IMAGE_TOPIC.format(c.name): c.name for c in self._spec.cameras}
        topics.update({name: name for name in sorted(self._wanted)})
        return [
            rospy.Subscriber(
                topic,
                JointState if part in self._wanted else Image,
                self.take,
                callback_args=part,
                tcp_nodelay=True,
                buff_size=IMAGE_BUFFER,
            )
            for topic, part in topics.items()
        ]

    def take(self, message: Any, part: str) -> None:
        """One message: part is "tick", "ground_truth" or the name of a camera."""
        stamp = message.header.stamp.to_nsec()
        with self._lock:
            if part in self._frames:
                self._frames[part][stamp] = message
            else:
                self._parts.setdefault(stamp, {})[part] = message
            for pending in list(self._parts):
                self._complete(pending)
            for kept in (self._parts, *self._frames.values()):
                while len(kept) > QUEUE:  # their siblings were lost
                    kept.popitem(last=False)

    def _complete(self, stamp: int) -> None:
        """Queue the tick of that stamp if all of it is there."""
        parts = self._parts[stamp]
        if not self._wanted <= set(parts):
            return
        shown = {name: capture_stamp(parts["tick"], name) for name in self._frames}
        if not all(shown[name] in frames for name, frames in self._frames.items()):
            return
        for name, frames in self._frames.items():
            parts[name] = frames[shown[name]]
            while next(iter(frames)) < shown[name]:  # the next tick shows this one or a newer one
                frames.popitem(last=False)
        del self._parts[stamp]
        self._events.put("tick", parts)

    def awaited_cameras(self) -> List[str]:
        """Cameras whose frame the oldest tick that is otherwise complete waits for."""
        with self._lock:
            for parts in self._parts.values():
                if self._wanted <= set(parts):
                    return [
                        name
                        for name, frames in self._frames.items()
                        if capture_stamp(parts["tick"], name) not in frames
                    ]
        return []

    def assemble(self, parts: Dict[str, Any]) -> "tuple[Tick, int]":
        """(tick, seed of its episode) from complete parts. Raises ConfigError on a bad image."""
        stamp = parts["tick"].header.stamp.to_nsec()
        values = _values(parts["tick"])
        truth: Dict[str, List[float]] = {}
        if "ground_truth" in parts:
            message = parts["ground_truth"]
            for name, value in zip(message.name, message.position):
                truth.setdefault(name.rsplit("/", 1)[0], []).append(value)
        originals = {c.name: image_pixels(parts[c.name]) for c in self._spec.cameras}
        tick = Tick(
            stamp_ns=stamp,
            step=int(values["step"]),
            images={c.name: prepare(originals[c.name], c) for c in self._spec.cameras},
            state=np.array([values[name] for name in self._spec.state_names]),
            reward=values["reward"],
            terminated=bool(values["terminated"]),
            truncated=bool(values["truncated"]),
            image_stamps_ns={
                c.name: parts[c.name].header.stamp.to_nsec() for c in self._spec.cameras
            },
            ground_truth={name: np.array(entries) for name, entries in truth.items()},
            state_stamp_ns=state_stamp(parts["tick"]),
            originals=originals,
        )
        return tick, int(values["seed"])
