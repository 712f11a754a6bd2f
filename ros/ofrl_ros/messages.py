"""Convert between the library's signals and ROS messages. Standard messages only; no cv_bridge.

The topics are described in docs/ros_interface.md.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
import rospy
from geometry_msgs.msg import PoseStamped, TransformStamped
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from ofrl_robot.control.limiter import limit_bits, limit_names
from ofrl_robot.control.signals import (
    HUMAN,
    POLICY,
    SOURCES,
    AppliedAction,
    ArmState,
    Command,
    Tick,
)
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import BASE, WORLD, ObservationSpec

ACTION_TOPICS = {"teleop/action": HUMAN, "policy/action": POLICY}
IMAGE_AGE = "image_age/{}"  # of a camera in a tick: s since the capture of the frame it shows
IMAGE_TOPIC = "camera/{}/image_raw"
PICTURES_TOPIC = "policy/pictures"
STATE_AGE = "state_age"  # in a tick: s since the capture of the state
MOST_REMARKS = 4096  # bytes
_BOOKKEEPING = ("step", "seed", "episode", "reward", "terminated", "truncated")


class TickInfo(NamedTuple):
    """To which episode a tick belongs.

    Attributes:
        seed: seed of the reset that began it.
        episode: number of that reset, counted by the robot node: no two episodes share it.
    """

    seed: int
    episode: int


def stamp_of(ns: int) -> rospy.Time:
    """Return nanoseconds since the epoch as a ROS time."""
    return rospy.Time(ns // 1_000_000_000, ns % 1_000_000_000)


def image_message(pixels: np.ndarray, stamp_ns: int, frame: str) -> Image:
    """Convert uint8 RGB (H, W, 3) to an Image, rgb8."""
    message = Image(encoding="rgb8", height=pixels.shape[0], width=pixels.shape[1])
    message.header.stamp, message.header.frame_id = stamp_of(stamp_ns), frame
    message.step = pixels.shape[1] * 3
    message.data = np.ascontiguousarray(pixels).tobytes()
    return message


def image_pixels(message: Image) -> np.ndarray:
    """Return the pixels of an Image: uint8 RGB (H, W, 3), read-only.

    Raises:
        ConfigError: the encoding is neither rgb8 nor bgr8, or the size is not that of the data.
    """
    if message.encoding not in ("rgb8", "bgr8"):
        raise ConfigError(
            f"image encoding is {message.encoding!r}",
            "publish rgb8 or bgr8",
            message.header.frame_id,
        )
    try:
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        pixels = rows[:, : message.width * 3].reshape(message.height, message.width, 3)
    except ValueError as error:
        raise ConfigError(
            f"image has {len(message.data)} bytes for {message.width}x{message.height} pixels",
            "publish height, width and step of the data",
            message.header.frame_id,
        ) from error
    return pixels[..., ::-1] if message.encoding == "bgr8" else pixels


def named_values(values: Dict[str, float], stamp_ns: int, frame: str = "") -> JointState:
    """Convert named float64 values to a JointState (names and positions)."""
    message = JointState(name=list(values), position=[float(v) for v in values.values()])
    message.header.stamp, message.header.frame_id = stamp_of(stamp_ns), frame
    return message


def values_of(message: JointState) -> Dict[str, float]:
    """Return the named values of a JointState."""
    return dict(zip(message.name, message.position))


def tick_message(tick: Tick, spec: ObservationSpec, info: TickInfo) -> JointState:
    """Convert a tick: state, its age, bookkeeping, and which frames it shows.

    The frames travel on topics of their own.
    """
    values = dict(zip(spec.state_names, tick.state))
    bookkeeping = (
        tick.step, info.seed, info.episode, tick.reward, tick.terminated, tick.truncated,
    )  # fmt: skip
    values.update(zip(_BOOKKEEPING, bookkeeping))
    values[STATE_AGE] = (tick.stamp_ns - tick.state_stamp_ns) * 1e-9
    for camera in spec.cameras:
        captured = tick.image_stamps_ns.get(camera.name, tick.stamp_ns)
        values[IMAGE_AGE.format(camera.name)] = (tick.stamp_ns - captured) * 1e-9
    return named_values(values, tick.stamp_ns, spec.state_frame)


def require_tick(message: JointState, spec: ObservationSpec) -> None:
    """Raise ValueError unless a message is a tick of a robot with this observation spec."""
    needed = {*spec.state_names, *_BOOKKEEPING, STATE_AGE}
    needed.update(IMAGE_AGE.format(camera.name) for camera in spec.cameras)
    missing = needed - set(values_of(message))
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    if not np.isfinite(message.position).all():
        raise ValueError("it is not finite")


def step_of(message: JointState) -> int:
    """Return which step of its episode a tick is."""
    return int(values_of(message)["step"])


def capture_stamp(message: JointState, camera: str) -> int:
    """Return when the frame that a tick shows was captured, ns: the stamp of its Image message."""
    return _earlier(message, values_of(message)[IMAGE_AGE.format(camera)])


def state_stamp(message: JointState) -> int:
    """Return when the state in a tick was captured, ns."""
    return _earlier(message, values_of(message)[STATE_AGE])


def _earlier(message: JointState, seconds: float) -> int:
    return message.header.stamp.to_nsec() - int(round(seconds * 1e9))


def pose_message(state: ArmState, frame: str) -> PoseStamped:
    """Convert the measured end-effector pose, in the frame in which it was measured."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = stamp_of(state.stamp_ns), frame
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = state.position
    orientation.x, orientation.y, orientation.z, orientation.w = state.orientation
    return message


def joints_message(state: ArmState) -> JointState:
    """Convert the measured joints: names, positions, and velocities and efforts where known."""
    message = named_values(state.joint_positions, state.stamp_ns)
    if state.joint_velocities:
        message.velocity = [state.joint_velocities.get(n, 0.0) for n in message.name]
    if state.joint_efforts:
        message.effort = [state.joint_efforts.get(n, 0.0) for n in message.name]
    return message


def base_transform(pose: Tuple[Tuple[float, ...], Tuple[float, ...]]) -> TFMessage:
    """Convert the pose of the base link in the world to a static transform."""
    position, quaternion = pose
    transform = TransformStamped()
    transform.header.frame_id, transform.child_frame_id = WORLD, BASE
    translation, rotation = transform.transform.translation, transform.transform.rotation
    translation.x, translation.y, translation.z = position
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion
    return TFMessage([transform])


def action_message(action: np.ndarray, stamp_ns: int, source: str) -> Joy:
    """Convert an action: axes in ActionSpec order, stamp of the tick it answers, who sent it."""
    message = Joy(axes=[float(a) for a in action])
    message.header.stamp, message.header.frame_id = stamp_of(stamp_ns), source
    return message


def command_from(message: Joy, source: str) -> Command:
    """Convert a message on an action topic to a command."""
    return Command(message.header.stamp.to_nsec(), np.asarray(message.axes, np.float64), source)


def applied_message(applied: AppliedAction) -> Joy:
    """Convert an applied action.

    Axes are applied, then requested. Buttons are the limits that acted (bits of
    ``limiter.LIMIT_NAMES``), intervention, late, and the time of application: s and ns since the
    tick, as two whole numbers.
    """
    axes = np.concatenate([applied.action, applied.requested])
    message = action_message(axes, applied.stamp_ns, applied.source)
    delay = divmod(applied.applied_ns - applied.stamp_ns, 1_000_000_000)
    flags = limit_bits(applied.reasons), int(applied.intervention), int(applied.late)
    message.buttons = [*flags, *delay]
    return message


def applied_from(message: Joy) -> AppliedAction:
    """Convert back what :func:`applied_message` made.

    Raises:
        ValueError: it is something else.
    """
    axes = np.asarray(message.axes, np.float64)
    half = len(axes) // 2
    stamp = message.header.stamp.to_nsec()
    limits, intervention, late, seconds, nanoseconds = message.buttons
    if message.header.frame_id not in SOURCES:
        raise ValueError(f"source {message.header.frame_id!r}")
    return AppliedAction(
        stamp_ns=stamp,
        action=axes[:half],
        requested=axes[half:],
        source=message.header.frame_id,
        reasons=limit_names(limits),
        intervention=bool(intervention),
        late=bool(late),
        applied_ns=stamp + seconds * 1_000_000_000 + nanoseconds,
    )


def saved_message(meta: EpisodeMeta, transitions: int, first_stamp_ns: int) -> String:
    """Describe the episode that the recorder made of the ticks from that stamp on, as JSON."""
    attributes = meta.to_attrs()
    return String(
        json.dumps({"first_stamp": first_stamp_ns, "steps": transitions, "attributes": attributes})
    )


def saved_from(message: String) -> Tuple[EpisodeMeta, int, int]:
    """Convert back what :func:`saved_message` made: (meta, transitions, first stamp).

    Raises:
        DatasetError: the attributes are foreign or newer.
    """
    note = json.loads(message.data)
    meta = EpisodeMeta.from_attrs(note["attributes"], "episode/saved")
    return meta, int(note["steps"]), int(note["first_stamp"])


def pictures_message(seed: int, remarks: Dict[str, Any]) -> String:
    """Say how far the pictures of the episode with that seed are outside the training data."""
    return String(json.dumps({"seed": seed, **remarks}))


def pictures_from(message: String) -> Tuple[int, Dict[str, Any]]:
    """Convert back what :func:`pictures_message` made: (seed, remarks).

    Raises:
        ValueError: it is no such message, or too long for an episode's attribute.
    """
    remarks = json.loads(message.data)
    if not isinstance(remarks, dict) or type(remarks.get("seed")) is not int:
        raise ValueError("no seed")
    if len(message.data) > MOST_REMARKS:
        raise ValueError(f"{len(message.data)} bytes, at most {MOST_REMARKS}")
    return remarks.pop("seed"), remarks


def ground_truth_message(tick: Tick) -> JointState:
    """Convert a tick's ground truth: entry i of array ``name`` becomes ``name/i``."""
    return named_values(array_values(tick.ground_truth), tick.stamp_ns, WORLD)


def array_values(arrays: Dict[str, np.ndarray]) -> Dict[str, float]:
    """Return the entries of named arrays by name: entry i of ``name`` is ``name/i``."""
    return {f"{name}/{i}": entry for name, array in arrays.items() for i, entry in enumerate(array)}


def arrays_of(message: JointState) -> Dict[str, np.ndarray]:
    """Convert back what :func:`array_values` named; a plain name becomes an array of one."""
    arrays: Dict[str, List[float]] = {}
    for name, value in values_of(message).items():
        arrays.setdefault(name.rsplit("/", 1)[0], []).append(value)
    return {name: np.array(entries) for name, entries in arrays.items()}
