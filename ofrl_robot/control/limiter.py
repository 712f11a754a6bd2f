"""The limiter: a pure function between what an actor asks for and what the robot is told.

Limits of the method, said plainly: it is open loop. It bounds the *command* from the measured
end-effector position; it does not know obstacles, links or loads, and it is no emergency stop.
"""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Tuple

import numpy as np

from ofrl_robot.specs import ActionSpec

SHAPE, NOT_FINITE, RANGE, STEP, WORKSPACE = (
    "shape", "not_finite", "range", "step_size", "workspace",
)  # fmt: skip


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
        wrong shape or with a NaN or infinity becomes the zero action (hold).
    """
    action = np.asarray(command, np.float64)
    if action.shape != (spec.size,):
        return np.zeros(spec.size), (SHAPE,)
    if not np.isfinite(action).all():
        return np.zeros(spec.size), (NOT_FINITE,)
    reasons: List[str] = []
    applied = np.clip(action, -1.0, 1.0)
    if not np.array_equal(applied, action):
        reasons.append(RANGE)
    rotation = _indices(spec, ("rot_x", "rot_y", "rot_z"))
    if rotation is not None:
        scale = np.array(spec.scale)[rotation]
        turned = np.clip(applied[rotation] * scale, -limits.max_rotation, limits.max_rotation)
        if not np.allclose(turned, applied[rotation] * scale, rtol=0, atol=1e-9):
            applied[rotation] = turned / scale
            reasons.append(STEP)
    position = _indices(spec, ("x", "y", "z"))
    if position is not None:
        scale = np.array(spec.scale)[position]
        delta = applied[position] * scale
        length = float(np.linalg.norm(delta))
        if length > limits.max_translation:
            delta = delta * (limits.max_translation / length)
            if STEP not in reasons:
                reasons.append(STEP)
        low, high = np.array(limits.workspace_low), np.array(limits.workspace_high)
        inside = np.clip(ee_position + delta, low, high) - ee_position
        # an arm pushed outside the box may hold still or come back, not be yanked in one step
        inside = np.clip(inside, -limits.max_translation, limits.max_translation)
        if not np.allclose(inside, delta, rtol=0, atol=1e-9):
            delta = inside
            reasons.append(WORKSPACE)
        applied[position] = np.clip(delta / scale, -1.0, 1.0)
    return applied, tuple(reasons)


def _indices(spec: ActionSpec, names: Tuple[str, ...]) -> Optional[List[int]]:
    found = [spec.index(name) for name in names]
    return None if None in found else found  # type: ignore[return-value]
