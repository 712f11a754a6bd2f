"""Tasks: grasp a block from the table and lift it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Sequence, Tuple, Type

import numpy as np

from ofrl_robot.sim.tasks.base import HALF_TURN, SETTLE_SUBSTEPS, Task, TaskSpec

if TYPE_CHECKING:
    from ofrl_robot.sim.world import World


class SingleObjGrasp(Task):
    """One block at a random place; success is the block lifted in the gripper."""

    spec: ClassVar[TaskSpec] = TaskSpec(
        id="Widow250SingleObjGrasp-v0",
        horizon=25,
        description="Grasp the block and lift it from the table.",
        success_key="grasp_success_target",
        scripted_policy="grasp",
    )
    spawn_low: ClassVar[Sequence[float]] = (0.53, 0.15, -0.30)
    spawn_high: ClassVar[Sequence[float]] = (0.68, 0.25, -0.30)

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the objects; see :meth:`Task.build`."""
        position = rng.uniform(self.spawn_low, self.spawn_high)
        self.target = world.load("block", position, HALF_TURN)
        world.step(SETTLE_SUBSTEPS)


class GraspEasy(SingleObjGrasp):
    """SingleObjGrasp with the block always at the same place."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        SingleObjGrasp.spec,
        id="Widow250GraspEasy-v0",
        description="Grasp the block, always at the same place, and lift it.",
    )
    spawn_low = spawn_high = (0.60, 0.20, -0.30)


class MultiTaskGrasp(SingleObjGrasp):
    """Roboverse names two objects here and loads the first, so it is SingleObjGrasp."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        SingleObjGrasp.spec, id="Widow250MultiTaskGrasp-v0"
    )


TASKS: Tuple[Type[Task], ...] = (SingleObjGrasp, GraspEasy, MultiTaskGrasp)
