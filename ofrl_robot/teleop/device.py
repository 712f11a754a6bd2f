"""Define a teleoperation device, and find one by name."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Protocol

import numpy as np

from ofrl_robot.control.signals import Tick
from ofrl_robot.registry import Registry
from ofrl_robot.specs import ActionSpec


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """What a device is built from; its factory in the registry gets one.

    Attributes:
        name: name in the registry (``teleop:=name``).
        task: task id or name.
        action_spec: what an action is on the robot at the other end.
        settings: further settings of this kind of device, by name.
    """

    name: str
    task: str
    action_spec: ActionSpec
    settings: Dict[str, Any] = dataclasses.field(default_factory=dict)


class TeleopDevice(Protocol):
    """What sits in the operator's seat. It is an ``ActionSource``.

    Attributes:
        source: ``signals.HUMAN``.
        needs_ground_truth: it reads ``Tick.ground_truth``, so it works in simulation only.
        settings: what to store of it with every episode (JSON values).
    """

    source: str
    needs_ground_truth: bool
    settings: Dict[str, Any]

    def reset(self, seed: int) -> None:
        """Start an episode."""

    def act(self, tick: Tick) -> Optional[np.ndarray]:
        """Return the normalised action (A,) for this tick; None while it is not touched."""


# An entry is a factory: DeviceConfig -> TeleopDevice.
DEVICES = Registry(
    "teleoperation device",
    "ofrl_robot.teleop",
    {
        "scripted": "ofrl_robot.teleop.scripted:make",
        "reach_grasp": "ofrl_robot.teleop.reach_grasp:make",
        "replay": "ofrl_robot.teleop.replay:make",
    },
)


def make_device(config: DeviceConfig) -> TeleopDevice:
    """Build the device that ``config`` names. Raises ConfigError for an unknown name or setting."""
    return DEVICES.load(config.name)(config)
