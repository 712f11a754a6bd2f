"""Drive a WidowX 250 (6 degrees of freedom) through the vendor's Python client.

The arm gets joint targets only: a Cartesian target goes through our own inverse kinematics,
started at the last target. Units and signs of the joints are the vendor's. docs/widowx.md says
how to start the vendor's driver, and what was measured.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Dict, Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from ofrl_robot.control.health import Health
from ofrl_robot.control.limiter import NO_IK, OTHER, Limits, refused_joints
from ofrl_robot.control.signals import ArmState, Sent, Setpoint
from ofrl_robot.errors import OfrlError, RobotError
from ofrl_robot.robots.config import ArmConfig
from ofrl_robot.robots.gripper_thread import GripperThread
from ofrl_robot.robots.widowx_client import LEFT_FINGER, RIGHT_FINGER, InterbotixClient, Joints
from ofrl_robot.robots.widowx_motors import Motors
from ofrl_robot.robots.widowx_settings import WidowXSettings
from ofrl_robot.specs import BASE, WIDOWX_STATE_NAMES, WIDOWX_STATE_UNITS, ActionSpec

MOVE_PERIOD = 0.05  # s between two targets of a homing move: a stop then finds a short motion
ARRIVAL_TIME = 2.0  # s that the motors may take after the last target of a homing move
FINGER_HALF_OPEN = 0.026  # m, middle of the left finger's range 0.015 to 0.037


class WidowXArm:
    """A WidowX 250s behind the vendor's driver. Implements :class:`~ofrl_robot.control.Arm`.

    Args:
        config: its settings are the fields of :class:`WidowXSettings`.

    Raises:
        ConfigError: a setting cannot be used, or the vendor's packages are not installed.
        RobotError: the arm cannot be reached, or its motors are not ready.
    """

    name = "widowx"
    state_names, state_units = WIDOWX_STATE_NAMES, WIDOWX_STATE_UNITS
    state_frame = BASE
    base_pose = None
    relative_to_target = True

    def __init__(self, config: ArmConfig) -> None:
        self._settings = settings = WidowXSettings.from_dict(config.settings)
        metres, degrees = settings.action_scale
        self.action_spec = ActionSpec(
            ("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper"),
            ("m", "m", "m", "deg", "deg", "deg", "1"),
            (metres,) * 3 + (degrees,) * 3 + (1.0,),
            BASE,
        )
        self.control_rate_hz = float(settings.control_rate_hz)
        self.timing, self.health_limits = config.timing, config.health
        self.settings: Dict[str, Any] = dataclasses.asdict(settings)
        self._client = InterbotixClient(settings)
        try:
            self._motors = Motors(self._client)
            self.joint_names = (*self._client.joint_names, LEFT_FINGER)
            self.limits = self._narrowed(config.limits)
            # a stop must not be followed by an older target; re-entrant, since a signal handler
            # may close the arm in the middle of a command of the same thread
            self._sending = threading.RLock()
            self._stopped = self._closed = self._released = False
            self._moves = 0  # begun so far: closing takes the arm out of a homing move
            self._targets = np.zeros(len(self._client.joint_names))
            self._hold: Optional[np.ndarray] = None  # what a stop told the joints
            finger = self._client.newest().positions.get(LEFT_FINGER, 0.0)
            self._gripper = GripperThread(self._client.move_gripper, finger > FINGER_HALF_OPEN)
            self._client.set_profile(*settings.profile)
            self._start_here()
        except Exception:
            self._client.close()
            raise

    # -- measurements --------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the time by ROS's clock, which stamps the joint states."""
        return self._client.now_ns()

    def state(self) -> ArmState:
        """Return the newest measured state, base frame; NaN where the driver sent none."""
        newest = self._client.newest()
        joints = self._joints_of(newest)
        position, orientation = self._pose_of(joints)
        fingers = [newest.positions.get(name, np.nan) for name in (LEFT_FINGER, RIGHT_FINGER)]
        return ArmState(
            stamp_ns=newest.stamp_ns,
            vector=np.concatenate([position, orientation, fingers, [float(self._gripper.open)]]),
            position=position,
            orientation=orientation,
            joint_positions=newest.positions,
            joint_velocities=newest.velocities,
            joint_efforts=newest.efforts,
            joint_targets=self._named(self._targets),
        )

    def health(self) -> Health:
        """Ask the motors; see :class:`~ofrl_robot.robots.widowx_motors.Motors`."""
        return self._motors.health()

    # -- motion --------------------------------------------------------------------------

    def command(self, setpoint: Setpoint) -> Sent:
        """Send the joint targets of a pose; 3 ms. A target that is refused moves nothing."""
        self._gripper.require_alive()
        if self._closed:
            return Sent(refused=OTHER)
        joints = self._inverse(setpoint)
        if joints is None:
            return Sent(refused=NO_IK)
        why = refused_joints(
            self._named(joints), self._named(self._targets), self._settings.period, self.limits
        )
        if why:
            return Sent(refused=why)
        if not self._send(joints):
            return Sent(refused=OTHER)
        if setpoint.gripper is not None:
            self._gripper.set(setpoint.gripper)
        return Sent()

    def stop(self) -> None:
        """Command the measured joints; any thread, any time. A second stop repeats the first.

        When what was measured is old or not finite, nothing is sent: the motors keep their last
        target by themselves.
        """
        self._stopped = True
        with self._sending:
            if self._released:
                return
            if self._hold is None:
                newest = self._client.newest()
                joints = self._joints_of(newest)
                if np.isfinite(joints).all() and not self._stale(newest):
                    self._hold = np.clip(joints, self._client.lower, self._client.upper)
            if self._hold is not None:
                self._client.hold(self._hold)
                self._targets = self._hold

    def rearm(self) -> None:
        """Recover the motors and start again from the measured joints. Nothing is moved.

        A motor with an error or without an answer is rebooted; it lets go of its load meanwhile.

        Raises:
            RobotError: a motor stays in its error, the driver does not answer, or the joint
                states are old, incomplete or outside the joint limits.
        """
        self._motors.recover(self._settings.profile)
        self._gripper.forget()
        # a motor that was without torque may still have an old target
        self._client.hold(self._start_here())

    def home(self) -> None:
        """Open the gripper and move to the start pose at ``move_speed``; checked by measurement.

        Raises:
            RobotError: a joint does not arrive, the arm was stopped, or its state is old.
        """
        self._gripper.set(1.0)
        self._move(np.array(self._settings.start_joints))
        self._gripper.require_alive()

    def close(self) -> None:
        """Move to the sleep pose and switch the torque off, when ``sleep_on_close`` says so.

        An arm that was stopped or is not well, or that this process can no longer command, keeps
        its torque and holds still: without torque it would fall. Calling it again does nothing.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._settings.sleep_on_close and self._client.connected:
                self._sleep()
        except OfrlError as error:
            self._client.warn(f"{error}; the arm keeps its torque and holds still")
        finally:
            self._released = True
            self._gripper.close()
            self._client.close()

    def _sleep(self) -> None:
        self._require_armed("the way to the sleep pose")
        faults = self.health().faults
        if faults:
            raise RobotError(f"no sleep pose: {faults[0]}", where=self.name)
        self._move(self._client.sleep_joints)
        self._client.set_torque(False)

    def _move(self, goal: np.ndarray) -> None:
        """Move the joints along a straight line, in small targets, and wait until they are there.

        A single long motion of the motors would go on after a stop by a part of its length.

        Raises:
            RobotError: a joint does not arrive, the arm was stopped, another thread began a move.
        """
        # an arm at rest may sag a little past a limit, where the client refuses every target
        begin = np.clip(self._measured(), self._client.lower, self._client.upper)
        self._moves += 1
        this = self._moves
        seconds = float(np.abs(goal - begin).max()) * 1.5 / self._settings.move_speed
        started = time.monotonic()
        share = 0.0
        while share < 1.0:
            time.sleep(MOVE_PERIOD)
            if this != self._moves:
                raise RobotError("another move has begun", "wait for its end", self.name)
            share = min(1.0, (time.monotonic() - started) / max(seconds, MOVE_PERIOD))
            smooth = share * share * (3.0 - 2.0 * share)  # at most 1.5 times the mean speed
            if not self._send(begin + smooth * (goal - begin)):
                self._require_armed("the move")
                raise RobotError("the vendor's client refused a target", "see its log", self.name)
            self._measured()
        self._await_arrival(goal)

    def _await_arrival(self, goal: np.ndarray) -> None:
        deadline = time.monotonic() + ARRIVAL_TIME
        while True:
            self._require_armed("the move")
            errors = np.abs(self._measured() - goal)
            worst = int(np.argmax(errors))
            if errors[worst] <= self._settings.arrival_tolerance:
                return
            if time.monotonic() > deadline:
                raise RobotError(
                    f"joint {self._client.joint_names[worst]} is {errors[worst]:.2f} rad from its "
                    "goal and does not move on",
                    "see what blocks it and whether its motor reports an error",
                    self.name,
                )
            time.sleep(MOVE_PERIOD)

    def _start_here(self) -> np.ndarray:
        """Take the measured joints (6,) for the last target, and allow motion again."""
        joints = self._measured()
        self._client.capture()
        with self._sending:
            self._targets, self._hold, self._stopped = joints, None, False
        return joints

    def _send(self, joints: np.ndarray) -> bool:
        """Command joint targets; False when the arm is stopped or the client refuses."""
        with self._sending:
            if self._stopped or not self._client.send(joints):
                return False
            self._targets = joints
            return True

    def _require_armed(self, what: str) -> None:
        if self._stopped:
            raise RobotError(f"{what} was stopped", "re-arm the arm", self.name)

    # -- joints --------------------------------------------------------------------------

    def _measured(self) -> np.ndarray:
        """Return the measured joints, (6,) rad. RobotError when they cannot be used."""
        newest = self._client.newest()
        joints = self._joints_of(newest)
        names = self._client.joint_names
        if self._stale(newest):
            age = (self.now_ns() - newest.stamp_ns) * 1e-9
            raise RobotError(
                f"the joint states are {age:.2f} s old", "see the vendor's driver", self.name
            )
        bad = [n for n, v in zip(names, joints) if not np.isfinite(v)]
        if bad:
            raise RobotError(
                f"joint {', '.join(bad)} is not measured", "see the vendor's driver", self.name
            )
        return joints

    def _stale(self, newest: Joints) -> bool:
        return abs(self.now_ns() - newest.stamp_ns) > self.timing.max_state_age * 1e9

    def _joints_of(self, newest: Joints) -> np.ndarray:
        return np.array([newest.positions.get(n, np.nan) for n in self._client.joint_names])

    def _inverse(self, setpoint: Setpoint) -> Optional[np.ndarray]:
        """Return the joints (6,) of a pose nearest to the last target; None: there are none."""
        if not (np.isfinite(setpoint.position).all() and np.isfinite(setpoint.orientation).all()):
            return None
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_quat(setpoint.orientation).as_matrix()
        pose[:3, 3] = setpoint.position
        return self._client.chain.inverse(pose, self._targets)

    def _pose_of(self, joints: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return position (3,) m and quaternion (4,) of the end effector; NaN for NaN joints."""
        if not np.isfinite(joints).all():
            return np.full(3, np.nan), np.full(4, np.nan)
        pose = self._client.chain.forward(joints)
        return pose[:3, 3].copy(), np.asarray(Rotation.from_matrix(pose[:3, :3]).as_quat())

    def _named(self, joints: np.ndarray) -> Dict[str, float]:
        return dict(zip(self._client.joint_names, map(float, joints)))

    def _narrowed(self, limits: Limits) -> Limits:
        """Return limits within those that the robot itself gives for its joints."""
        joints, speeds = dict(limits.joints), dict(limits.joint_speeds)
        client = self._client
        for name, low, high, speed in zip(
            client.joint_names, client.lower.tolist(), client.upper.tolist(), client.speeds.tolist()
        ):
            narrow = joints.get(name, (low, high))
            joints[name] = (max(low, narrow[0]), min(high, narrow[1]))
            speeds[name] = min(speed, speeds.get(name, speed))
        return dataclasses.replace(limits, joints=joints, joint_speeds=speeds)
