"""Talk to a Sawyer through the vendor's client, intera_interface: measured, and bounded in time.

What the client does not offer is added here: the age of what was measured (it keeps the last
message for ever), a limit to how long its services may take (rospy has none), and errors of one
kind. Only here are rospy and the vendor's packages imported, when a robot is connected.
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.robots.bounded import BoundedCalls
from ofrl_robot.robots.sawyer_settings import ARRIVAL, SawyerSettings

LIMB = "right"
GRIPPER = "right_gripper"
DOCS = "docs/sawyer.md"
# Names that the client leaves relative. The robot hosts them in the root, our node is elsewhere.
_ROOT_NAMES = (
    "robot/state", "robot/set_super_enable", "robot/set_super_reset", "robot/set_super_stop",
    f"robot_config/{LIMB}_config/joint_names", f"named_poses/{LIMB}/poses/neutral",
    f"ExternalTools/{LIMB}/PositionKinematicsNode/IKService",
    f"ExternalTools/{LIMB}/PositionKinematicsNode/FKService",
    f"io/end_effector/{GRIPPER}/config", f"io/end_effector/{GRIPPER}/state",
    f"io/end_effector/{GRIPPER}/command",
)  # fmt: skip
NEUTRAL = (0.0, -1.18, 0.0, 2.18, 0.0, 0.57, 3.3161)  # rad, if the robot names no neutral pose
_CONNECT = 40.0  # s: the client itself waits 5 to 10 s for each of its topics and services
_SWITCH = 8.0  # s: to enable, disable or reset; the client waits 5 s for each
_SHUTDOWN = 10.0  # s
_FIRST = 5.0  # s to the first message of each topic
_STATE_SILENCE = 2.0  # s without /robot/state, which carries no stamp
_CLOCK = 2.0  # s that the clocks are looked at
_MAX_SKEW = 0.2  # s between the robot's clock and this one
_TIP_TOLERANCE = 0.01  # m between the pose that is measured and that of the joints


class Reading(NamedTuple):
    """Joints as measured. ``velocities`` and ``efforts`` may be empty."""

    stamp_ns: int
    positions: Dict[str, float]
    velocities: Dict[str, float]
    efforts: Dict[str, float]


class TipPose(NamedTuple):
    """Pose of the tip as measured, base frame: position (3,) m, quaternion (4,) xyzw."""

    stamp_ns: int
    position: np.ndarray
    orientation: np.ndarray


class SawyerClient:
    """One connected Sawyer.

    Args:
        settings: see :class:`SawyerSettings`.

    Attributes:
        joint_names: right_j0 to right_j6.
        limits: (low, high) rad by joint, as the robot says; its URDF's are not its own.
        velocities: largest joint velocity (7,), rad/s.
        neutral: neutral pose (7,), rad.
        gripper: the vendor's Gripper, or None.

    Raises:
        ConfigError: the vendor's packages cannot be imported.
        RobotError: no robot answers, or it is not the one that is described by ``settings``.
    """

    def __init__(self, settings: SawyerSettings) -> None:
        self._settings = settings
        self._ros = _import("rospy")
        self._intera = _import("intera_interface")
        if not self._ros.core.is_initialized():
            raise RobotError("no ROS node runs in this process", "run it with roslaunch", "sawyer")
        self._lock = threading.Lock()
        self._reading: Optional[Reading] = None
        self._tip: Optional[TipPose] = None
        self._state: Any = None
        self._state_at = 0.0
        self._arrived: Dict[str, Tuple[int, int]] = {}  # stamp and arrival of the newest, ns
        self._subscribers: List[Any] = []
        self._ik = BoundedCalls("the inverse kinematics service")
        self._switch = BoundedCalls("the robot")
        _map_to_root(self._ros)
        self._bounded(self._connect, _CONNECT)

    # -- measured ------------------------------------------------------------------------

    def reading(self) -> Reading:
        """Return the joints as measured last. Never blocks."""
        with self._lock:
            assert self._reading is not None  # waited for in the constructor
            return self._reading

    def tip(self) -> TipPose:
        """Return the pose of the tip as measured last. Never blocks."""
        with self._lock:
            assert self._tip is not None
            return self._tip

    def collided(self) -> bool:
        """Return whether the robot reports a collision now."""
        return bool(self._limb.has_collided())

    def ready(self) -> bool:
        """Return whether the motors carry out commands."""
        return not self.faults()

    def faults(self) -> Tuple[Fault, ...]:
        """Return what /robot/state says is wrong, the gravest first."""
        state = self._state
        if time.monotonic() - self._state_at > _STATE_SILENCE:
            return (Fault(StopReason.MOTOR_SILENT, "/robot/state is silent"),)
        return tuple(_faults(state))

    # -- commanded -----------------------------------------------------------------------

    def send(self, joints: np.ndarray) -> None:
        """Command joint positions (7,) rad; only one thread may."""
        self._limb.set_joint_positions(dict(zip(self.joint_names, joints.tolist())))

    def solve(
        self, position: np.ndarray, orientation: np.ndarray, seed: np.ndarray
    ) -> Optional[np.ndarray]:
        """Return joints (7,) rad that put the tip there; None when there are none.

        Args:
            position, orientation: (3,) m and quaternion xyzw (4,), base frame.
            seed: joints (7,) rad from which the robot searches.

        Raises:
            RobotError: the service did not answer in time, or with nonsense.
        """
        if not (np.isfinite(position).all() and np.isfinite(orientation).all()):
            return None
        pose = self._pose_type()
        place, turn = pose.position, pose.orientation
        place.x, place.y, place.z = (float(v) for v in position)
        turn.x, turn.y, turn.z, turn.w = (float(v) for v in orientation)
        start = dict(zip(self.joint_names, seed.tolist()))
        try:
            answer = self._ik.call(
                lambda: self._limb.ik_request(pose, self._settings.tip, start),
                self._settings.ik_timeout,
            )
        except (IndexError, AttributeError, TypeError, ValueError) as error:
            raise RobotError(
                f"the inverse kinematics service answered nonsense ({error})", "restart the robot"
            ) from error
        if not answer or any(name not in answer for name in self.joint_names):
            return None
        joints = np.array([answer[name] for name in self.joint_names], np.float64)
        return joints if np.isfinite(joints).all() else None

    def make_ready(self) -> None:
        """Clear a stop and switch the motors on, where needed. Moves nothing.

        Raises:
            RobotError: a person has to do something first; the message says what.
        """
        self._ik.forget()  # a request that still hangs must not be the last one
        if self.ready():
            return
        state = self._enable.state()
        if state.stopped and state.estop_button == state.ESTOP_BUTTON_PRESSED:
            raise RobotError("the emergency stop is pressed", "release it, then re-arm", "sawyer")
        if state.error and not state.stopped:  # the client resets only a robot that is stopped
            self._bounded(self._enable.stop, _SWITCH)
        if self._enable.state().stopped and self._bounded(self._enable.reset, _SWITCH) is False:
            raise RobotError(
                "an error is left after the reset", "see the robot's screen; restart it", "sawyer"
            )
        if not self._enable.state().enabled:
            self._bounded(self._enable.enable, _SWITCH)
        self._await(lambda: self.ready(), 1.0)
        faults = self.faults()
        if faults:
            raise RobotError(f"it is not ready ({faults[0]})", "see the robot's screen", "sawyer")

    def disable(self) -> None:
        """Switch the motors off: the brakes hold the arm. Raises RobotError when they stay on."""
        self._bounded(self._enable.disable, _SWITCH)

    def at_shutdown(self, function: Callable[[], None]) -> None:
        """Call ``function`` when the node shuts down, while messages still get out.

        In a thread of its own, for at most ``_SHUTDOWN`` s: Ctrl-C may have interrupted a thread
        that holds a lock which ``function`` needs.
        """
        last = BoundedCalls("closing the robot")
        self._ros.on_shutdown(lambda: last.call(function, _SHUTDOWN))

    def close(self) -> None:
        """Unsubscribe."""
        for subscriber in self._subscribers:
            subscriber.unregister()
        self._subscribers = []

    # -- connecting ----------------------------------------------------------------------

    def _connect(self) -> None:
        core = _import("intera_core_msgs.msg")
        self._pose_type = _import("geometry_msgs.msg").Pose
        self._enable = self._intera.RobotEnable(self._intera.CHECK_VERSION)
        self._limb = self._intera.Limb(LIMB)
        if not getattr(self._limb, "name", None):  # its constructor returns without one
            raise RobotError(f"the robot has no limb {LIMB!r}", "see /robot_config", "sawyer")
        self.joint_names: Tuple[str, ...] = tuple(self._limb.joint_names())
        limits, names = self._intera.JointLimits(), list(self.joint_names)
        low, high = limits.get_joint_lower_limits(names), limits.get_joint_upper_limits(names)
        self.limits = {n: (float(a), float(b)) for n, a, b in zip(names, low, high)}
        self.velocities = np.array(limits.get_joint_velocity_limits(names), np.float64)
        pose = self._ros.get_param(f"/named_poses/{LIMB}/poses/neutral", NEUTRAL)
        self.neutral = np.array(pose, np.float64)
        joint_state = _import("sensor_msgs.msg").JointState
        for topic, kind, take in (
            ("/robot/joint_states", joint_state, self._on_joints),
            (f"/robot/limb/{LIMB}/tip_states", core.EndpointStates, self._on_tips),
            ("/robot/state", core.RobotAssemblyState, self._on_state),
        ):
            self._subscribers.append(
                self._ros.Subscriber(topic, kind, take, queue_size=1, tcp_nodelay=True)
            )
        self._await(lambda: self._state is not None, _FIRST, "/robot/state")
        self._await(lambda: self._reading is not None, _FIRST, "/robot/joint_states of all joints")
        self._await(lambda: self._tip is not None, _FIRST, f"tip_states of {self._settings.tip}")
        self._check_clock()
        self._check_tip()
        self._limb.set_joint_position_speed(self._settings.speed_ratio)
        self.gripper = None
        if self._settings.gripper:
            self.gripper = self._intera.Gripper(GRIPPER, calibrate=False)

    def _check_clock(self) -> None:
        """Refuse clocks that differ: the age of a measurement would mean nothing."""
        if self._settings.stamps == ARRIVAL:
            return
        # a busy computer hears late now and then; clocks that differ do so in every message
        self._await(lambda: self._skew() <= _MAX_SKEW, _CLOCK)
        if self._skew() > _MAX_SKEW:
            raise RobotError(
                f"its clock and this one differ by {self._skew():.1f} s",
                f"synchronise them (chrony), or set stamps: arrival; see {DOCS}",
                "sawyer",
            )

    def _skew(self) -> float:
        """Return the time between stamp and arrival of the newest messages, s."""
        return max(abs(arrived - stamp) * 1e-9 for stamp, arrived in list(self._arrived.values()))

    def _check_tip(self) -> None:
        """Refuse a robot that measures another point than the one that is commanded."""
        joints = self.reading().positions
        answer = self._limb.fk_request(joints, self._settings.tip)
        if not answer or not answer.isValid[0]:
            raise RobotError(
                f"it knows no pose of {self._settings.tip}", "set tip: to a link of it", "sawyer"
            )
        place = answer.pose_stamp[0].pose.position
        error = float(np.linalg.norm(self.tip().position - (place.x, place.y, place.z)))
        if not error < _TIP_TOLERANCE:
            raise RobotError(
                f"{self._settings.tip} is measured {error:.3f} m from where its joints put it",
                "let the arm come to rest and try again",
                "sawyer",
            )

    # -- callbacks (rospy threads) -------------------------------------------------------

    def _stamp(self, topic: str, header: Any) -> int:
        """Return when a message was measured; the arrival of a repeated one is that of the first.

        Raises nothing; called for every message.
        """
        stamp, now = header.stamp.to_nsec(), time.time_ns()
        known = self._arrived.get(topic)
        if known is None or known[0] != stamp:
            self._arrived[topic] = (stamp, now)
        return self._arrived[topic][1] if self._settings.stamps == ARRIVAL else stamp

    def _on_joints(self, message: Any) -> None:
        names = list(message.name)
        if not set(self.joint_names) <= set(names) or len(message.position) < len(names):
            return  # of the head alone; a joint that is gone for good makes the reading old
        wanted = [(name, names.index(name)) for name in self.joint_names]

        def by_name(values: Sequence[float]) -> Dict[str, float]:
            return {n: float(values[i]) for n, i in wanted} if len(values) == len(names) else {}

        reading = Reading(
            self._stamp("joint_states", message.header),
            by_name(message.position),
            by_name(message.velocity),
            by_name(message.effort),
        )
        with self._lock:
            self._reading = reading

    def _on_tips(self, message: Any) -> None:
        if self._settings.tip not in message.names:
            return
        state = message.states[message.names.index(self._settings.tip)]
        header = message.header if state.header.stamp.to_nsec() == 0 else state.header
        place, turn = state.pose.position, state.pose.orientation
        tip = TipPose(
            self._stamp("tip_states", header),
            np.array([place.x, place.y, place.z]),
            np.array([turn.x, turn.y, turn.z, turn.w]),
        )
        with self._lock:
            self._tip = tip

    def _on_state(self, message: Any) -> None:
        self._state_at = time.monotonic()
        self._state = message

    # -- helpers -------------------------------------------------------------------------

    def _bounded(self, function: Callable[[], Any], timeout: float) -> Any:
        """Call the client; what it raises becomes a RobotError."""
        try:
            return self._switch.call(function, timeout)
        except (OSError, self._ros.ROSException) as error:
            raise RobotError(str(error), f"see the robot's screen and {DOCS}", "sawyer") from error

    def _await(self, done: Callable[[], bool], timeout: float, topic: str = "") -> None:
        deadline = time.monotonic() + timeout
        while not done() and time.monotonic() < deadline:
            time.sleep(0.01)
        if topic and not done():
            raise RobotError(f"nothing came on {topic}", f"see {DOCS}", "sawyer")


def _faults(state: Any) -> List[Fault]:
    """Return what a RobotAssemblyState says is wrong."""
    found = []
    if state.stopped and state.estop_source == state.ESTOP_SOURCE_FAULT:
        found.append(Fault(StopReason.MOTOR_ERROR, "a joint fault stopped the robot"))
    elif state.stopped:
        pressed = state.estop_button == state.ESTOP_BUTTON_PRESSED
        text = "the button is pressed" if pressed else "stopped; a re-arm resets it"
        found.append(Fault(StopReason.EMERGENCY_STOP, text))
    if state.error:
        found.append(Fault(StopReason.MOTOR_ERROR, "the robot reports an error"))
    if not state.enabled:
        found.append(Fault(StopReason.TORQUE_OFF, "the robot is not enabled"))
    elif not state.homed or not state.ready:
        found.append(Fault(StopReason.ROBOT_FAULT, "the robot is homing; press its cuff"))
    return found


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"robot sawyer needs {name.split('.')[0]} ({error})",
            f"install the vendor's client as in {DOCS}, and source its workspace",
        ) from error


def _map_to_root(ros: Any) -> None:
    """Make the client's relative names mean those in the root, whatever our namespace."""
    mapped = ros.names.get_resolved_mappings()
    for name in _ROOT_NAMES:
        mapped.setdefault(ros.resolve_name(name), f"/{name}")
