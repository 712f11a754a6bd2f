"""The physics behind an environment: the embedded one here, the real roboverse beside it."""

from __future__ import annotations

from typing import Any, Dict, Optional, Protocol, Tuple

import numpy as np

from ofrl_robot import specs
from ofrl_robot.errors import RobotError
from ofrl_robot.sim.arm import IDEAL_ACTUATORS, STEP_SUBSTEPS, Actuators, WidowXArm
from ofrl_robot.sim.tasks.base import Task, TaskSpec
from ofrl_robot.sim.world import Camera, World

TOGGLE_SUBSTEPS = 75  # the fingers need longer than one control step
NEUTRAL_SUBSTEPS = 75


class Simulation(Protocol):
    """One arm, one table, one task: what an environment drives. Knows no spaces, no horizon."""

    task: TaskSpec

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode; ``rng`` is the only source of chance."""

    def step(self, action: np.ndarray) -> None:
        """Carry out one action, float64 (8,) within [-1, 1]."""

    def image(self, size: int) -> np.ndarray:
        """What the camera sees: uint8 RGB (size, size, 3)."""

    def state(self) -> np.ndarray:
        """Float64 (10,) in the order of ``specs.WIDOWX_STATE_NAMES``."""

    def object_pose(self) -> Tuple[np.ndarray, np.ndarray]:
        """Target object: position (3,) m and quaternion xyzw (4,), float64, world axes."""

    def info(self) -> Dict[str, Any]:
        """Success conditions now, by roboverse's key names."""

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """What scripted policies read: float64 arrays, m, world axes."""

    def joints(self) -> Dict[str, float]:
        """Joint positions by the vendor's names, rad (fingers: m)."""

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""


class EmbeddedSimulation:
    """Our own PyBullet world; any number of them in one process.

    Args:
        task: the task, built anew at each reset.
        actuators: imperfections of the motors.
        stale_gripper_flag: let the gripper flag keep its value through a neutral action, so
            that the step after it drives the fingers back: roboverse's defect, with which its
            published data was made.
    """

    def __init__(
        self,
        task: Task,
        actuators: Actuators = IDEAL_ACTUATORS,
        stale_gripper_flag: bool = False,
    ) -> None:
        self.task = task.spec
        self._placement = task
        self._actuators = actuators
        self._stale_gripper_flag = stale_gripper_flag
        self._world: Optional[World] = None
        self._arm: Optional[WidowXArm] = None
        self._camera = Camera((0.6, 0.2, -0.28), distance=0.29, yaw_deg=180.0, pitch_deg=-40.0)
        self._scale = np.array(specs.WIDOWX_ACTION.scale)
        self._threshold = specs.WIDOWX_ACTION.gripper_threshold

    def reset(self, rng: np.random.Generator) -> None:
        """Rebuild the world and place the objects.

        Raises:
            ConfigError: the objects do not fit; the simulation then needs another reset.
        """
        self._arm = None  # until all is in place nothing may be stepped
        if self._world is None:
            self._world = World()
        world = self._world
        world.clear()
        arm = WidowXArm(world, self._actuators)
        self._placement.build(world, rng)
        # The objects fell for some substeps; the arm must not have sagged meanwhile.
        arm.reset_joints()
        self._placement.start(world, arm)
        self._arm = arm

    def step(self, action: np.ndarray) -> None:
        """10 substeps, 75 for a gripper toggle, 75 more for a neutral action."""
        world, arm = self._running()
        gripper, neutral = action[6], action[7]
        if arm.gripper_open:
            toggled = gripper < -self._threshold
        else:
            toggled = gripper > self._threshold
        if toggled:
            arm.gripper_open = not arm.gripper_open
        arm.command_delta(action[:3] * self._scale[:3], action[3:6] * self._scale[3:6])
        world.step(TOGGLE_SUBSTEPS if toggled else STEP_SUBSTEPS)
        if self.task.use_neutral_action and neutral > self._threshold:
            flag = arm.gripper_open
            arm.command_neutral(self.task.neutral_gripper_open)
            if self._stale_gripper_flag:
                arm.gripper_open = flag
            world.step(NEUTRAL_SUBSTEPS)

    def image(self, size: int) -> np.ndarray:
        return self._camera.render(self._running()[0], size)

    def state(self) -> np.ndarray:
        return self._running()[1].state()

    def object_pose(self) -> Tuple[np.ndarray, np.ndarray]:
        return self._placement.target_pose(self._running()[0])

    def info(self) -> Dict[str, Any]:
        world, arm = self._running()
        return dict(self._placement.info(world, arm.end_effector()[0]))

    def ground_truth(self) -> Dict[str, np.ndarray]:
        world, arm = self._running()
        position, orientation = arm.end_effector()
        truth = {
            "ee_position": position,
            "ee_orientation": orientation,
            "gripper_open": np.array([float(arm.gripper_open)]),
        }
        truth.update(self._placement.ground_truth(world))
        return truth

    def joints(self) -> Dict[str, float]:
        return self._running()[1].joints()

    def restore(self, first: Dict[str, np.ndarray]) -> None:
        """Put the objects where a recorded episode had them at its start.

        Args:
            first: ``object_position`` (3,), ``object_orientation`` (4,) xyzw and, for drawers,
                ``drawer_x_pos`` and ``drawer_top_x_pos`` (scalars, m), as far as recorded.
        """
        world, _ = self._running()
        self._placement.restore(world, first)

    def touching(self) -> bool:
        """Whether the arm touches anything but the table."""
        world, arm = self._running()
        return bool(world.touching(arm.body) - {world.table})

    def close(self) -> None:
        world, self._world, self._arm = self._world, None, None
        if world is not None:
            world.close()

    def _running(self) -> Tuple[World, WidowXArm]:
        if self._world is None or self._arm is None:
            raise RobotError("the simulator has no running episode", "call reset() first")
        return self._world, self._arm
