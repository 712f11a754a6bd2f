"""Define what the control loop needs from outside: an arm, cameras, a task, an action source.

Each is a protocol: any class with these members fits, none has to inherit. ``Rig`` (``rig.py``)
composes an arm, cameras and a task into ticks; an action source answers them.

Threads: one thread, the control thread, calls everything here, in turn. :meth:`Arm.stop` may be
called from any thread, also while the control thread is inside another method; :meth:`Arm.health`
is called from a thread of its own.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Mapping, Optional, Protocol, Tuple, runtime_checkable

import numpy as np

from ofrl_robot.control.health import Health, HealthLimits
from ofrl_robot.control.limiter import Limits
from ofrl_robot.control.signals import ArmState, Sent, Setpoint, Tick
from ofrl_robot.control.timing import Timing
from ofrl_robot.specs import ActionSpec, CameraSpec


class Arm(Protocol):
    """One arm, real or simulated. A driver is this and nothing else.

    Attributes:
        name: kind of the arm; its namespace, and ``robot`` in every episode.
        action_spec: what an action is, with its frame of reference.
        state_names, state_units: meaning and unit of each entry of ``ArmState.vector``.
        state_frame: frame of reference of the measured poses, ``specs.WORLD`` or ``specs.BASE``.
        base_pose: position (3,) m and quaternion xyzw (4,) of the base link in the world, or None
            when the arm knows no world.
        control_rate_hz: commands per second.
        limits: what a command may ask for; joint limits are those of the arm itself.
        timing: how long things may take.
        health_limits: what it may report of itself.
        joint_names: joints that every state must have (``joint_positions``).
        relative_to_target: whether an action moves the previous target (a hold then cannot let
            the arm creep), or the measured pose (roboverse's convention).
        settings: what to store of it with every episode (JSON values).
    """

    name: str
    action_spec: ActionSpec
    state_names: Tuple[str, ...]
    state_units: Tuple[str, ...]
    state_frame: str
    base_pose: Optional[Tuple[Tuple[float, ...], Tuple[float, ...]]]
    control_rate_hz: float
    limits: Limits
    timing: Timing
    health_limits: HealthLimits
    joint_names: Tuple[str, ...]
    relative_to_target: bool
    settings: Dict[str, Any]

    def now_ns(self) -> int:
        """Return the time by the clock that stamps its states, ns. Never blocks."""

    def state(self) -> ArmState:
        """Return the newest measured state. Never blocks."""

    def command(self, setpoint: Setpoint) -> Sent:
        """Start to carry out one step; on hardware it returns at once.

        A target without inverse kinematics or outside the arm's own joint limits is refused: an
        ordinary outcome, not an error.
        """

    def health(self) -> Health:
        """Ask the motors how they are; called about once a second, may take a while."""

    def stop(self) -> None:
        """Hold still, now. May be called from any thread, at any time, and twice."""

    def rearm(self) -> None:
        """Make the arm ready after a stop: clear errors, re-read where it stands. Moves nothing.

        Raises:
            RobotError: it cannot be made ready; the message says what a person has to do.
        """

    def home(self) -> None:
        """Move to the start pose of an episode; returns when it is there (seconds).

        Raises:
            RobotError: it cannot get there.
        """

    def close(self) -> None:
        """Release the arm. Calling it again does nothing."""


class CameraFrame(Protocol):
    """A captured frame: when, and the pixels if they are in this process."""

    @property
    def stamp_ns(self) -> int:
        """Time of capture, ns since the epoch."""

    @property
    def pixels(self) -> Optional[np.ndarray]:
        """Raw uint8 RGB (h, w, 3); None when the pixels travel on a topic of their own."""


class Cameras(Protocol):
    """The cameras of a rig.

    Attributes:
        specs: every camera, in order, as it is recorded.
    """

    specs: Tuple[CameraSpec, ...]

    def newest(self) -> Mapping[str, CameraFrame]:
        """Return the newest frame of each camera, by name. Never waits for one.

        Raises:
            CameraStoppedError: a camera has no usable frame; the message names it.
        """

    def close(self) -> None:
        """Release the cameras. Calling it again does nothing."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a task says after a step: reward of the step, and Gymnasium's two ends."""

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False


class Task(Protocol):
    """What is to be done, when it is over, and what a reset is.

    Attributes:
        name: task id, ``task`` in every episode.
        instruction: the task in a sentence, for people.
        horizon: steps of an episode.
        rewards_known: whether rewards and success can be measured here. If not, an episode that
            reaches its horizon stays unlabelled.
        has_ground_truth: whether :meth:`ground_truth` gives anything (simulators).
        settings: what to store of it with every episode (JSON values).
    """

    name: str
    instruction: str
    horizon: int
    rewards_known: bool
    has_ground_truth: bool
    settings: Dict[str, Any]

    def arrange(self, seed: int) -> str:
        """Prepare the scene of an episode; called when the arm is at its start pose.

        Args:
            seed: places the objects in a simulator; a real scene ignores it.

        Returns:
            What a person has to do and confirm before the episode may start; empty when the
            scene is ready.
        """

    def outcome(self, step: int) -> Outcome:
        """Return reward and end after transition ``step`` (1, 2, ...)."""

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, in the world's frame; empty on hardware."""


class ActionSource(Protocol):
    """Answers ticks with actions: a teleoperation device or a policy.

    Attributes:
        source: ``signals.HUMAN`` or ``signals.POLICY``; decides its priority.
    """

    source: str

    def reset(self, seed: int) -> None:
        """Start an episode."""

    def act(self, tick: Tick) -> Optional[np.ndarray]:
        """Return the normalised action (A,) for this tick; None to say nothing."""


@runtime_checkable
class Remarks(Protocol):
    """An action source that has something to say of the episode, to be stored with it."""

    def remarks(self) -> Dict[str, Any]:
        """Return how far the pictures so far are outside the training data; empty if unknown."""
