"""Move the simulated WidowX as its motors would: time profiles, torque, PWM of the gripper.

Joint names, signs and units are the vendor's: rad, rad/s, mA.
"""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

import numpy as np

from ofrl_robot.sim.arm import JOINT_NAMES, LEFT_FINGER, MOVABLE_JOINTS, RIGHT_FINGER, WidowXArm
from ofrl_robot.sim.engine import pybullet
from ofrl_robot.sim.world import TIME_STEP_S, World

ARM_JOINTS = JOINT_NAMES[:6]
FINGERS = (LEFT_FINGER, RIGHT_FINGER)
PROPELLER = MOVABLE_JOINTS[6]
# The simulator's URDF turns about the opposite axis at these two joints.
SIGNS = np.array([1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
# N m: stall torque of an XM430-W350 (wrist_rotate: XL430-W250); shoulder and elbow have two
TORQUE_LIMITS = (4.1, 8.2, 8.2, 4.1, 4.1, 1.5)
POSITION_GAIN = 0.4  # share of the error per substep: 95 % in 25 ms, as stiff as the real loop
# XM430-W350: 2.3 A at 4.1 N m; of shoulder and elbow one motor is read
MA_PER_NM = 561.0 / np.array([1.0, 2.0, 2.0, 1.0, 1.0, 1.0])
FREE_JOINT_TORQUE = 0.5  # N m, friction of a joint without torque: the arm falls, slowly
FINGER_RANGE = (0.0148, 0.0372)  # m; the client stops the motor at 0.015 and 0.037
FINGER_SPEED_PER_PWM = 0.06 / 250.0  # m/s: 22 mm in 0.4 s at the client's default PWM
FINGER_FORCE_PER_PWM = 0.2  # N
FINGER_HOLD_FORCE = 30.0  # N, of the gears without current
FINGER_LEAD = 0.006  # m that the motor may be ahead of fingers that hold something
FINGER_GAIN = 0.2
CLOSING_TIME = 0.4  # s after which fingers that were told to close hold what is between them


class Profile:
    """The motors' time profile of six joints: smooth, from where and how fast they are.

    Args:
        joints: (6,) rad, where they stand.
    """

    def __init__(self, joints: np.ndarray) -> None:
        self.goal = np.array(joints, np.float64)
        self._start, self._speed = self.goal.copy(), np.zeros(6)
        self._elapsed, self._duration = np.zeros(6), np.full(6, TIME_STEP_S)

    def begin(self, goal: np.ndarray, seconds: np.ndarray) -> None:
        """Begin motions to ``goal`` (6,) rad that last ``seconds`` (6,); 0 is as fast as can be."""
        self._start, self._speed = self.at()
        self.goal = np.array(goal, np.float64)
        self._elapsed[:] = 0.0
        self._duration = np.maximum(seconds, TIME_STEP_S)

    def advance(self) -> None:
        """Let 1/240 s pass."""
        self._elapsed = np.minimum(self._elapsed + TIME_STEP_S, self._duration)

    def at(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return target positions (6,) rad and speeds (6,) rad/s now: a cubic that ends at rest."""
        total = self._duration
        t = self._elapsed / total
        away = self._start - self.goal
        push = self._speed * total
        place = self.goal + (1 - t) ** 2 * ((1 + 2 * t) * away + t * push)
        speed = (-6 * t * (1 - t) * away + (1 - t) * (1 - 3 * t) * push) / total
        return place, speed


class TwinWidowX:
    """The arm of a simulated world, driven by joint targets. Call it with the physics' lock held.

    Args:
        world: a cleared world.

    Attributes:
        arm: the simulated arm.
        torque: whether each joint of the arm has torque; (6,) bool.
        blocked: joints that something holds.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.arm = WidowXArm(world)
        for finger, side in zip(FINGERS, (1.0, -1.0)):
            # the client ends a motion when a finger is past its limit, so it must get there
            low, high = sorted((side * (FINGER_RANGE[0] - 3e-4), side * (FINGER_RANGE[1] + 3e-4)))
            pybullet.changeDynamics(
                self.arm.body,
                finger,
                jointLowerLimit=low,
                jointUpperLimit=high,
                physicsClientId=world.client,
            )
        self.torque = np.ones(6, bool)
        self.blocked = np.zeros(6, bool)
        self._profile = Profile(self.joints())
        self._pwm = 0.0
        self._closing = 0.0  # s since the fingers were told to close; 0: to open
        self._finger_target = float(np.abs(self.arm.fingers()).mean())

    def joints(self) -> np.ndarray:
        """Return the measured joints of the arm, (6,) rad."""
        return self._states(0) * SIGNS

    @property
    def goal(self) -> np.ndarray:
        """Joint targets, (6,) rad."""
        return self._profile.goal.copy()

    def joint_state(self) -> Tuple[Dict[str, float], Dict[str, float], Dict[str, float]]:
        """Return positions, speeds and efforts by name, rad (fingers: m), rad/s, mA."""
        states = pybullet.getJointStates(
            self.arm.body, MOVABLE_JOINTS, physicsClientId=self._world.client
        )
        columns = np.array([[s[0], s[1], s[3]] for s in states])
        columns[:6] *= SIGNS[:, None]
        columns[:6, 2] *= MA_PER_NM
        columns[6] = self._motor_angle(float(np.abs(columns[7:, 0]).mean())), 0.0, self._pwm
        columns[7:, 1:] = 0.0  # the vendor's driver measures no finger
        positions, speeds, efforts = (
            dict(zip(JOINT_NAMES, map(float, column))) for column in columns.T
        )
        return positions, speeds, efforts

    @property
    def gripper_open(self) -> bool:
        """Whether the fingers are open, or still on their way to be closed."""
        return self._closing < CLOSING_TIME

    def command(self, goal: Sequence[float], seconds: np.ndarray) -> None:
        """Give the joints targets (6,) rad, in time profiles of ``seconds`` (6,)."""
        self._profile.begin(np.asarray(goal, np.float64), seconds)

    def drive_gripper(self, pwm: float) -> None:
        """Set the gripper's PWM: above 0 opens."""
        self._pwm = float(pwm)
        if pwm:
            self._closing = max(self._closing, TIME_STEP_S) if pwm < 0 else 0.0

    def take_torque(self, joints: np.ndarray, on: bool) -> None:
        """Switch the torque of joints, (6,) bool; with torque they hold where they are."""
        here = self.joints()
        goal = np.where(joints & ~self.torque & on, here, self._profile.goal)
        self.torque = np.where(joints, on, self.torque)
        self._profile.begin(goal, np.zeros(6))

    def advance(self, substeps: int) -> None:
        """Let ``substeps`` of 1/240 s pass."""
        for _ in range(substeps):
            self._profile.advance()
            self._drive_joints()
            self._drive_fingers()
            self._world.step(1)

    def _drive_joints(self) -> None:
        place, speed = self._profile.at()
        if self.blocked.any():
            place = np.where(self.blocked, self.joints(), place)
            speed = np.where(self.blocked, 0.0, speed)
        if self.torque.all():
            self._motors(range(6), place * SIGNS, speed * SIGNS, TORQUE_LIMITS, POSITION_GAIN)
            return
        held = np.flatnonzero(self.torque).tolist()
        free = np.flatnonzero(~self.torque).tolist()
        place, speed = (place * SIGNS)[held], (speed * SIGNS)[held]
        if held:
            limits = [TORQUE_LIMITS[i] for i in held]
            self._motors(held, place, speed, limits, POSITION_GAIN)
        pybullet.setJointMotorControlArray(
            self.arm.body,
            free,
            pybullet.VELOCITY_CONTROL,
            targetVelocities=[0.0] * len(free),
            forces=[FREE_JOINT_TORQUE] * len(free),
            physicsClientId=self._world.client,
        )

    def _drive_fingers(self) -> None:
        states = pybullet.getJointStates(self.arm.body, FINGERS, physicsClientId=self._world.client)
        opening = (abs(states[0][0]) + abs(states[1][0])) / 2.0
        self._closing += TIME_STEP_S if self._closing else 0.0
        force = FINGER_HOLD_FORCE
        if self._pwm:
            target = self._finger_target + FINGER_SPEED_PER_PWM * self._pwm * TIME_STEP_S
            target = min(max(target, opening - FINGER_LEAD), opening + FINGER_LEAD)
            self._finger_target = min(max(target, FINGER_RANGE[0]), FINGER_RANGE[1])
            force = FINGER_FORCE_PER_PWM * abs(self._pwm)
        goals = np.array([self._finger_target, -self._finger_target])
        self._motors(FINGERS, goals, np.zeros(2), (force, force), FINGER_GAIN)
        self._motors((PROPELLER,), np.zeros(1), np.zeros(1), (1.0,), POSITION_GAIN)

    def _motors(
        self,
        joints: Sequence[int],
        places: np.ndarray,
        speeds: np.ndarray,
        forces: Sequence[float],
        gain: float,
    ) -> None:
        pybullet.setJointMotorControlArray(
            self.arm.body,
            list(joints),
            pybullet.POSITION_CONTROL,
            targetPositions=places.tolist(),
            targetVelocities=speeds.tolist(),
            forces=list(forces),
            positionGains=[gain] * len(places),
            velocityGains=[1.0] * len(places),
            physicsClientId=self._world.client,
        )

    def _states(self, column: int) -> np.ndarray:
        states = pybullet.getJointStates(
            self.arm.body, range(6), physicsClientId=self._world.client
        )
        return np.array([state[column] for state in states])

    @staticmethod
    def _motor_angle(finger: float) -> float:
        """Return about the angle of the gripper's motor, rad, for a finger at ``finger`` m."""
        low, high = FINGER_RANGE
        return (finger - low) / (high - low) * 1.6 - 0.6
