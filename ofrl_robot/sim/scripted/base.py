"""Base of the scripted policies: noise, clipping, the seed, the approach to an object."""

from __future__ import annotations

from typing import ClassVar, Dict, Sequence

import numpy as np

from ofrl_robot import specs
from ofrl_robot.errors import ConfigError

Truth = Dict[str, np.ndarray]

GAIN = 7.0  # action per metre of error: asks for 1.4 x the error, because the position loop lags
GRIPPER_COMMAND = 0.7
NEUTRAL_COMMAND = 0.7
ACTION_LIMIT = 0.9  # largest entry of a recorded action, after noise

ALIGN_RADIUS = 0.03  # xy error above which the gripper does not descend, m
PICK_TOLERANCE = 0.02  # distance to the pick point at which the gripper closes, m
PICK_HEIGHT_STD = 0.01  # natural variation between episodes, m
# Below this range the fingertips touch the table and the pick point is never reached; above it the
# fingers close on air.
PICK_HEIGHT_RANGE = (-0.325, -0.300)
DESCENT_PATIENCE = 3  # steps without descending after which the gripper closes anyway
HELD_REACH = 0.09  # an object this close to the end effector is in the gripper, m
LIFTED_HEIGHT = -0.28  # height of a carried object that clears every rim, m
OPEN, CLOSE = GRIPPER_COMMAND, -GRIPPER_COMMAND


class ScriptedPolicy:
    """Base class of scripted policies: noise, clipping and seed. Subclasses override `decide`.

    Args:
        noise: standard deviation of the normal noise added to all 8 action entries.
    """

    name: ClassVar[str]
    needs: ClassVar[Sequence[str]] = ("object_position",)  # keys of the ground truth

    def __init__(self, noise: float = 0.0) -> None:
        if not noise >= 0.0:
            raise ConfigError(f"noise {noise} is negative", "use 0 or more, e.g. 0.1")
        self.noise = float(noise)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode; ``seed`` determines everything random in it."""
        self.rng = np.random.default_rng(seed)
        self.begin()

    def act(self, ground_truth: Truth) -> np.ndarray:
        """Return the next action, float64 (8,) within +-0.9.

        Args:
            ground_truth: ``WidowXEnv.ground_truth()`` of the current step.

        Raises:
            ConfigError: the task lacks an object that this policy needs.
        """
        missing = [key for key in self.needs if key not in ground_truth]
        if missing:
            raise ConfigError(
                f"policy {self.name!r} needs {' and '.join(missing)}",
                "choose a task that has it, or another policy",
            )
        action = self.decide(ground_truth)
        action = action + self.rng.normal(0.0, self.noise, action.shape)
        return np.clip(action, -ACTION_LIMIT, ACTION_LIMIT)

    def begin(self) -> None:
        """Forget the last episode; draw from ``self.rng`` what varies between episodes."""

    def decide(self, truth: Truth) -> np.ndarray:
        """Return the noise-free action (8,) for the current step."""
        raise NotImplementedError


class Picker:
    """Approach with the open gripper: over the object, then down, then close.

    Args:
        rng: source of this episode's pick height.
        height: mean of the pick height, m.
        spread: standard deviation of the pick height, m.
        tolerance: distance to the pick point at which the gripper closes, m.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        height: float,
        spread: float = PICK_HEIGHT_STD,
        tolerance: float = PICK_TOLERANCE,
    ) -> None:
        self._tolerance = tolerance
        drawn = height + rng.normal(0.0, spread)
        self._height = float(np.clip(drawn, *PICK_HEIGHT_RANGE))
        self.retry()

    def retry(self) -> None:
        """Start the descent again after a grasp that missed."""
        self._lowest = np.inf
        self._stalled = 0

    def approach(self, ee: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return an action (8,) towards ``item`` (3,) m for an end effector at ``ee`` (3,) m."""
        error = np.array([item[0], item[1], self._height]) - ee
        above = float(np.linalg.norm(error[:2])) < ALIGN_RADIUS
        if above and ee[2] < self._height + 2.0 * self._tolerance:
            # Noise and contact can keep the fingers just short of the pick point forever.
            self._stalled = self._stalled + 1 if ee[2] > self._lowest - 1e-3 else 0
            self._lowest = min(self._lowest, float(ee[2]))
        if float(np.linalg.norm(error)) < self._tolerance or self._stalled >= DESCENT_PATIENCE:
            return move(error, gripper=CLOSE)
        if not above:
            error[2] = 0.0
        return move(error)


def move(error: Sequence[float], gripper: float = 0.0, neutral: float = 0.0) -> np.ndarray:
    """Return an action (8,) that moves by ``error`` (3,) m, without rotation."""
    action = np.zeros(specs.WIDOWX_ACTION.size)
    action[:3] = np.clip(GAIN * np.asarray(error), -1.0, 1.0)
    action[6] = gripper
    action[7] = neutral
    return action


def held(truth: Truth, key: str = "object_position") -> bool:
    """Return whether the gripper is closed and near the object."""
    distance = float(np.linalg.norm(truth[key] - truth["ee_position"]))
    return truth["gripper_open"][0] < 0.5 and distance < HELD_REACH
