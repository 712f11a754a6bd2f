"""Simulate a Sawyer: its kinematics, its body in a PyBullet world, and its controller.

The world's axes are those of the arm's base. No ROS here.
"""

from __future__ import annotations

import os
import threading
import xml.etree.ElementTree as ElementTree
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from ofrl_robot.sim.engine import pybullet
from ofrl_robot.sim.world import ASSETS, World

JOINTS = tuple(f"right_j{i}" for i in range(7))
NEUTRAL = (0.0, -1.18, 0.0, 2.18, 0.0, 0.57, 3.3161)
HAND, TIP = "right_hand", "right_gripper_tip"
FINGERS = ("right_gripper_l_finger_joint", "right_gripper_r_finger_joint")
MAX_OPENING = 0.041667  # m
POSITION, VELOCITY, TORQUE, TRAJECTORY = 1, 2, 3, 4  # modes of a command
_GAIN = 0.25  # of the position motors per substep: a time constant of 17 ms
_FINGER_FORCE, _FINGER_SPEED = 15.0, 0.1  # N, m/s of each
_ITERATIONS, _TOLERANCE, _DAMPING = 60, 1e-4, 0.02


class Kinematics:
    """The chain of the arm, read from its URDF."""

    def __init__(self) -> None:
        root = ElementTree.parse(os.path.join(ASSETS, "sawyer.urdf")).getroot()
        chain: Dict[str, Tuple[str, np.ndarray, Rotation, Optional[np.ndarray]]] = {}
        low, high, speeds, efforts = [], [], [], []
        for joint in root.findall("joint"):
            name, origin = joint.attrib["name"], joint.find("origin")
            parent, child = joint.find("parent"), joint.find("child")
            assert origin is not None and parent is not None and child is not None
            axis, limit = joint.find("axis"), joint.find("limit")
            moving = None
            if name in JOINTS and axis is not None and limit is not None:
                moving = _vector(axis.attrib["xyz"])
                low.append(float(limit.attrib["lower"]))
                high.append(float(limit.attrib["upper"]))
                speeds.append(float(limit.attrib["velocity"]))
                efforts.append(float(limit.attrib["effort"]))
            turn = Rotation.from_euler("xyz", _vector(origin.attrib.get("rpy", "0 0 0")))
            place = _vector(origin.attrib["xyz"])
            chain[child.attrib["link"]] = (parent.attrib["link"], place, turn, moving)
        self.low, self.high = np.array(low), np.array(high)
        self.speeds, self.efforts = np.array(speeds), np.array(efforts)
        self._chains = {tip: _chain(chain, tip) for tip in (HAND, TIP)}

    def forward(self, joints: np.ndarray, tip: str = HAND) -> Tuple[np.ndarray, Rotation]:
        """Return position (3,) m and rotation of a tip. Raises KeyError for an unknown one."""
        return self._jacobian(joints, tip)[:2]

    def solve(
        self, position: np.ndarray, rotation: Rotation, seed: np.ndarray, tip: str = HAND
    ) -> Optional[np.ndarray]:
        """Return joints (7,) rad within their limits that put a tip there, searched from ``seed``.

        None when 60 damped steps do not come within 0.1 mm and 0.1 mrad.
        """
        joints = np.clip(seed, self.low, self.high)
        for _ in range(_ITERATIONS):
            place, turn, jacobian = self._jacobian(joints, tip)
            error = np.concatenate([position - place, (rotation * turn.inv()).as_rotvec()])
            if np.abs(error).max() < _TOLERANCE:
                return joints
            size = float(np.abs(error).max())
            error = error * min(1.0, 0.3 / size)
            damping = (_DAMPING * min(size, 1.0)) ** 2 * np.eye(6)
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping, error)
            joints = np.clip(joints + step, self.low, self.high)
        return None

    def _jacobian(self, joints: np.ndarray, tip: str) -> Tuple[np.ndarray, Rotation, np.ndarray]:
        place, turn = np.zeros(3), Rotation.identity()
        axes: List[np.ndarray] = []
        origins: List[np.ndarray] = []
        for offset, fixed, axis in self._chains[tip]:
            place, turn = place + turn.apply(offset), turn * fixed
            if axis is not None:
                axes.append(turn.apply(axis))
                origins.append(place)
                turn = turn * Rotation.from_rotvec(axis * joints[len(axes) - 1])
        z = np.array(axes)
        return place, turn, np.vstack([np.cross(z, place - np.array(origins)).T, z.T])


def _vector(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])


def _chain(
    joints: Dict[str, Tuple[str, np.ndarray, Rotation, Optional[np.ndarray]]], tip: str
) -> List[Tuple[np.ndarray, Rotation, Optional[np.ndarray]]]:
    found = []
    link = tip
    while link in joints:
        parent, place, turn, axis = joints[link]
        found.append((place, turn, axis))
        link = parent
    return found[::-1]


class SawyerBody:
    """The arm in a world: motors and measurements. Not thread-safe."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.body = world.load("sawyer", (0.0, 0.0, 0.0), fixed=True)
        client = world.client
        index = {}
        for i in range(pybullet.getNumJoints(self.body, physicsClientId=client)):
            index[pybullet.getJointInfo(self.body, i, physicsClientId=client)[1].decode()] = i
        self._joints = [index[name] for name in JOINTS]
        self._fingers = [index[name] for name in FINGERS]
        self._tips = {HAND: index[HAND], TIP: index[TIP]}
        for joint, angle in zip(self._joints, NEUTRAL):
            world.set_joint(self.body, joint, angle)
        for joint in self._fingers:
            world.set_joint(self.body, joint, MAX_OPENING / 2.0)

    def joints(self) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions (7,) rad, velocities (7,) rad/s, motor torques (7,) N m."""
        states = pybullet.getJointStates(
            self.body, self._joints, physicsClientId=self._world.client
        )
        return tuple(np.array([state[k] for state in states]) for k in (0, 1, 3))  # type: ignore

    def drive(self, targets: np.ndarray, speeds: np.ndarray, efforts: np.ndarray) -> None:
        """Pull the joints towards ``targets`` (7,) rad, at most at ``speeds`` (7,) rad/s."""
        for joint, target, speed, effort in zip(self._joints, targets, speeds, efforts):
            pybullet.setJointMotorControl2(
                self.body, joint, pybullet.POSITION_CONTROL, targetPosition=float(target),
                positionGain=_GAIN, maxVelocity=float(speed), force=float(effort),
                physicsClientId=self._world.client,
            )  # fmt: skip

    def drive_gripper(self, opening: float) -> None:
        """Pull the fingers towards a distance of ``opening`` m."""
        for joint in self._fingers:
            pybullet.setJointMotorControl2(
                self.body, joint, pybullet.POSITION_CONTROL, targetPosition=opening / 2.0,
                positionGain=0.2, maxVelocity=_FINGER_SPEED, force=_FINGER_FORCE,
                physicsClientId=self._world.client,
            )  # fmt: skip

    def opening(self) -> Tuple[float, float]:
        """Return the distance between the fingers, m, and how fast it changes, m/s."""
        states = pybullet.getJointStates(
            self.body, self._fingers, physicsClientId=self._world.client
        )
        return sum(state[0] for state in states), sum(state[1] for state in states)


class SawyerController:
    """What the robot's own controller does with commands: enable, modes, the time-out.

    Measured on the vendor's client, and read in the vendor's simulator: a position command is
    carried out to its end; a velocity command stops when no other follows within the time-out.

    Args:
        kinematics: limits of the joints.
        joints: where they are, (7,) rad.
    """

    def __init__(self, kinematics: Kinematics, joints: Sequence[float]) -> None:
        self._limits = kinematics
        self.lock = threading.Lock()
        self.ratio, self.timeout = 0.3, 0.2
        self.enabled = True
        self.timeouts = 0
        self._target = np.array(joints, np.float64)
        self._velocity: Optional[np.ndarray] = None
        self._silence = 0.0  # s since the last command

    def command(self, mode: int, names: Sequence[str], values: Sequence[float]) -> None:
        """Take a command for some joints; ignored while the robot is not enabled."""
        if not self.enabled or mode == TORQUE:
            return
        order = [JOINTS.index(name) for name in names if name in JOINTS]
        if len(order) != len(values):
            return
        with self.lock:
            self._silence = 0.0
            if mode == VELOCITY:
                self._velocity = np.zeros(7) if self._velocity is None else self._velocity
                self._velocity[order] = values
            else:
                self._velocity = None
                self._target[order] = values

    def hold(self, joints: np.ndarray) -> None:
        """Forget commands and stay at ``joints`` (7,) rad."""
        with self.lock:
            self._target, self._velocity = np.array(joints), None

    def targets(self, seconds: float) -> Tuple[np.ndarray, np.ndarray]:
        """Return motor targets (7,) rad and largest speeds (7,) rad/s for the next ``seconds``."""
        with self.lock:
            self._silence += seconds
            if self._velocity is not None and self._silence > self.timeout:
                self._velocity = None
                self.timeouts += 1
            if self._velocity is not None:
                self._target = self._target + self._velocity * seconds
            target = np.clip(self._target, self._limits.low, self._limits.high)
            return target, self._limits.speeds * (self.ratio if self._velocity is None else 1.0)
