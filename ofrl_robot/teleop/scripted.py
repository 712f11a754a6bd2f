"""Put a scripted policy in the operator's seat (simulation)."""

from __future__ import annotations

import math
from typing import Any, Dict

import numpy as np

from ofrl_robot.control.signals import HUMAN, Tick
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.sim.scripted import make_scripted
from ofrl_robot.specs import WIDOWX_ACTION, ActionSpec
from ofrl_robot.teleop.device import DeviceConfig


class ScriptedDevice:
    """A scripted policy as a :class:`~ofrl_robot.teleop.device.TeleopDevice`.

    It reads the simulator's ground truth.

    Args:
        task: simulator task id.
        noise: standard deviation of the action noise (1 = full scale).
        policy: name of the scripted policy; empty for the one that solves the task.
        spec: what an action is on the robot. It may leave entries out (the neutral action, a
            rotation) and have other scales: the arm then approaches in smaller steps.

    Raises:
        ConfigError: an entry of ``spec`` is none of the simulator's.
    """

    source = HUMAN
    needs_ground_truth = True

    def __init__(
        self,
        task: str,
        noise: float = 0.1,
        policy: str = "",
        spec: ActionSpec = WIDOWX_ACTION,
    ) -> None:
        foreign = [name for name in spec.names if name not in WIDOWX_ACTION.names]
        if foreign:
            raise ConfigError(
                f"scripted teleoperation has no entry {foreign[0]!r}", "use another device"
            )
        self._entries = [WIDOWX_ACTION.names.index(name) for name in spec.names]
        self._policy = make_scripted(task, noise, policy)
        self.settings: Dict[str, Any] = {"policy": self._policy.name, "noise": self._policy.noise}

    def reset(self, seed: int) -> None:
        """Start an episode; ``seed`` fixes the noise."""
        self._policy.reset(seed)

    def act(self, tick: Tick) -> np.ndarray:
        """Return the script's action (A,). Raises RobotError without ground truth."""
        if not tick.ground_truth:
            raise RobotError(
                "the tick carries no ground truth", "use scripted teleoperation in simulation only"
            )
        return self._policy.act(tick.ground_truth)[self._entries]


def make(config: DeviceConfig) -> ScriptedDevice:
    """Build the device from the settings ``noise`` and ``policy`` ("auto" or empty: the task's)."""
    settings = {"noise": 0.1, "policy": "", **config.settings}
    unknown = sorted(set(settings) - {"noise", "policy"})
    if unknown:
        raise ConfigError(
            f"scripted teleoperation has no setting {unknown[0]!r}", "use noise or policy"
        )
    noise, policy = settings["noise"], str(settings["policy"])
    number = isinstance(noise, (int, float)) and not isinstance(noise, bool)
    if not (number and math.isfinite(noise) and noise >= 0):
        raise ConfigError(f"noise is {noise!r}", "use 0 or more")
    name = "" if policy == "auto" else policy
    return ScriptedDevice(config.task, float(noise), name, config.action_spec)
