"""Poses and rotations of the end effector. Rotations act about the axes of the frame, in deg."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence, Union

import numpy as np
from scipy.spatial.transform import Rotation

Quaternion = Union[np.ndarray, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Pose:
    """Position (3,) m and orientation (4,) quaternion xyzw."""

    position: np.ndarray
    orientation: np.ndarray


def rotation_from(quaternion: Quaternion) -> Any:
    """Return a scipy Rotation of a quaternion xyzw (4,)."""
    return Rotation.from_quat(np.asarray(quaternion, np.float64))


def turned(quaternion: Quaternion, degrees: np.ndarray) -> np.ndarray:
    """Turn an orientation by a rotation vector (3,) deg about the axes of the frame."""
    turn = Rotation.from_rotvec(np.radians(degrees))
    return np.asarray((turn * rotation_from(quaternion)).as_quat())


def rotation_vector(quaternion: Quaternion, origin: Any) -> np.ndarray:
    """Return the rotation (3,) deg, about the axes of the frame, that leads from ``origin``."""
    return np.degrees((rotation_from(quaternion) * origin.inv()).as_rotvec())


def distance(a: Pose, b: Pose) -> float:
    """Return the distance between two positions, m."""
    return float(np.linalg.norm(np.asarray(a.position) - np.asarray(b.position)))


def angle(a: Pose, b: Pose) -> float:
    """Return the angle between two orientations, deg."""
    return float(
        np.degrees((rotation_from(a.orientation) * rotation_from(b.orientation).inv()).magnitude())
    )
