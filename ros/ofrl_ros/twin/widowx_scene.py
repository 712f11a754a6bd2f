"""The objects and the camera of a simulated task around the twin of a WidowX."""

from __future__ import annotations

from typing import Dict, List

import numpy as np

from ofrl_robot.sim.arm import WidowXArm
from ofrl_robot.sim.engine import pybullet
from ofrl_robot.sim.simulation import task_camera
from ofrl_robot.sim.tasks import find
from ofrl_robot.sim.world import World
from ofrl_ros.twin.widowx_arm import TwinWidowX


class WidowXScene:
    """Implements :class:`~ofrl_ros.twin.world.Scene` with a task of the simulator.

    Args:
        world: holds the table and the arm, and nothing else yet.
        twin: the arm in it.
        task: id of the simulated task.
        image_size: pixels per side of the camera image.

    Raises:
        ConfigError: the task is unknown.
    """

    def __init__(self, world: World, twin: TwinWidowX, task: str, image_size: int) -> None:
        self._world, self._twin = world, twin
        self._task = find(task)()
        self._camera, self._image_size = task_camera(), image_size
        self._lasting = self._bodies()
        self.spec = self._task.spec

    def arrange(self, seed: int) -> None:
        """Replace the objects; the arm stays where it is.

        Raises:
            ConfigError: the objects do not fit.
        """
        for body in self._bodies():
            if body not in self._lasting:
                pybullet.removeBody(body, physicsClientId=self._world.client)
        self._task.build(self._world, np.random.default_rng(seed))

    def image(self) -> np.ndarray:
        """Draw the camera: uint8 RGB (S, S, 3)."""
        return self._camera.render(self._world, self._image_size)

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, as ``WidowXEnv.ground_truth`` does.

        ``gripper_open`` turns 0 when the fingers have come to rest: before that there is nothing
        to lift.
        """
        position, orientation = self._arm.end_effector()
        return {
            "ee_position": position,
            "ee_orientation": orientation,
            "gripper_open": np.array([float(self._twin.gripper_open)]),
            **self._task.ground_truth(self._world),
        }

    def success(self) -> bool:
        """Return whether the task's success condition holds now."""
        info = self._task.info(self._world, self._arm.end_effector()[0])
        return bool(info[self._task.spec.success_key])

    @property
    def _arm(self) -> WidowXArm:
        return self._twin.arm

    def _bodies(self) -> List[int]:
        client = self._world.client
        count = pybullet.getNumBodies(physicsClientId=client)
        return [pybullet.getBodyUniqueId(i, physicsClientId=client) for i in range(count)]
