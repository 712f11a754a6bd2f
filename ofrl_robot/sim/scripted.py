"""Scripted policies: ground truth in, action out. They never see the environment."""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np

from ofrl_robot import specs
from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.tasks import find

GAIN = 7.0  # action per metre of error: asks for 1.4 x the error, as the position loop lags
GRIPPER_COMMAND = 0.7
ACTION_LIMIT = 0.9  # of recorded actions, after noise

ALIGN_RADIUS = 0.03  # xy error above which the gripper does not descend, m
PICK_TOLERANCE = 0.02  # distance to the pick point at which the gripper closes, m
PICK_HEIGHT_STD = 0.01  # natural variation between episodes, m
# Between "the block is well inside the fingers" and "the fingertips touch the table": a pick
# point below that is never reached, and one above it closes on air.
PICK_HEIGHT_RANGE = (-0.325, -0.300)
DESCENT_PATIENCE = 3  # steps without getting lower after which the gripper closes anyway
HELD_REACH = 0.09  # the object is in the gripper while this close to the end effector, m
LIFTED_HEIGHT = -0.23


class ScriptedPolicy:
    """Base class: noise, clipping and the seed; subclasses decide (:meth:`decide`).

    Args:
        noise: standard deviation of the normal noise added to all 8 action entries.
    """

    pick_height = -0.31

    def __init__(self, noise: float = 0.0) -> None:
        if not noise >= 0.0:
            raise ConfigError("noise {} is negative".format(noise), "use 0 or more, e.g. 0.1")
        self.noise = float(noise)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode; everything random in it follows from ``seed``."""
        self._rng = np.random.default_rng(seed)
        height = self.pick_height + self._rng.normal(0.0, PICK_HEIGHT_STD)
        self._pick_z = float(np.clip(height, *PICK_HEIGHT_RANGE))
        self._lowest = np.inf
        self._stalled = 0

    def act(self, ground_truth: Dict[str, np.ndarray]) -> np.ndarray:
        """Next action, float64 (8,) within +-0.9.

        Args:
            ground_truth: ``WidowXEnv.ground_truth()`` of the current step.
        """
        action = self.decide(ground_truth)
        action += self._rng.normal(0.0, self.noise, action.shape)
        return np.clip(action, -ACTION_LIMIT, ACTION_LIMIT)

    def decide(self, truth: Dict[str, np.ndarray]) -> np.ndarray:
        """Noise-free action (8,) for the current step."""
        raise NotImplementedError

    def _pick(self, truth: Dict[str, np.ndarray]) -> np.ndarray:
        """Approach with the open gripper: over the object, then down, then close."""
        ee, target = truth["ee_position"], truth["object_position"].copy()
        target[2] = self._pick_z
        error = target - ee
        above = float(np.linalg.norm(error[:2])) < ALIGN_RADIUS
        if above and ee[2] < self._pick_z + 2.0 * PICK_TOLERANCE:
            # Noise and contact can hold the fingers just short of the pick point for good.
            self._stalled = self._stalled + 1 if ee[2] > self._lowest - 1e-3 else 0
            self._lowest = min(self._lowest, float(ee[2]))
        if float(np.linalg.norm(error)) < PICK_TOLERANCE or self._stalled >= DESCENT_PATIENCE:
            return _action(error, gripper=-GRIPPER_COMMAND)
        if not above:
            error[2] = 0.0
        return _action(error)


class GraspPolicy(ScriptedPolicy):
    """Pick the object up and hold it."""

    hold_height = -0.16  # of the end effector, m

    def decide(self, truth: Dict[str, np.ndarray]) -> np.ndarray:
        if truth["gripper_open"][0] > 0.5:
            return self._pick(truth)
        ee, item = truth["ee_position"], truth["object_position"]
        if float(np.linalg.norm(item - ee)) > HELD_REACH:
            self._lowest, self._stalled = np.inf, 0
            return _action(np.zeros(3), gripper=GRIPPER_COMMAND)  # missed: open and retry
        # Keep commanding "closed": one noisy step must not let go of the object.
        return _action(np.array([0.0, 0.0, self.hold_height - ee[2]]), gripper=-GRIPPER_COMMAND)


class PickPlacePolicy(ScriptedPolicy):
    """Pick the object up, carry it over the container, drop it, stay there."""

    pick_height = -0.32
    carry_height = -0.20
    drop_radius = 0.02

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._dropped = False

    def decide(self, truth: Dict[str, np.ndarray]) -> np.ndarray:
        ee, item = truth["ee_position"], truth["object_position"]
        over = np.array([*truth["container_position"][:2], self.carry_height])
        if self._dropped:
            return _action(over - ee)
        if truth["gripper_open"][0] > 0.5:
            return self._pick(truth)
        if float(np.linalg.norm(item - ee)) > HELD_REACH:
            self._lowest, self._stalled = np.inf, 0
            return _action(np.zeros(3), gripper=GRIPPER_COMMAND)  # missed: open and retry
        if item[2] < LIFTED_HEIGHT - 0.05:
            # Straight up first, or the object is dragged against the container's rim.
            return _action(
                np.array([0.0, 0.0, self.carry_height - ee[2]]), gripper=-GRIPPER_COMMAND
            )
        # What must be over the container is the object, not the gripper.
        if float(np.linalg.norm(item[:2] - over[:2])) < self.drop_radius:
            self._dropped = True
            return _action(np.zeros(3), gripper=GRIPPER_COMMAND)
        error = np.array([*(over[:2] - item[:2]), over[2] - ee[2]])
        return _action(error, gripper=-GRIPPER_COMMAND)


def _action(error: np.ndarray, gripper: float = 0.0) -> np.ndarray:
    """Action (8,) that moves by ``error`` (3,) m, without rotation or neutral."""
    action = np.zeros(specs.WIDOWX_ACTION.size)
    action[:3] = np.clip(GAIN * error, -1.0, 1.0)
    action[6] = gripper
    return action


_POLICIES: Dict[str, Callable[[float], ScriptedPolicy]] = {
    "grasp": GraspPolicy,
    "pick_place": PickPlacePolicy,
}


def make_scripted(task_id: str, noise: float = 0.1) -> ScriptedPolicy:
    """The scripted policy that ``task_id`` names in its spec.

    Args:
        task_id: a key of ``ofrl_robot.sim.TASK_IDS``.
        noise: standard deviation of the action noise (0.1 is what data sets use).
    """
    return _POLICIES[find(task_id).spec.scripted_policy](noise)
