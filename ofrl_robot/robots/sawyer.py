"""Drive a Rethink Sawyer through the vendor's client (docs/sawyer.md).

A command is an absolute pose of the tip: the robot's own service turns it into joint angles, and a
thread of its own moves the joint target there within a control period and repeats it at 100 Hz.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from typing import Any, Dict, List, Optional

import numpy as np

from ofrl_robot.control.health import Health
from ofrl_robot.control.limiter import NO_IK, Limits, refused_joints
from ofrl_robot.control.signals import ArmState, Sent, Setpoint
from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.config import ArmConfig
from ofrl_robot.robots.sawyer_client import Reading, SawyerClient
from ofrl_robot.robots.sawyer_gripper import SawyerGripper
from ofrl_robot.robots.sawyer_settings import SawyerSettings
from ofrl_robot.robots.sawyer_stream import TargetStream
from ofrl_robot.specs import BASE, ActionSpec

STOPPED = "stopped"  # a setpoint is refused for: a stop came first
MAX_AGE = 0.25  # s: what was measured earlier says nothing of where the arm is
_MARGIN = 0.01  # rad that a target keeps from the joint limits
_SAME = 1e-9  # m, or of a quaternion: the same target, which needs no new joint angles
_ARRIVED = 0.002  # rad, 0.5 mm at the tip; the vendor's own move returns at 0.0087
_ACCEPTED = 0.02  # rad that a joint may be off at the start pose
_STRETCH = 2.0  # control periods that a step may take
_SETTLE = 2.0  # s after the move within which the arm arrives
_GRIPPER = 3.0  # s: to open
_UNANSWERED = 1.0  # s without an answer of the service: it is broken
_DOUBTED = 10  # refusals in a row after which the service itself is examined
# Half-turn about the axis between x and y: the tip pointing down. q and -q are the same rotation;
# the one that is nearer to this is reported, so that the sign never flips.
_DOWN = np.array([0.7071, 0.7071, 0.0, 0.0])

log = logging.getLogger(__name__)


class SawyerArm:
    """A Sawyer. Implements :class:`~ofrl_robot.control.protocols.Arm`; frame: its base.

    Args:
        config: its settings are the fields of :class:`SawyerSettings`.
        client: the connected robot; None to connect to the one at the ROS master.

    Raises:
        ConfigError: a setting is impossible, or the vendor's client is not installed.
        RobotError: no robot answers.
    """

    name = "sawyer"
    state_names = (
        "ee_x", "ee_y", "ee_z", "ee_qx", "ee_qy", "ee_qz", "ee_qw", "gripper_opening",
    )  # fmt: skip
    state_units = ("m", "m", "m", "1", "1", "1", "1", "m")
    state_frame = BASE
    base_pose = None  # it knows no world
    relative_to_target = True

    def __init__(self, config: ArmConfig, client: Optional[SawyerClient] = None) -> None:
        self._options = options = SawyerSettings.from_dict(config.settings)
        metres, degrees = options.action_scale
        self.action_spec = ActionSpec(
            names=("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper"),
            units=("m", "m", "m", "deg", "deg", "deg", "1"),
            scale=(metres,) * 3 + (degrees,) * 3 + (1.0,),
            frame=BASE,
        )
        self.control_rate_hz = options.control_rate_hz
        self.settings: Dict[str, Any] = {**options.to_dict(), **config.stored()}
        self._client = client or SawyerClient(options)
        self.joint_names = self._client.joint_names
        self.limits = _with_joints(config.limits, self._client, options.speed_ratio)
        self.timing, self.health_limits = config.timing, config.health
        self._targets = _narrowed(self.limits, _MARGIN)
        self._start = np.array(
            self._client.neutral if options.start_joints is None else options.start_joints
        )
        self._gripper = SawyerGripper(self._client.gripper) if self._client.gripper else None
        self._goal: Optional[Setpoint] = None  # last one that was sent
        self._collision = self._stopped = False
        self._refusals = 0  # by the service, in a row
        self._unanswered: Optional[float] = None  # since when, monotonic s
        self._ik_fault: Optional[Fault] = None
        self._closing = threading.Lock()
        self._closed = False
        self._stream = TargetStream(self._tell, self._measured())
        self._stream.start()
        self._client.at_shutdown(self.close)

    # -- measured ------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the time now, ns since the epoch."""
        return time.time_ns()

    def state(self) -> ArmState:
        """Return what was measured last. Its stamp is that of the older of joints and pose."""
        reading, tip = self._client.reading(), self._client.tip()
        turn = tip.orientation if float(tip.orientation @ _DOWN) >= 0.0 else -tip.orientation
        opening = self._gripper.opening() if self._gripper else 0.0
        return ArmState(
            stamp_ns=min(reading.stamp_ns, tip.stamp_ns),
            vector=np.concatenate([tip.position, turn, [opening]]),
            position=tip.position,
            orientation=turn,
            joint_positions=reading.positions,
            joint_velocities=reading.velocities,
            joint_efforts=reading.efforts,
            joint_targets=self._named(self._stream.setpoint()),
        )

    def health(self) -> Health:
        """Return what is wrong; Sawyer tells no temperatures. Takes no time: nothing is asked."""
        faults: List[Fault] = list(self._client.faults())
        if self._collision:
            faults.append(Fault(StopReason.COLLISION, "the robot felt a collision"))
        if self._stream.error is not None:
            text = f"commands are sent no more ({self._stream.error})"
            faults.append(Fault(StopReason.ROBOT_FAULT, text))
        gripper = self._gripper.fault() if self._gripper else None
        faults += [fault for fault in (self._ik_fault, gripper) if fault]
        return Health(faults=tuple(faults))

    # -- commanded -----------------------------------------------------------------------

    def command(self, setpoint: Setpoint) -> Sent:
        """Move the tip to the setpoint; returns in milliseconds.

        It takes one control period, or as long as the joints need at their fastest. A step that
        needs more than two periods is refused: then the arm catches up. (Refusing it after one
        would leave an actor that goes on asking for it standing for ever.)
        """
        begun, holds = time.monotonic(), self._stream.holds
        if self._stopped or self._closed:
            return Sent(refused=STOPPED)
        seed = self._stream.goal()
        joints = seed if self._unchanged(setpoint) else self._solve(setpoint, seed)
        period = 1.0 / self.control_rate_hz
        refused = self._refusal(joints, _STRETCH * period)
        if refused or joints is None:
            return Sent(refused=refused)
        # arrive one period after the command, however long the service took (3 to 15 ms)
        duration = max(begun + period - time.monotonic(), self._least_time(joints))
        if not self._stream.move(joints, duration, holds):
            return Sent(refused=STOPPED)  # a stop came while the service was asked
        self._goal = setpoint
        if self._gripper and not self._stopped:
            self._gripper.wish(setpoint.gripper)
        return Sent()

    def stop(self) -> None:
        """Hold the pose that is measured now, and refuse commands until :meth:`rearm`.

        May be called from any thread, and twice.
        """
        self._stopped, self._goal = True, None
        self._hold()
        self._stopped = True  # again, if a re-arm ended in between

    def rearm(self) -> None:
        """Reset and enable the robot where it needs that; aim at where it stands.

        Raises:
            RobotError: a person has to do something first; the message says what.
        """
        self._client.make_ready()
        if self._client.collided():
            raise RobotError(
                "it still feels a collision", "free it by hand (cuff), then re-arm", self.name
            )
        if self._gripper:
            self._gripper.recover()
        holds = self._stream.holds
        measured = self._measured()
        self._collision, self._ik_fault, self._goal = False, None, None
        self._refusals, self._unanswered = 0, None
        self._stopped = False
        if not self._stream.move(measured, 0.0, holds):
            self._stopped = True
            raise RobotError("it was stopped meanwhile", "re-arm it again", self.name)

    def home(self) -> None:
        """Open the gripper, rise a little, move slowly to the start pose; seconds.

        The joint target is moved by our own thread, not by the client's blocking call: that sends
        from a second thread, and returns without an error when the arm did not arrive.

        Raises:
            RobotError: it did not arrive, with the name of the joint; or it was stopped.
        """
        holds = self._stream.holds  # before the look at ``_stopped``: a stop from now on wins
        self._require_ready()
        if self._stopped:
            raise RobotError("it is stopped", "re-arm it", self.name)
        self._goal = None
        try:
            if self._gripper:
                self._gripper.open(_GRIPPER)
            self._stream.move(self._measured(), 0.0, holds)
            lifted = self._lifted()
            if lifted is not None:
                self._travel(lifted, holds)
            self._travel(self._start, holds)
        except RobotError:
            self._hold()  # do not go on pushing
            raise

    def close(self) -> None:
        """Hold, switch the motors off if so set, and release the robot; bounded in time."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self.stop()
        try:
            if self._options.disable_on_close:
                self._client.disable()
        except RobotError as error:
            log.warning("sawyer: the motors stay on: %s", error)
        finally:
            self._stream.close()
            if self._gripper:
                self._gripper.close()
            self._client.close()

    # -- inside --------------------------------------------------------------------------

    def _tell(self, joints: np.ndarray) -> None:
        """Send the joint target; in the stream's thread, 100 times a second."""
        if self._client.collided() and not self._collision:
            self._collision = True
            self.stop()
            joints = self._stream.setpoint()
        if self._client.ready():
            self._client.send(joints)
        elif not self._closed:
            self.stop()  # an arm that is moved by hand now must not spring back when it is enabled

    def _hold(self) -> None:
        """Aim at the measured joints, or stay at the target when they cannot be relied on."""
        reading = self._client.reading()
        joints = self._positions(reading)
        fresh = (self.now_ns() - reading.stamp_ns) * 1e-9 < MAX_AGE
        self._stream.hold(joints if fresh and np.isfinite(joints).all() else None)

    def _unchanged(self, setpoint: Setpoint) -> bool:
        goal = self._goal
        return goal is not None and bool(
            np.abs(goal.position - setpoint.position).max() < _SAME
            and np.abs(goal.orientation - setpoint.orientation).max() < _SAME
        )

    def _solve(self, setpoint: Setpoint, seed: np.ndarray) -> Optional[np.ndarray]:
        asked = time.monotonic()
        try:
            joints = self._client.solve(setpoint.position, setpoint.orientation, seed)
        except RobotError as error:
            self._unanswered = self._unanswered or asked
            if time.monotonic() - self._unanswered > _UNANSWERED:
                self._ik_fault = Fault(StopReason.ROBOT_FAULT, str(error))
            return None
        self._unanswered = None
        self._refusals = self._refusals + 1 if joints is None else 0
        if self._refusals == _DOUBTED:
            self._examine(seed)
        return joints

    def _examine(self, seed: np.ndarray) -> None:
        """Tell a service that is gone from poses out of reach: where the arm is, it can be."""
        tip = self._client.tip()
        try:
            found = self._client.solve(tip.position, tip.orientation, seed)
        except RobotError:
            found = None
        if found is None:
            text = "inverse kinematics finds not even the pose that is measured"
            self._ik_fault = Fault(StopReason.ROBOT_FAULT, text)

    def _refusal(self, joints: Optional[np.ndarray], seconds: float) -> str:
        if joints is None:
            return NO_IK
        return refused_joints(
            self._named(joints), self._named(self._stream.setpoint()), seconds, self._targets
        )

    def _lifted(self) -> Optional[np.ndarray]:
        """Return joints with the tip raised by the setting ``lift``; None where there are none."""
        tip, now = self._client.tip(), self._stream.setpoint()
        top = min(tip.position[2] + self._options.lift, self.limits.workspace_high[2])
        if top <= tip.position[2]:
            return None
        raised = np.array([tip.position[0], tip.position[1], top])
        joints = self._client.solve(raised, tip.orientation, now)
        if joints is None or self._refusal(joints, self._home_time(joints)):
            return None
        return joints

    def _least_time(self, joints: np.ndarray) -> float:
        """Return seconds that a step to ``joints`` (7,) rad takes at the fastest allowed."""
        speeds = np.array([self.limits.joint_speeds[name] for name in self.joint_names])
        return float((np.abs(joints - self._stream.setpoint()) / speeds).max())

    def _home_time(self, joints: np.ndarray) -> float:
        """Return seconds that a slow move takes; a smooth one is 1.5 times as fast midway."""
        slow = self._client.velocities * self._options.home_speed / 1.5
        return float((np.abs(joints - self._stream.setpoint()) / slow).max())

    def _travel(self, joints: np.ndarray, holds: int) -> None:
        duration = self._home_time(joints)
        if not self._stream.move(joints, duration, holds, smooth=True):
            raise RobotError("it was stopped on its way to the start pose", "re-arm it", self.name)
        deadline = time.monotonic() + duration + _SETTLE
        while time.monotonic() < deadline:
            if self._stream.holds != holds:
                self._require_ready()
                raise RobotError(
                    "it was stopped on its way to the start pose", "re-arm it", self.name
                )
            far = np.abs(self._measured() - joints)
            if (far < _ARRIVED).all():
                return
            time.sleep(0.02)
        worst = int(far.argmax())
        if far[worst] > _ACCEPTED:
            raise RobotError(
                f"{self.joint_names[worst]} is {far[worst]:.2f} rad from the start pose",
                "see what holds it, then reset again",
                self.name,
            )

    def _require_ready(self) -> None:
        faults = self.health().faults
        if faults:
            raise RobotError(f"it is not ready ({faults[0]})", "re-arm it", self.name)

    def _named(self, joints: np.ndarray) -> Dict[str, float]:
        return dict(zip(self.joint_names, joints.tolist()))

    def _positions(self, reading: Reading) -> np.ndarray:
        return np.array([reading.positions[name] for name in self.joint_names], np.float64)

    def _measured(self) -> np.ndarray:
        """Return measured joints (7,) rad. Raises RobotError when they are old or not finite."""
        reading = self._client.reading()
        joints = self._positions(reading)
        age = (self.now_ns() - reading.stamp_ns) * 1e-9
        if age > MAX_AGE or not np.isfinite(joints).all():
            raise RobotError(
                f"its joints were measured {age:.1f} s ago" if age > MAX_AGE else "a joint is NaN",
                "see /robot/joint_states",
                self.name,
            )
        return joints


def _with_joints(limits: Limits, client: SawyerClient, speed_ratio: float) -> Limits:
    """Return the limits with those of the joints as the robot says, or narrower ones of the file.

    The file of the robot's model says 3.14 rad for right_j6, whose neutral angle is 3.32.
    """
    joints, speeds = {}, {}
    for name, fastest in zip(client.joint_names, client.velocities.tolist()):
        low, high = client.limits[name]
        own_low, own_high = limits.joints.get(name, (low, high))
        joints[name] = (max(low, own_low), min(high, own_high))
        speeds[name] = min(fastest * speed_ratio, limits.joint_speeds.get(name, np.inf))
    return dataclasses.replace(limits, joints=joints, joint_speeds=speeds)


def _narrowed(limits: Limits, margin: float) -> Limits:
    joints = {name: (low + margin, high - margin) for name, (low, high) in limits.joints.items()}
    return dataclasses.replace(limits, joints=joints)
