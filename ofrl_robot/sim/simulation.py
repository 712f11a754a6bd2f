"""Define the physics behind an environment, and implement it with an embedded PyBullet world."""

from __future__ import annotations

from typing import Any, Dict, Optional, Protocol, Tuple

import numpy as np

from ofrl_robot import specs
from ofrl_robot.errors import RobotError
from ofrl_robot.sim.arm import IDEAL_ACTUATORS, STEP_SUBSTEPS, Actuators, WidowXArm
from ofrl_robot.sim.looks import Look
from ofrl_robot.sim.tasks.base import Task, TaskSpec
from ofrl_robot.sim.world import TIME_STEP_S, Camera, World

TOGGLE_SUBSTEPS = 75  # the fingers need longer than one control step
NEUTRAL_SUBSTEPS = 75


def task_camera() -> Camera:
    """Return the camera of every task, in front of the robot and above the table."""
    return Camera((0.6, 0.2, -0.28), distance=0.29, yaw_deg=180.0, pitch_deg=-40.0)


class Simulation(Protocol):
    """Physics of one arm, one table and one task. Spaces and horizon belong to the environment."""

    task: TaskSpec

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode; ``rng`` is the only source of chance."""

    def step(self, action: np.ndarray) -> None:
        """Carry out one action, float64 (8,) within [-1, 1]."""

    def image(self, size: int) -> np.ndarray:
        """Draw the camera image: uint8 RGB (size, size, 3)."""
        ...

    def state(self) -> np.ndarray:
        """Return the state, float64 (10,), in the order of ``specs.WIDOWX_STATE_NAMES``.

        Poses are in world axes; the base of the arm stands at ``arm.BASE_POSITION``.
        """
        ...

    def object_pose(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return position (3,) m and quaternion (4,) xyzw of the target object, world axes."""
        ...

    def info(self) -> Dict[str, Any]:
        """Return the success conditions now, by roboverse's key names."""
        ...

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies: float64, m, world axes."""
        ...

    def joints(self) -> Dict[str, float]:
        """Return joint positions by the vendor's names, rad (fingers: m)."""
        ...

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""


class EmbeddedSimulation:
    """The embedded simulator: a PyBullet world of its own; several may live in one process.

    Args:
        task: the task, built anew at each reset.
        actuators: imperfections of the motors.
        stale_gripper_flag: keep the gripper flag through a neutral action, so that the next step
            drives the fingers back. This is a bug of roboverse; its published data has it.
        substeps: of 1/240 s in a control period.
        object_size: factor of the length of the objects that are grasped.
    """

    def __init__(
        self,
        task: Task,
        actuators: Actuators = IDEAL_ACTUATORS,
        stale_gripper_flag: bool = False,
        substeps: int = STEP_SUBSTEPS,
        object_size: float = 1.0,
    ) -> None:
        self._object_size = object_size
        self._look: Optional[Look] = None
        self.task = task.spec
        self._placement = task
        self._actuators = actuators
        self._stale_gripper_flag = stale_gripper_flag
        self._substeps = substeps
        self._neutral_after: Optional[int] = None  # substeps until a neutral action takes effect
        self._world: Optional[World] = None
        self._arm: Optional[WidowXArm] = None
        self._camera = task_camera()
        self._scale = np.array(specs.WIDOWX_ACTION.scale)
        self._threshold = specs.WIDOWX_ACTION.gripper_threshold

    def reset(self, rng: np.random.Generator) -> None:
        """Rebuild the world and place the objects.

        Raises:
            ConfigError: the objects do not fit; the simulation then needs another reset.
        """
        self._arm = None  # step() is refused until everything is in place
        self._look = None
        if self._world is None:
            self._world = World(self._object_size)
        world = self._world
        world.clear()
        arm = WidowXArm(world, self._actuators, self._substeps * TIME_STEP_S)
        self._neutral_after = None
        self._placement.build(world, rng)
        # The arm sagged while the objects fell for some substeps.
        arm.reset_joints()
        self._placement.start(world, arm)
        self._arm = arm

    def step(self, action: np.ndarray) -> None:
        """Carry out an action: a control period, or 75 substeps for a gripper toggle.

        A neutral action takes 75 substeps more.
        """
        self.advance(self.command(action))

    def command(self, action: np.ndarray) -> int:
        """Set the motor targets of an action; return how many substeps it takes."""
        _, arm = self._running()
        gripper, neutral = action[6], action[7]
        if arm.gripper_open:
            toggled = gripper < -self._threshold
        else:
            toggled = gripper > self._threshold
        if toggled:
            arm.gripper_open = not arm.gripper_open
        arm.command_delta(action[:3] * self._scale[:3], action[3:6] * self._scale[3:6])
        substeps = max(TOGGLE_SUBSTEPS, self._substeps) if toggled else self._substeps
        self._neutral_after = None
        if self.task.use_neutral_action and neutral > self._threshold:
            self._neutral_after = substeps
            substeps += NEUTRAL_SUBSTEPS
        return substeps

    def advance(self, substeps: int) -> None:
        """Let ``substeps`` of 1/240 s pass."""
        world, _ = self._running()
        if self._neutral_after is not None and self._neutral_after <= substeps:
            world.step(self._neutral_after)
            substeps -= self._neutral_after
            self._go_neutral()
        if self._neutral_after is not None:
            self._neutral_after -= substeps
        world.step(substeps)

    def hold(self) -> None:
        """Set the motor targets to the measured pose."""
        self._neutral_after = None
        self._running()[1].command_delta(np.zeros(3), np.zeros(3))

    def _go_neutral(self) -> None:
        _, arm = self._running()
        self._neutral_after = None
        flag = arm.gripper_open
        arm.command_neutral(self.task.neutral_gripper_open)
        if self._stale_gripper_flag:
            arm.gripper_open = flag

    def image(self, size: int) -> np.ndarray:
        """Draw the camera image: uint8 RGB (size, size, 3)."""
        image = self._camera.render(self._running()[0], size, self._look)
        return image if self._look is None else self._look.develop(image)

    def dress(self, look: Look) -> None:
        """Give the episode other looks, until the next reset. Physics does not change."""
        world, arm = self._running()
        world.dress(look, arm.body)
        self._look = look

    def state(self) -> np.ndarray:
        """Return the state, float64 (10,), in the order of ``specs.WIDOWX_STATE_NAMES``."""
        return self._running()[1].state()

    def object_pose(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return position (3,) m and quaternion (4,) xyzw of the target object, world axes."""
        return self._placement.target_pose(self._running()[0])

    def info(self) -> Dict[str, Any]:
        """Return the success conditions by roboverse's key names."""
        world, arm = self._running()
        return dict(self._placement.info(world, arm.end_effector()[0]))

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies, m, world axes."""
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
        """Return joint positions by the vendor's names, rad (fingers: m)."""
        return self._running()[1].joints()

    def restore(self, first: Dict[str, np.ndarray]) -> None:
        """Put the objects where a recorded episode had them at its start.

        Args:
            first: ``object_position`` (3,), ``object_orientation`` (4,) xyzw and, for drawers,
                ``drawer_x_pos`` and ``drawer_top_x_pos`` (scalars, m); other keys are not needed.
        """
        world, _ = self._running()
        self._placement.restore(world, first)

    def touching(self) -> bool:
        """Return whether the arm touches anything but the table."""
        world, arm = self._running()
        return bool(world.touching(arm.body) - {world.table})

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""
        self._arm = None
        if self._world is not None:
            world = self._world
            self._world = None
            world.close()

    def _running(self) -> Tuple[World, WidowXArm]:
        if self._world is None or self._arm is None:
            raise RobotError("the simulator has no running episode", "call reset() first")
        return self._world, self._arm
