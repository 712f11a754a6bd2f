"""Widow250PickTray-v0: pick a block up and put it into a tray."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Dict

import numpy as np

from ofrl_robot.sim.tasks.base import (
    SETTLE_SUBSTEPS,
    TABLE_POSITION,
    Task,
    TaskSpec,
    is_grasped,
    place,
)

if TYPE_CHECKING:
    from ofrl_robot.sim.world import World

SPAWN_LOW = np.array([0.49, 0.18, -0.30])
SPAWN_HIGH = np.array([0.75, 0.27, -0.30])
TRAY_XY = np.array([0.5, 0.25])
TRAY_CLEARANCE = 0.11  # least xy distance from block to tray centre at the start, m
PLACED_HEIGHT = -0.32
PLACED_RADIUS = 0.04


class PickTray(Task):
    """A block outside a fixed tray; success is having it low inside the tray."""

    spec: ClassVar[TaskSpec] = TaskSpec(
        id="Widow250PickTray-v0",
        horizon=40,
        description="Pick the block up and drop it into the tray.",
        success_key="place_success_target",
        scripted_policy="pick_place",
        use_neutral_action=True,
        neutral_gripper_open=False,
    )

    def build(self, world: World, rng: np.random.Generator) -> None:
        self._container = np.array([TRAY_XY[0], TRAY_XY[1], TABLE_POSITION[2]])
        world.load("tray", self._container, fixed=True)
        position = place(
            rng,
            SPAWN_LOW,
            SPAWN_HIGH,
            lambda p: float(np.linalg.norm(p[:2] - TRAY_XY)) > TRAY_CLEARANCE,
            self.spec.id,
        )
        self._block = world.load("block", position)
        world.step(SETTLE_SUBSTEPS)

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, bool]:
        block = world.pose(self._block)[0]
        grasped = is_grasped(block, ee_position)
        off_centre = float(np.linalg.norm(block[:2] - self._container[:2]))
        placed = bool(block[2] < PLACED_HEIGHT and off_centre < PLACED_RADIUS)
        return {
            "grasp_success": grasped,
            "grasp_success_target": grasped,
            "place_success": placed,
            "place_success_target": placed,
        }

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        return {
            "object_position": world.pose(self._block)[0],
            "container_position": self._container.copy(),
        }
