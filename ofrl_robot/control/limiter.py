"""The limiter: a pure function between what an actor asks for and what the robot is told.

Limits of the method, said plainly: it is open loop. It bounds the *command* from the measured
end-effector position; it does not know obstacles, links or loads, and it is no emergency stop.
"""

from __future__ import annotations

import dataclasses
from typing import List, Tuple

import numpy as np

from ofrl_robot.specs import ActionSpec

SHAPE, NOT_FINITE, RANGE, STEP, WORKSPACE = (
    "shape", "not_finite", "range", "step_size", "workspace",
)  # fmt: skip
_POSITION, _ROTATION = ("x", "y", "z"), ("rot_x", "rot_y", "rot_z")
_TOLERANCE = 1e-9  # m or deg; less than that is rounding and changes nothing


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a command may ask for.

    Attributes:
        workspace_low, workspace_high: box of the end-effector target in the base frame (m).
        max_translation: longest position delta per control step (m).
        max_rotation: largest rotation delta per axis and control step (deg).
    """

    workspace_low: Tuple[float, float, float]
    workspace_high: Tuple[float, float, float]
    max_translation: float
    max_rotation: float


def limit(
    command: np.ndarray, ee_position: np.ndarray, spec: ActionSpec, limits: Limits
) -> Tuple[np.ndarray, Tuple[str, ...]]:
    """Bound one normalised action.

    Args:
        command: (A,) as asked for; anything, NaN included.
        ee_position: measured (3,) in m, base frame.
        spec: meaning and scale of the entries.
        limits: see :class:`Limits`.

    Returns:
        (applied (A,) float64, names of the limits that changed it, in order). A command of a
        wrong shape, or a NaN or infinity in it or in the position, gives the zero action (hold).
        An arm that was pushed out of the box may hold still or come back, never go further out.
    """
    action = np.asarray(command, np.float64)
    place = np.asarray(ee_position, np.float64)
    if action.shape != (spec.size,):
        return np.zeros(spec.size), (SHAPE,)
    if not (np.isfinite(action).all() and np.isfinite(place).all()):
        return np.zeros(spec.size), (NOT_FINITE,)
    reasons: List[str] = []
    applied = np.clip(action, -1.0, 1.0)
    if not np.array_equal(applied, action):
        reasons.append(RANGE)
    rotation = _entries(spec, _ROTATION)
    scale = np.array(spec.scale)[rotation]
    turn = applied[rotation] * scale
    if (np.abs(turn) > limits.max_rotation + _TOLERANCE).any():
        applied[rotation] = np.clip(turn, -limits.max_rotation, limits.max_rotation) / scale
        reasons.append(STEP)
    position = _entries(spec, _POSITION)
    axes = [_POSITION.index(spec.names[i]) for i in position]
    place, scale = place[axes], np.array(spec.scale)[position]
    delta = applied[position] * scale
    length = float(np.linalg.norm(delta))
    if length > limits.max_translation + _TOLERANCE:
        delta = delta * (limits.max_translation / length)
        applied[position] = delta / scale
        reasons += [] if STEP in reasons else [STEP]
    # the box, widened to where the arm stands: it brakes and never drives
    low = np.minimum(np.array(limits.workspace_low)[axes], place)
    high = np.maximum(np.array(limits.workspace_high)[axes], place)
    inside = np.clip(place + delta, low, high) - place
    cut = np.abs(inside - delta) > _TOLERANCE
    if cut.any():
        applied[np.array(position)[cut]] = (inside / scale)[cut]
        reasons.append(WORKSPACE)
    return applied, tuple(reasons)


def _entries(spec: ActionSpec, names: Tuple[str, ...]) -> List[int]:
    """Where those of ``names`` that the spec has stand in the vector."""
    return [spec.names.index(name) for name in names if name in spec.names]
