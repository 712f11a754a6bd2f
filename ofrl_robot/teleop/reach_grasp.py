"""Reach for an object, grasp it and lift it: a script in the operator's seat, for any arm.

It reads where the object and the fingertips are, so it works where somebody knows that: with a
twin, or with markers. It knows no arm, no rate and no action scale but those of the action spec.
"""

from __future__ import annotations

import math
from typing import Any, Dict

import numpy as np

from ofrl_robot.control.signals import HUMAN, Tick
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.specs import ActionSpec
from ofrl_robot.teleop.device import DeviceConfig

_NEEDS = ("grip_position", "object_position", "gripper_opening")
_GAIN = 0.7  # of the error that a step asks for: measured poses lag, and 1 would overshoot
_ALIGNED = 0.005  # m beside the object from which the fingers go down: 6 mm is their clearance
_REACHED = 0.008  # m from the object at which they close
_HOVER = 0.07  # m above the object
_SPREAD = 0.008  # m above the object's middle: the height of the grasp varies by that
_CLOSED_STILL = 0.0005  # m per step: fingers that move less have closed
_CLOSING_STEPS = 2  # at least
_FULL_NOISE = 0.04  # m beside the goal; nearer, the noise is less, or the grasp would be luck
_LEAST_NOISE = 0.25  # of it
_LIMIT = 0.95  # largest entry of an action
_SETTINGS = {"noise": 0.1, "lift": 0.12}


class ReachGrasp:
    """Implements :class:`~ofrl_robot.teleop.device.TeleopDevice`.

    Ground truth, m, in the frame of the actions: ``grip_position`` (3,) between the fingertips,
    ``object_position`` (3,), ``gripper_opening`` (1,).

    Args:
        spec: what an action is; it needs x, y, z and gripper.
        noise: standard deviation of the noise on position entries (1 = full scale).
        lift: height to which the object is lifted, m.
    """

    source = HUMAN
    needs_ground_truth = True

    def __init__(self, spec: ActionSpec, noise: float = 0.1, lift: float = 0.12) -> None:
        missing = [name for name in ("x", "y", "z", "gripper") if name not in spec.names]
        if missing:
            raise ConfigError(
                f"the robot has no action {', '.join(missing)}", "choose another teleop:="
            )
        self._axes = [spec.names.index(name) for name in "xyz"]
        self._gripper = spec.names.index("gripper")
        self._size, self._scale = spec.size, np.array(spec.scale)[self._axes]
        self._noise, self._lift = noise, lift
        self.settings: Dict[str, Any] = {"noise": noise, "lift": lift}
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode; ``seed`` fixes the noise and the height of the grasp."""
        self._rng = np.random.default_rng(seed)
        self._offset = float(self._rng.uniform(0.0, _SPREAD))
        self._closing = 0  # steps since the fingers were told to close
        self._opening = math.inf
        self._top = 0.0

    def act(self, tick: Tick) -> np.ndarray:
        """Return the next action (A,). Raises RobotError without ground truth."""
        truth = tick.ground_truth
        if any(name not in truth for name in _NEEDS):
            raise RobotError(
                f"the tick carries no {' and '.join(n for n in _NEEDS if n not in truth)}",
                "use this device with a twin that publishes them",
            )
        grip, item = truth["grip_position"], truth["object_position"]
        opening = float(truth["gripper_opening"][0])
        error = item + [0.0, 0.0, self._offset] - grip
        if self._closing:
            error = self._lifting(grip, opening)
        elif float(np.linalg.norm(error)) < _REACHED:
            self._closing, self._top = 1, float(grip[2]) + self._lift
            error = np.zeros(3)
        elif float(np.linalg.norm(error[:2])) > _ALIGNED:
            error[2] += _HOVER
        self._opening = opening
        return self._action(error)

    def _lifting(self, grip: np.ndarray, opening: float) -> np.ndarray:
        """Return the way to go (3,) m once the fingers close: none until they are still."""
        still = abs(opening - self._opening) < _CLOSED_STILL
        if self._closing <= _CLOSING_STEPS or (self._closing < 10 * _CLOSING_STEPS and not still):
            self._closing += 1
            return np.zeros(3)
        self._closing = 100 * _CLOSING_STEPS  # never wait again
        return np.array([0.0, 0.0, self._top - grip[2]])

    def _action(self, error: np.ndarray) -> np.ndarray:
        action = np.zeros(self._size)
        share = float(np.clip(np.linalg.norm(error[:2]) / _FULL_NOISE, _LEAST_NOISE, 1.0))
        noise = share * self._rng.normal(0.0, self._noise, 3)
        if 0 < self._closing <= 10 * _CLOSING_STEPS:
            noise[:] = 0.0  # the fingers must not move while they close
        action[self._axes] = np.clip(_GAIN * error / self._scale + noise, -_LIMIT, _LIMIT)
        action[self._gripper] = -0.8 if self._closing else 0.8
        return action


def make(config: DeviceConfig) -> ReachGrasp:
    """Build the device from the settings ``noise`` and ``lift`` (m)."""
    unknown = sorted(set(config.settings) - set(_SETTINGS))
    if unknown:
        raise ConfigError(f"reach_grasp has no setting {unknown[0]!r}", "use noise or lift")
    values = {**_SETTINGS, **config.settings}
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} is {value!r}", "use 0 or more")
    return ReachGrasp(config.action_spec, float(values["noise"]), float(values["lift"]))
