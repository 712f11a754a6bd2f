"""Limit a command: a pure function between what an actor asks for and what the arm is told.

It bounds the *command*, from measured state and history. It does not know obstacles, links or
loads, and it is no emergency stop. The signature follows ros_control's limiters: history, measured
joints and time are arguments, so nothing is remembered here.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Optional, Tuple

import numpy as np

from ofrl_robot.control.signals import ArmState
from ofrl_robot.specs import ActionSpec

# Names of the limits, as they are recorded and published.
SHAPE, NOT_FINITE, RANGE, JOINT, STEP, CHANGE, WORKSPACE = (
    "shape", "not_finite", "range", "joint", "step_size", "change", "workspace",
)  # fmt: skip
_POSITION, _ROTATION = ("x", "y", "z"), ("rot_x", "rot_y", "rot_z")
_TOLERANCE = 1e-9  # m or deg; less than that is rounding and changes nothing


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a command may ask for. Loaded from ``config/robots/*.yaml``.

    Attributes:
        frame: frame of reference of the workspace, ``specs.WORLD`` or ``specs.BASE``.
        workspace_low, workspace_high: box of the end-effector target (m).
        max_translation: longest position delta per control step (m).
        max_rotation: largest rotation delta per axis and control step (deg).
        max_silence: seconds without an action after which the arm stops.
        max_speed: fastest translation (m/s), or None.
        max_change: longest difference between the position deltas of two steps (m), or None.
            To slow down is always allowed, at once.
        joints: (low, high) of measured joint positions by name (rad; fingers: m). Outside, the
            arm holds still.
    """

    frame: str
    workspace_low: Tuple[float, float, float]
    workspace_high: Tuple[float, float, float]
    max_translation: float
    max_rotation: float
    max_silence: float
    max_speed: Optional[float] = None
    max_change: Optional[float] = None
    joints: Dict[str, Tuple[float, float]] = dataclasses.field(default_factory=dict)


def limit(
    command: np.ndarray,
    previous: Optional[np.ndarray],
    state: ArmState,
    dt: float,
    spec: ActionSpec,
    limits: Limits,
) -> Tuple[np.ndarray, Tuple[str, ...]]:
    """Bound one normalised action.

    The limits act in this order, so the later ones have the last word: range, rotation, change,
    step (and speed), workspace. Each can only shorten what the arm is asked to do, or hold it.

    Args:
        command: (A,) as asked for; anything, NaN included.
        previous: (A,) action applied before this one, None at the start of an episode.
        state: measured state, in ``limits.frame``.
        dt: seconds since the command before.
        spec: meaning and scale of the entries.
        limits: see :class:`Limits`.

    Returns:
        (applied (A,) float64, names of the limits that changed it, in order). A command of a
        wrong shape, a NaN or infinity in command, position or joints, and a joint outside its
        range give the zero action (hold). An arm that was pushed out of the box may hold still
        or come back, never go further out.
    """
    action = np.asarray(command, np.float64)
    place = np.asarray(state.position, np.float64)
    hold = np.zeros(spec.size)
    if action.shape != (spec.size,):
        return hold, (SHAPE,)
    joints = np.array(list(state.joint_positions.values()), np.float64)
    if not (np.isfinite(action).all() and np.isfinite(place).all() and np.isfinite(joints).all()):
        return hold, (NOT_FINITE,)
    for name, (low, high) in limits.joints.items():
        if not low <= state.joint_positions.get(name, low) <= high:
            return hold, (JOINT,)

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
    scale = np.array(spec.scale)[position]
    delta = applied[position] * scale
    if limits.max_change is not None:
        before = np.zeros(len(position)) if previous is None else previous[position] * scale
        share = _share_within(delta, before, limits.max_change)
        if share < 1.0:
            delta = share * delta
            applied[position] = delta / scale
            reasons.append(CHANGE)
    longest = limits.max_translation
    if limits.max_speed is not None:
        longest = min(longest, limits.max_speed * dt)
    shortened = _shortened(delta, longest)
    if not np.array_equal(shortened, delta):
        delta = shortened
        applied[position] = delta / scale
        if STEP not in reasons:
            reasons.append(STEP)

    # the box, widened to where the arm stands: it brakes and never drives
    place = place[axes]
    low = np.minimum(np.array(limits.workspace_low)[axes], place)
    high = np.maximum(np.array(limits.workspace_high)[axes], place)
    inside = np.clip(place + delta, low, high) - place
    cut = np.abs(inside - delta) > _TOLERANCE
    if cut.any():
        applied[np.array(position)[cut]] = (inside / scale)[cut]
        reasons.append(WORKSPACE)
    return applied, tuple(reasons)


def _shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    """Return ``vector`` with at most the length ``longest``, in the same direction."""
    length = float(np.linalg.norm(vector))
    return vector if length <= longest + _TOLERANCE else vector * (longest / length)


def _share_within(vector: np.ndarray, before: np.ndarray, most: float) -> float:
    """Return the largest s in [0, 1] with |s vector - before| <= most; 0 when there is none.

    So the vector is shortened and never turned: a limit brakes, it does not drive.
    """
    square = float(vector @ vector)
    if square == 0.0 or float(np.linalg.norm(vector - before)) <= most + _TOLERANCE:
        return 1.0
    along = float(vector @ before)
    root = along * along - square * (float(before @ before) - most * most)
    if root < 0.0:
        return 0.0
    return float(np.clip((along + root**0.5) / square, 0.0, 1.0))


def _entries(spec: ActionSpec, names: Tuple[str, ...]) -> List[int]:
    """Return the positions in the vector of those of ``names`` that the spec has."""
    return [spec.names.index(name) for name in names if name in spec.names]
