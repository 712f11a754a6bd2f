"""Define what travels round the loop: an arm's state, a tick, a command, an applied action.

The same signals flow in one process (``recording.session``) and over ROS topics (``ros/``).
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional, Tuple

import numpy as np

HOLD = "hold"  # source of an applied action when no actor commanded in time
HUMAN = "human"
POLICY = "policy"
UNKNOWN_SOURCE = "unknown"  # of converted data
# their positions are the values of the column ``source`` of an episode
SOURCES = (HOLD, HUMAN, POLICY, UNKNOWN_SOURCE)


@dataclasses.dataclass(frozen=True)
class ArmState:
    """Measured state of an arm at one instant, in the arm's frame of reference.

    Attributes:
        stamp_ns: time of measurement, ns since the epoch (simulated time in lockstep).
        vector: float64 (D,), in the order of ``ObservationSpec.state_names``.
        position: float64 (3,), end effector, m.
        orientation: float64 (4,), end effector, quaternion xyzw.
        joint_positions: by joint name, rad (fingers: m).
        joint_velocities: by joint name, rad/s (fingers: m/s); empty when the arm has none.
        joint_efforts: by joint name, in the arm's own unit; empty when the arm has none.
        joint_targets: by joint name, what the joints were last told, rad; empty when unknown.
    """

    stamp_ns: int
    vector: np.ndarray
    position: np.ndarray
    orientation: np.ndarray
    joint_positions: Dict[str, float] = dataclasses.field(default_factory=dict)
    joint_velocities: Dict[str, float] = dataclasses.field(default_factory=dict)
    joint_efforts: Dict[str, float] = dataclasses.field(default_factory=dict)
    joint_targets: Dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Setpoint:
    """What an arm is told in one control step. Everything in it is within the limits.

    Attributes:
        action: float64 (A,), the limited action, in ``ActionSpec`` order.
        position: float64 (3,), target of the end effector, m, in the arm's frame of reference.
        orientation: float64 (4,), target of the end effector, quaternion xyzw.
        gripper: 1.0 to open, 0.0 to close, None to leave it as it is.
    """

    action: np.ndarray
    position: np.ndarray
    orientation: np.ndarray
    gripper: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Sent:
    """What became of a setpoint in the driver.

    Attributes:
        refused: why nothing was sent ("no_ik", "joint_limit", "joint_speed"); the arm keeps its
            last target and the step is recorded as a hold with this reason. Empty: it was sent.
        duration: seconds that the step takes, when that is longer than a control period (a
            simulated gripper). The next tick comes no earlier.
    """

    refused: str = ""
    duration: float = 0.0


@dataclasses.dataclass
class Tick:
    """One control period as observed by the robot; answered by a :class:`Command`.

    Attributes:
        stamp_ns: start of the period, ns since the epoch (simulated time in lockstep). It names
            the tick; what was observed has capture times of its own.
        step: index within the episode; step 0 is the observation after reset.
        images: uint8 RGB (H, W, 3) per camera name, as the policy sees them.
        state: float64 (D,), in ``ObservationSpec.state_names`` order.
        reward: reward of the transition that ended here (0 at step 0).
        terminated, truncated: Gymnasium's meaning; either ends the episode.
        image_stamps_ns: capture time per camera.
        state_stamp_ns: capture time of the state (None: that of the tick, filled in).
        ground_truth: simulator only, what scripted policies read; never recorded.
        originals: the frames of ``images`` before crop and resize, when there was any.
    """

    stamp_ns: int
    step: int
    images: Dict[str, np.ndarray]
    state: np.ndarray
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    image_stamps_ns: Dict[str, int] = dataclasses.field(default_factory=dict)
    ground_truth: Dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    state_stamp_ns: Optional[int] = None
    originals: Dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state_stamp_ns is None:
            self.state_stamp_ns = self.stamp_ns

    @property
    def last(self) -> bool:
        """Whether the episode ends with this tick."""
        return self.terminated or self.truncated


@dataclasses.dataclass(frozen=True)
class Command:
    """A normalised action that answers the tick with the same stamp.

    Attributes:
        stamp_ns: stamp of the tick it answers.
        action: float64 (A,) in ``ActionSpec`` order, nominally in [-1, 1]. Of shape (0,) from a
            human who is there and does not command: the clutch is released.
        source: ``HUMAN`` or ``POLICY``.
    """

    stamp_ns: int
    action: np.ndarray
    source: str

    @property
    def hands_back(self) -> bool:
        """Whether a human says that he does not command."""
        return self.source == HUMAN and np.shape(self.action) == (0,)


@dataclasses.dataclass(frozen=True)
class AppliedAction:
    """What the arm was really told in answer to a tick.

    Attributes:
        stamp_ns: stamp of the tick.
        action: float64 (A,), after limits.
        requested: float64 (A,), before limits; NaN when its shape was unusable.
        source: who asked (``HUMAN``, ``POLICY``) or ``HOLD``.
        reasons: names of the limits that changed the request (empty: unchanged).
        intervention: a human overrode a policy.
        applied_ns: when the action left for the arm, by the robot's clock (None: the stamp of
            the tick, filled in).
        late: it left later than the arm's ``action_latency`` after the tick.
    """

    stamp_ns: int
    action: np.ndarray
    requested: np.ndarray
    source: str
    reasons: Tuple[str, ...] = ()
    intervention: bool = False
    applied_ns: Optional[int] = None
    late: bool = False

    def __post_init__(self) -> None:
        if self.applied_ns is None:
            object.__setattr__(self, "applied_ns", self.stamp_ns)

    @property
    def limited(self) -> bool:
        """Whether a limit changed the request."""
        return bool(self.reasons)

    @property
    def held(self) -> bool:
        """Whether no actor answered the tick in time, so that the arm held still."""
        return self.source == HOLD
