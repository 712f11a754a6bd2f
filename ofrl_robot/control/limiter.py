"""Limit a command: a pure function between what an actor asks for and what the arm is told.

It bounds the *command*, from measured state and history. It does not know obstacles, links or
loads, and it is no emergency stop. The signature follows ros_control's limiters: history, measured
joints and time are arguments, so nothing is remembered here.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.control.pose import Pose, rotation_from, rotation_vector, turned
from ofrl_robot.control.signals import ArmState
from ofrl_robot.specs import ActionSpec

# Names of the limits, as they are recorded and published.
SHAPE, NOT_FINITE, RANGE, JOINT, STEP, CHANGE, WORKSPACE, ROTATION = (
    "shape", "not_finite", "range", "joint", "step_size", "change", "workspace", "rotation",
)  # fmt: skip
# What a driver may refuse a setpoint for (``Sent.refused``).
NO_IK, JOINT_LIMIT, JOINT_SPEED = "no_ik", "joint_limit", "joint_speed"
OTHER = "other"  # a limit without a name here: of another driver, or of converted data
RESYNC = "resync"  # the step started at the measured pose, not at the previous target

# Bits of the column ``limits`` of an episode, and of the message on ``applied_action``.
LIMIT_NAMES = (
    SHAPE, NOT_FINITE, RANGE, JOINT, STEP, CHANGE, WORKSPACE, ROTATION,
    NO_IK, JOINT_LIMIT, JOINT_SPEED, OTHER, RESYNC,
)  # fmt: skip
_POSITION, _ROTATION = ("x", "y", "z"), ("rot_x", "rot_y", "rot_z")
_TOLERANCE = 1e-9  # m or deg; less than that is rounding and changes nothing
_HALVINGS = 20  # of a rotation that leaves its box: to a millionth of it


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a command may ask for. Loaded from ``config/robots/*.yaml``.

    Attributes:
        frame: frame of reference of the workspace, ``specs.WORLD`` or ``specs.BASE``.
        workspace_low, workspace_high: box of the end-effector target (m).
        max_translation: longest position delta per control step (m).
        max_rotation: largest rotation delta per axis and control step (deg).
        max_speed: fastest translation (m/s), or None.
        max_change: longest difference between the position deltas of two steps (m), or None.
            To slow down is always allowed, at once.
        max_target_error, max_target_angle: distance (m) and angle (deg) between the previous
            target and the measured pose above which the next step starts at the measured pose.
        upright: end-effector orientation, quaternion xyzw, from which the next two count.
        rotation_low, rotation_high: box of the rotation vector (deg, axes of ``frame``) of the
            target relative to ``upright``; within (-180, 180). None for no box.
        joints: (low, high) of joint positions by name (rad; fingers: m). The arm holds still
            while one is outside, and its driver refuses targets outside.
        joint_speeds: fastest speed of joint targets by name (rad/s); the driver refuses more.
    """

    frame: str
    workspace_low: Tuple[float, ...]
    workspace_high: Tuple[float, ...]
    max_translation: float
    max_rotation: float
    max_speed: Optional[float] = None
    max_change: Optional[float] = None
    max_target_error: float = 0.1
    max_target_angle: float = 30.0
    upright: Tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)
    rotation_low: Optional[Tuple[float, ...]] = None
    rotation_high: Optional[Tuple[float, ...]] = None
    joints: Dict[str, Tuple[float, float]] = dataclasses.field(default_factory=dict)
    joint_speeds: Dict[str, float] = dataclasses.field(default_factory=dict)


class Limited(NamedTuple):
    """A command within its limits.

    Attributes:
        action: float64 (A,), applied.
        target: of the end effector, in the frame of the limits.
        reasons: names of the limits that changed it, in order; empty: it is as it was asked for.
    """

    action: np.ndarray
    target: Pose
    reasons: Tuple[str, ...]


def unusable(command: np.ndarray, spec: ActionSpec) -> str:
    """Return why a command cannot be carried out at all (SHAPE, NOT_FINITE), or an empty text."""
    action = np.asarray(command, np.float64)
    if action.shape != (spec.size,):
        return SHAPE
    return "" if np.isfinite(action).all() else NOT_FINITE


def limit(
    command: np.ndarray,
    previous: Optional[np.ndarray],
    start: Optional[Pose],
    state: ArmState,
    dt: float,
    spec: ActionSpec,
    limits: Limits,
) -> Limited:
    """Bound one normalised action.

    The limits act in this order, so the later ones have the last word: range, change, step (and
    speed), workspace, rotation step and box. Each can only shorten what the arm is asked to do,
    or hold it.

    Args:
        command: (A,) as asked for; anything, NaN included.
        previous: (A,) action applied before this one, None at the start of an episode.
        start: pose from which the action counts; None for the measured one.
        state: measured state, in ``limits.frame``.
        dt: seconds since the command before.
        spec: meaning and scale of the entries.
        limits: see :class:`Limits`.

    Returns:
        The command within its limits. A command of a wrong shape, a NaN or infinity in command,
        position or joints, and a joint outside its range give the zero action (hold). An arm that
        was pushed out of a box may hold still or come back, never go further out.
    """
    action = np.asarray(command, np.float64)
    begin = Pose(state.position, state.orientation) if start is None else start
    place = np.asarray(begin.position, np.float64)
    hold = np.zeros(spec.size)
    wrong = unusable(action, spec)
    if wrong:
        return Limited(hold, begin, (wrong,))
    joints = np.array(list(state.joint_positions.values()), np.float64)
    if not (np.isfinite(place).all() and np.isfinite(joints).all()):
        return Limited(hold, begin, (NOT_FINITE,))
    for name, (low, high) in limits.joints.items():
        if not low <= state.joint_positions.get(name, low) <= high:
            return Limited(hold, begin, (JOINT,))

    reasons: List[str] = []
    applied = np.clip(action, -1.0, 1.0)
    if not np.array_equal(applied, action):
        reasons.append(RANGE)
    applied, position = _translated(applied, previous, place, dt, spec, limits, reasons)
    orientation = _rotated(applied, begin.orientation, spec, limits, reasons)
    return Limited(applied, Pose(position, orientation), tuple(reasons))


def _translated(
    applied: np.ndarray,
    previous: Optional[np.ndarray],
    place: np.ndarray,
    dt: float,
    spec: ActionSpec,
    limits: Limits,
    reasons: List[str],
) -> Tuple[np.ndarray, np.ndarray]:
    """Return the action with its translation limited, and the target position (3,)."""
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
        reasons.append(STEP)

    # the box, widened to where the target stood: it brakes and never drives
    here = place[axes]
    low = np.minimum(np.array(limits.workspace_low)[axes], here)
    high = np.maximum(np.array(limits.workspace_high)[axes], here)
    inside = np.clip(here + delta, low, high) - here
    cut = np.abs(inside - delta) > _TOLERANCE
    if cut.any():
        applied[np.array(position)[cut]] = (inside / scale)[cut]
        reasons.append(WORKSPACE)
    target = place.copy()
    target[axes] += applied[position] * scale
    return applied, target


def _rotated(
    applied: np.ndarray,
    orientation: np.ndarray,
    spec: ActionSpec,
    limits: Limits,
    reasons: List[str],
) -> np.ndarray:
    """Limit the rotation entries of ``applied`` in place; return the target orientation (4,)."""
    rotation = _entries(spec, _ROTATION)
    axes = [_ROTATION.index(spec.names[i]) for i in rotation]
    scale = np.array(spec.scale)[rotation]
    turn = np.zeros(3)
    turn[axes] = applied[rotation] * scale
    if (np.abs(turn) > limits.max_rotation + _TOLERANCE).any():
        turn = np.clip(turn, -limits.max_rotation, limits.max_rotation)
        applied[rotation] = turn[axes] / scale
        if STEP not in reasons:
            reasons.append(STEP)
    if not turn.any():
        return np.asarray(orientation, np.float64)
    allowed = _within_rotation_box(turn, orientation, limits)
    if not np.array_equal(allowed, turn):
        turn = allowed
        applied[rotation] = turn[axes] / scale
        reasons.append(ROTATION)
    return turned(orientation, turn)


def _within_rotation_box(turn: np.ndarray, orientation: np.ndarray, limits: Limits) -> np.ndarray:
    """Shorten the components of a turn (3,) deg that would leave the rotation box."""
    if limits.rotation_low is None or limits.rotation_high is None:
        return turn

    def relative(amount: np.ndarray) -> np.ndarray:
        return rotation_vector(turned(orientation, amount), rotation_from(limits.upright))

    now = relative(np.zeros(3))
    low = np.minimum(np.array(limits.rotation_low), now) - 1e-6
    high = np.maximum(np.array(limits.rotation_high), now) + 1e-6

    def outside(amount: np.ndarray) -> np.ndarray:
        found = relative(amount)
        return (found < low) | (found > high)

    left = outside(turn)
    if not left.any():
        return turn
    stopped = np.where(left, 0.0, turn)
    if outside(stopped).any():
        return np.zeros(3)
    inside, beyond = 0.0, 1.0
    for _ in range(_HALVINGS):
        share = 0.5 * (inside + beyond)
        if outside(np.where(left, share * turn, turn)).any():
            beyond = share
        else:
            inside = share
    return np.where(left, inside * turn, turn)


def refused_joints(
    targets: Dict[str, float], before: Dict[str, float], dt: float, limits: Limits
) -> str:
    """Return why a driver must refuse joint targets ("joint_limit", "joint_speed"), or "".

    Args:
        targets: rad by joint.
        before: targets of the step before, rad by joint.
        dt: seconds between the two.
        limits: their ``joints`` and ``joint_speeds``.
    """
    for name, target in targets.items():
        low, high = limits.joints.get(name, (-np.inf, np.inf))
        if not low <= target <= high:  # NaN too
            return JOINT_LIMIT
        fastest = limits.joint_speeds.get(name, np.inf)
        if abs(target - before.get(name, target)) > fastest * dt + _TOLERANCE:
            return JOINT_SPEED
    return ""


def limit_bits(reasons: Sequence[str]) -> int:
    """Return the names of limits as a bit mask; an unknown name counts as OTHER."""
    known = [LIMIT_NAMES.index(r if r in LIMIT_NAMES else OTHER) for r in reasons]
    return sum(1 << bit for bit in set(known))


def limit_names(bits: int) -> Tuple[str, ...]:
    """Return the names in a bit mask, in the order of ``LIMIT_NAMES``."""
    return tuple(name for i, name in enumerate(LIMIT_NAMES) if bits >> i & 1)


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
