"""Forward and inverse kinematics of a serial arm given by its screw axes."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

POSITION_TOLERANCE = 1e-4  # m; the vendor's solver stops at 1e-3, which swallows small steps
ANGLE_TOLERANCE = 1e-3  # rad
_ITERATIONS = 30  # a reachable pose a step away takes 2 to 4
_DAMPING = 1e-3  # keeps the steps finite near a singularity
_LONGEST_STEP = 0.5  # rad of one joint in one iteration


class ScrewChain:
    """A chain of revolute joints in the product-of-exponentials form.

    Args:
        screws: (6, n), column i is the axis of joint i in the base frame at the zero position:
            the direction (3,), then minus direction x point on the axis (3,) m.
        home: (4, 4), pose of the end effector in the base frame at the zero position.
    """

    def __init__(self, screws: np.ndarray, home: np.ndarray) -> None:
        self._screws = np.asarray(screws, np.float64).T  # (n, 6)
        self._home = np.asarray(home, np.float64)

    def forward(self, joints: np.ndarray) -> np.ndarray:
        """Return the pose (4, 4) of the end effector in the base frame; joints (n,) in rad."""
        return self._poses(joints)[0]

    def inverse(self, target: np.ndarray, guess: np.ndarray) -> Optional[np.ndarray]:
        """Return joints (n,) rad that reach a pose, or None when none are found from ``guess``.

        Damped least squares; bounded in time (2 ms for a pose a step away, at most 16 ms). Joint
        limits are not looked at.

        Args:
            target: (4, 4), of the end effector in the base frame.
            guess: joints (n,) rad to begin with; the nearest solution is found.
        """
        if not np.isfinite(target).all():
            return None
        joints = np.array(guess, np.float64)
        goal = Rotation.from_matrix(target[:3, :3])
        for _ in range(_ITERATIONS):
            pose, jacobian = self._poses(joints)
            turn = (goal * Rotation.from_matrix(pose[:3, :3]).inv()).as_rotvec()
            move = target[:3, 3] - pose[:3, 3]
            if np.linalg.norm(move) < POSITION_TOLERANCE and np.linalg.norm(turn) < ANGLE_TOLERANCE:
                return joints
            error = np.concatenate([turn, move])
            square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
            step = jacobian.T @ np.linalg.solve(square, error)
            longest = float(np.abs(step).max())
            joints += step * min(1.0, _LONGEST_STEP / max(longest, 1e-12))
        return None

    def _poses(self, joints: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return the pose (4, 4) and the Jacobian (6, n) of the end effector, base axes."""
        transform = np.eye(4)
        axes = []
        for screw, angle in zip(self._screws, joints):
            direction = transform[:3, :3] @ screw[:3]
            point = transform[:3, :3] @ np.cross(screw[:3], screw[3:]) + transform[:3, 3]
            axes.append((direction, point))
            transform = transform @ _exponential(screw, float(angle))
        pose = transform @ self._home
        columns = [np.concatenate([d, np.cross(d, pose[:3, 3] - p)]) for d, p in axes]
        return pose, np.array(columns).T


def _exponential(screw: np.ndarray, angle: float) -> np.ndarray:
    """Return the motion (4, 4) of turning by ``angle`` rad about a screw axis without pitch."""
    x, y, z = screw[:3]
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation = np.eye(3) + np.sin(angle) * skew + (1.0 - np.cos(angle)) * (skew @ skew)
    point = np.cross(screw[:3], screw[3:])
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation, point - rotation @ point
    return motion
