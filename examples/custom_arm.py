"""Add an arm of your own: one class with the members of ``control.protocols.Arm``.

This one is a point that moves at once where it is told: small enough to read, complete enough to
record episodes with. A driver of a real arm has the same members; ``command`` then sends a target
to the arm and returns, ``home`` moves it and waits, ``state`` returns what was measured last.

To use it over ROS (``roslaunch ofrl_robot collect.launch robot:=point ...``), make a small package
of it whose setup.cfg names it, and install that package into the same environment::

    [options.entry_points]
    ofrl_robot.arms =
        point = custom_arm:PointArm

Run this file to record two episodes:  python examples/custom_arm.py datasets/point
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ofrl_robot.control.health import Health, HealthLimits
from ofrl_robot.control.limiter import Limits
from ofrl_robot.control.signals import HUMAN, ArmState, Sent, Setpoint
from ofrl_robot.control.timing import Timing
from ofrl_robot.recording.session import episode_meta, record_episodes
from ofrl_robot.robots.config import ArmConfig, ArmFile
from ofrl_robot.robots.operator_task import OperatorTask
from ofrl_robot.robots.registry import ARMS, make_rig
from ofrl_robot.specs import BASE, ActionSpec, CameraSpec

HOME = np.array([0.2, 0.0, 0.2])  # m, base frame


class PointArm:
    """A point with a gripper, in the frame of its base.

    Args:
        config: limits, and settings such as ``settings:="{rate: 10}"`` on the launch line.
    """

    name = "point"
    action_spec = ActionSpec(("x", "y", "z", "gripper"), ("m", "m", "m", "1"), (0.05,) * 4, BASE)
    state_names, state_units = ("ee_x", "ee_y", "ee_z", "gripper_open"), ("m", "m", "m", "1")
    state_frame = BASE
    base_pose = None  # it knows no world
    joint_names = ()
    relative_to_target = True  # an action moves the previous target

    def __init__(self, config: ArmConfig) -> None:
        self.limits, self.timing = config.limits, config.timing
        self.health_limits = config.health
        self.control_rate_hz = float(config.settings.get("rate", 20.0))
        self.settings = dict(config.settings)
        self._position, self._gripper_open = HOME.copy(), 1.0

    def now_ns(self) -> int:
        """Return the time of the clock that stamps the states."""
        return time.time_ns()

    def state(self) -> ArmState:
        """Return what was measured last."""
        return ArmState(
            stamp_ns=self.now_ns(),
            vector=np.append(self._position, self._gripper_open),
            position=self._position.copy(),
            orientation=np.array([0.0, 0.0, 0.0, 1.0]),
        )

    def command(self, setpoint: Setpoint) -> Sent:
        """Go to the target; a real arm would start to move and return at once."""
        self._position = setpoint.position.copy()
        if setpoint.gripper is not None:
            self._gripper_open = setpoint.gripper
        return Sent()

    def health(self) -> Health:
        """Ask the motors how they are; the point has none."""
        return Health()

    def stop(self) -> None:
        """Hold still; may be called from any thread. The point always does."""

    def rearm(self) -> None:
        """Clear errors after a stop; the point has none."""

    def home(self) -> None:
        """Go to the start pose."""
        self._position, self._gripper_open = HOME.copy(), 1.0

    def close(self) -> None:
        """Release the arm."""


class GreyFrame(NamedTuple):
    """A frame of one grey level."""

    pixels: np.ndarray
    stamp_ns: int


class GreyCameras:
    """Cameras that need no device; see ``custom_camera.py`` for a camera of your own."""

    specs = (CameraSpec("front", 16, 16),)

    def newest(self):
        """Return the newest frame of each camera."""
        return {"front": GreyFrame(np.full((16, 16, 3), 128, np.uint8), time.time_ns())}

    def close(self) -> None:
        """Release the cameras."""


class Down:
    """An action source that moves down; see ``custom_teleop.py`` for one of your own."""

    source = HUMAN

    def reset(self, seed: int) -> None:
        """Start an episode."""

    def act(self, tick) -> np.ndarray:
        """Return a step down with the gripper as it is."""
        return np.array([0.0, 0.0, -0.1, 0.0])


def main(out: str) -> None:
    """Record two episodes of five steps into ``out``."""
    ARMS.register("point", PointArm)
    limits = Limits(BASE, (0.0, -0.3, 0.0), (0.4, 0.3, 0.4), 0.05, 10.0)
    file = ArmFile(limits, Timing(max_silence=0.2), HealthLimits())
    config = ArmConfig("point", "reach-down", file)
    rig = make_rig(config, GreyCameras(), OperatorTask("reach-down", 5, "move down"))
    meta = episode_meta(rig, actor="example", operator="me")
    record_episodes(rig, Down(), Path(out), 2, 0, meta, confirm=print)
    rig.close()


if __name__ == "__main__":
    main(sys.argv[1])
