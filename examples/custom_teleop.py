"""Add a teleoperation device of your own: one class with the members of ``TeleopDevice``.

This one circles while its switch is on. A real device reads a joystick; it returns None while it
is not touched, and the arm then holds still.

To use it over ROS (``roslaunch ofrl_robot collect.launch teleop:=circle ...``), make a small
package of it whose setup.cfg names it::

    [options.entry_points]
    ofrl_robot.teleop =
        circle = custom_teleop:CircleDevice

Run this file to record an episode in simulation:  python examples/custom_teleop.py datasets/circle
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Optional

import numpy as np

from ofrl_robot.control.signals import HUMAN, Tick
from ofrl_robot.recording.session import episode_meta, record_episodes
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import make_rig
from ofrl_robot.teleop.device import DEVICES, DeviceConfig, make_device


class CircleDevice:
    """Moves the end effector in a horizontal circle.

    Args:
        config: settings are ``size`` (0 to 1, how far each step goes) and ``rests`` (every how
            many steps it is let go for one step; 0: never).
    """

    source = HUMAN
    needs_ground_truth = False

    def __init__(self, config: DeviceConfig) -> None:
        self.settings = {"size": 0.2, "rests": 4, **config.settings}
        self._names = config.action_spec.names

    def reset(self, seed: int) -> None:
        """Start an episode."""

    def act(self, tick: Tick) -> Optional[np.ndarray]:
        """Return a step along the circle; None while nothing is pressed."""
        rests = self.settings["rests"]
        if rests and tick.step % rests == rests - 1:
            return None
        action = np.zeros(len(self._names))
        angle = 2.0 * math.pi * tick.step / 16
        action[self._names.index("x")] = self.settings["size"] * math.cos(angle)
        action[self._names.index("y")] = self.settings["size"] * math.sin(angle)
        return action


def main(out: str) -> None:
    """Record one episode of the simulated arm into ``out``."""
    DEVICES.register("circle", CircleDevice)
    rig = make_rig(ArmConfig("sim", "Widow250SingleObjGrasp-v0", load_arm_file("sim")))
    device = make_device(DeviceConfig("circle", rig.task.name, rig.action_spec, {"size": 0.3}))
    meta = episode_meta(rig, device.settings, actor="circle")
    record_episodes(rig, device, Path(out), 1, 0, meta)
    rig.close()


if __name__ == "__main__":
    main(sys.argv[1])
