"""Task: push a button in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Dict, Tuple, Type

import numpy as np

from ofrl_robot.sim.tasks.base import (
    HALF_TURN,
    SETTLE_SUBSTEPS,
    TABLE_HEIGHT,
    Task,
    TaskSpec,
    place,
)

if TYPE_CHECKING:
    from ofrl_robot.sim.world import World

PUSH_JOINT = 1
TRAVEL = 0.015  # of the cap, m
# As in roboverse, a motor holds the cap still, so it stays where it was pushed to.
HOLDING_FORCE = 10.0
PRESSED_FRACTION = 0.8

BOTTLE_LOW, BOTTLE_HIGH = np.array([0.50, 0.18, -0.34]), np.array([0.70, 0.27, -0.34])
BOTTLE_CLEARANCE = 0.09  # least x distance to the button: the bottle lies along y, m


class ButtonPress(Task):
    """A button that stays pressed, and a bottle beside it that does not matter."""

    spec: ClassVar[TaskSpec] = TaskSpec(
        id="Widow250ButtonPress-v0",
        horizon=30,
        description="Push the button in.",
        success_key="button_pressed_success",
        scripted_policy="button_press",
    )
    button_xy: ClassVar[Tuple[float, float]] = (0.50, 0.20)

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the objects; see :meth:`Task.build`."""
        self.button = world.load("button", (*self.button_xy, TABLE_HEIGHT))
        world.hold_joint(self.button, PUSH_JOINT, HOLDING_FORCE)
        self._highest = float(world.link_position(self.button, PUSH_JOINT)[2])
        spot = place(
            rng,
            BOTTLE_LOW,
            BOTTLE_HIGH,
            lambda p: abs(float(p[0]) - self.button_xy[0]) > BOTTLE_CLEARANCE,
            self.spec.id,
        )
        self.target = world.load("bottle", spot, HALF_TURN)
        world.step(SETTLE_SUBSTEPS)

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, Any]:
        """Return the success conditions by roboverse's key names."""
        pressed = self._pressed(world)
        return dict(
            super().info(world, ee_position),
            button_z_pos=float(self._cap(world)[2]),
            button_pressed_percentage=pressed,
            button_pressed_success=pressed > PRESSED_FRACTION,
        )

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies, m, world axes."""
        return dict(
            super().ground_truth(world),
            button_position=self._cap(world),
            button_pressed=np.array([self._pressed(world)]),
        )

    def _cap(self, world: World) -> np.ndarray:
        """Return the centre (3,) m of the cap."""
        return world.link_position(self.button, PUSH_JOINT)

    def _pressed(self, world: World) -> float:
        """Return how far the cap is pushed in, as a fraction of its travel, nominally 0..1."""
        return (self._highest - float(self._cap(world)[2])) / TRAVEL


TASKS: Tuple[Type[Task], ...] = (ButtonPress,)
