"""Widow250SingleObjGrasp-v0: pick a block up from the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Dict

import numpy as np

from ofrl_robot.sim.tasks.base import SETTLE_SUBSTEPS, Task, TaskSpec, is_grasped

if TYPE_CHECKING:
    from ofrl_robot.sim.world import World

SPAWN_LOW = np.array([0.53, 0.15, -0.30])
SPAWN_HIGH = np.array([0.68, 0.25, -0.30])


class SingleObjGrasp(Task):
    """One block at a random place; success is having it lifted in the gripper."""

    spec: ClassVar[TaskSpec] = TaskSpec(
        id="Widow250SingleObjGrasp-v0",
        horizon=25,
        description="Grasp the block and lift it from the table.",
        success_key="grasp_success_target",
        scripted_policy="grasp",
    )

    def build(self, world: World, rng: np.random.Generator) -> None:
        self._block = world.load("block", rng.uniform(SPAWN_LOW, SPAWN_HIGH))
        world.step(SETTLE_SUBSTEPS)

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, bool]:
        grasped = is_grasped(world.pose(self._block)[0], ee_position)
        return {"grasp_success": grasped, "grasp_success_target": grasped}

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        return {"object_position": world.pose(self._block)[0]}
