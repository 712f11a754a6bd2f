"""Simulate the WidowX 250s arm: inverse kinematics, motors, gripper, state."""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, Sequence, Tuple

import numpy as np

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.engine import pybullet
from ofrl_robot.sim.world import TIME_STEP_S, World

# Place of the base link in the world, m, without rotation: base = world - BASE_POSITION.
BASE_POSITION = (0.6, 0.0, -0.4)
END_EFFECTOR_LINK = 8  # gripper_bar_link; its centre of mass is "the end effector"
LEFT_FINGER, RIGHT_FINGER = 10, 11
MOVABLE_JOINTS = (0, 1, 2, 3, 4, 5, 7, LEFT_FINGER, RIGHT_FINGER)
# the names that the vendor's driver has on /wx250s/joint_states
JOINT_NAMES = (
    "waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper",
    "left_finger", "right_finger",
)  # fmt: skip

# waist, shoulder, elbow, forearm_roll, wrist_angle, wrist_rotate, propeller, fingers (m)
RESET_JOINTS = (1.57, -0.6, -0.6, 0.0, -1.57, 0.0, 0.0, 0.036, -0.036)
GRIPPER_OPEN = (0.036, -0.036)
GRIPPER_CLOSED = (0.015, -0.015)

STEP_SUBSTEPS = 10
CONTROL_PERIOD_S = STEP_SUBSTEPS * TIME_STEP_S

# Box of end-effector targets, m, world axes: (-0.2, -0.2, 0.06) to (0.2, 0.4, 0.30) from the base.
WORKSPACE_LOW = np.array([0.4, -0.2, -0.34])
WORKSPACE_HIGH = np.array([0.8, 0.4, -0.10])

# Soft position loop: per substep at most 3 % of the error and 5 N m. Therefore one step
# covers a small part of the distance asked for; learned policies depend on that lag.
POSITION_GAIN = 0.03
ARM_FORCE = 5.0
FINGER_FORCE = 500.0
NEUTRAL_FORCE = 100.0

_IK_LOWER = (-3.14, -1.88, -1.60, -3.14, -2.14, -3.14, -3.14, 0.015, -0.037)
_IK_UPPER = (3.14, 1.99, 2.14, 3.14, 1.74, 3.14, 3.14, 0.037, -0.015)
# Negative ranges, as in the data that this arm must agree with: they weigh the null-space pull.
_IK_RANGE = tuple(low - high for low, high in zip(_IK_LOWER, _IK_UPPER))
_IK_DAMPING = (0.001,) * len(MOVABLE_JOINTS)


@dataclasses.dataclass(frozen=True)
class Actuators:
    """Imperfections of the motors.

    Attributes:
        lag_s: time constant of the first-order lag between a commanded joint target and the
            one that the position loop sees, s; the latter is renewed once a step.
        stiction_rad: a joint that is asked to move by less than this stays where it is, rad.

    Raises:
        ConfigError: a value is negative or not finite.
    """

    lag_s: float = 0.0
    stiction_rad: float = 0.0

    def __post_init__(self) -> None:
        require_at_least_zero("lag_s", self.lag_s)
        require_at_least_zero("stiction_rad", self.stiction_rad)


def require_at_least_zero(name: str, value: float) -> None:
    """Raise ConfigError unless ``value`` is finite and not negative."""
    if not 0.0 <= value < math.inf:
        raise ConfigError(f"{name} {value} is negative or not finite", "use 0 or more")


IDEAL_ACTUATORS = Actuators()


class WidowXArm:
    """One arm in a world, loaded at its reset pose with the gripper open."""

    def __init__(
        self,
        world: World,
        actuators: Actuators = IDEAL_ACTUATORS,
        period_s: float = CONTROL_PERIOD_S,
    ) -> None:
        self._world = world
        self._period_s = period_s
        self._actuators = actuators
        self.body = world.load("wx250s", BASE_POSITION)
        self.gripper_open = True
        self.reset_joints()

    def reset_joints(self) -> None:
        """Teleport every joint to the reset pose at rest, gripper open."""
        for joint, value in zip(MOVABLE_JOINTS, RESET_JOINTS):
            pybullet.resetJointState(self.body, joint, value, physicsClientId=self._world.client)
        self.gripper_open = True
        self._targets = np.array(RESET_JOINTS[:7])  # the last targets of the lagging motors

    def end_effector(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return position (3,) m and quaternion (4,) xyzw of the end effector, world axes.

        The engine cached it in the last substep, before that substep moved the joints. The
        published data has the same lag of 1/240 s, in its states and in what its actions refer to.
        """
        state = pybullet.getLinkState(
            self.body, END_EFFECTOR_LINK, physicsClientId=self._world.client
        )
        return np.array(state[0]), np.array(state[1])

    def fingers(self) -> np.ndarray:
        """Return left and right finger joint positions, float64 (2,) m."""
        states = pybullet.getJointStates(
            self.body, (LEFT_FINGER, RIGHT_FINGER), physicsClientId=self._world.client
        )
        return np.array([state[0] for state in states])

    def joints(self) -> Dict[str, float]:
        """Return the position of every movable joint by name, rad (fingers: m)."""
        states = pybullet.getJointStates(
            self.body, MOVABLE_JOINTS, physicsClientId=self._world.client
        )
        return {name: state[0] for name, state in zip(JOINT_NAMES, states)}

    def state(self) -> np.ndarray:
        """Return float64 (10,) in the order of ``specs.WIDOWX_STATE_NAMES``, world axes."""
        position, quaternion = self.end_effector()
        return np.concatenate([position, quaternion, self.fingers(), [float(self.gripper_open)]])

    def command_delta(self, delta_position: np.ndarray, delta_euler_deg: np.ndarray) -> None:
        """Set motor targets to the measured pose plus a displacement.

        Args:
            delta_position: (3,) m, world axes; the target is clipped to the workspace box.
            delta_euler_deg: (3,) degrees, added to the xyz Euler angles.
        """
        position, quaternion = self.end_effector()
        target = np.clip(position + delta_position, WORKSPACE_LOW, WORKSPACE_HIGH)
        euler = np.array(pybullet.getEulerFromQuaternion(quaternion.tolist()))
        euler = euler + np.asarray(delta_euler_deg) * (math.pi / 180.0)
        joints = pybullet.calculateInverseKinematics(
            self.body,
            END_EFFECTOR_LINK,
            targetPosition=target.tolist(),
            targetOrientation=pybullet.getQuaternionFromEuler(euler.tolist()),
            lowerLimits=_IK_LOWER,
            upperLimits=_IK_UPPER,
            jointRanges=_IK_RANGE,
            restPoses=RESET_JOINTS,
            jointDamping=_IK_DAMPING,
            solver=pybullet.IK_DLS,
            maxNumIterations=100,
            residualThreshold=0.01,
            physicsClientId=self._world.client,
        )
        fingers = GRIPPER_OPEN if self.gripper_open else GRIPPER_CLOSED
        if self._actuators != IDEAL_ACTUATORS:
            joints = self._apply_actuators(np.array(joints[:7]))
        self._command(MOVABLE_JOINTS[:7], joints[:7], ARM_FORCE)
        self._command(MOVABLE_JOINTS[7:], fingers, FINGER_FORCE)

    def _apply_actuators(self, targets: np.ndarray) -> np.ndarray:
        """Return the joint targets (7,) rad after lag and stiction."""
        if self._actuators.lag_s > 0.0:
            passed = 1.0 - math.exp(-self._period_s / self._actuators.lag_s)
            targets = self._targets + passed * (targets - self._targets)
        self._targets = targets
        states = pybullet.getJointStates(
            self.body, MOVABLE_JOINTS[:7], physicsClientId=self._world.client
        )
        measured = np.array([state[0] for state in states])
        stuck = np.abs(targets - measured) < self._actuators.stiction_rad
        return np.where(stuck, measured, targets)

    def command_neutral(self, gripper_open: bool) -> None:
        """Set motor targets to the reset pose and open or close the gripper.

        Lag and stiction are left out: a homing move of 313 ms outlasts them.
        ``gripper_open`` follows the fingers here: a flag that kept its old value would move
        the fingers back at the next step and drop what they hold.
        """
        self.gripper_open = bool(gripper_open)
        fingers = GRIPPER_OPEN if self.gripper_open else GRIPPER_CLOSED
        self._targets = np.array(RESET_JOINTS[:7])  # the lag must not pull the arm back from here
        self._command(MOVABLE_JOINTS, RESET_JOINTS[:7] + fingers, NEUTRAL_FORCE)

    def _command(self, joints: Sequence[int], targets: Sequence[float], force: float) -> None:
        pybullet.setJointMotorControlArray(
            self.body,
            joints,
            pybullet.POSITION_CONTROL,
            targetPositions=targets,
            forces=(force,) * len(joints),
            positionGains=(POSITION_GAIN,) * len(joints),
            physicsClientId=self._world.client,
        )
