"""Tasks: pick an object up and put it into or onto a container."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Sequence, Tuple, Type

import numpy as np

from ofrl_robot.sim.items import catalogue
from ofrl_robot.sim.tasks.base import (
    HALF_TURN,
    SETTLE_SUBSTEPS,
    TABLE_HEIGHT,
    Task,
    TaskSpec,
    place,
)

if TYPE_CHECKING:
    from ofrl_robot.sim.arm import WidowXArm
    from ofrl_robot.sim.world import World

DROP_HEIGHT = -0.30  # height from which objects fall on the table, m
BLOCK_UNDERSIDE = 0.012  # depth of the block below its frame, m

# Start of roboverse's PlaceTray, from a state saved there: joints of the arm (waist to propeller,
# rad), place of the object between the fingers, height of its underside.
HOLDING_JOINTS = (1.56385, -0.57983, -0.63496, 0.0005, -1.51506, -0.00839, 0.00189)
# The arm moves in that state: without these speeds (rad/s) the replayed path is off by 2.4 mm
# instead of 0.2.
HOLDING_SPEEDS = (0.0458, -0.1495, 0.2602, -0.0301, -0.4107, 0.0682, -0.0194)
HELD_XY = (0.6000, 0.1527)
HELD_UNDERSIDE = -0.2436
CLOSING_FINGERS = 0.027  # from here the fingers close on it; the widest object needs 0.026 m
HALF_WIDTH = 0.0125  # of the block, m
CLOSING_SUBSTEPS = 15
ARM_BRAKE = 500.0  # N m; holds the arm still while the fingers close


@dataclasses.dataclass(frozen=True)
class Container:
    """A container to put the object into or onto.

    Attributes:
        asset: name of its URDF, whose frame is on the table.
        low, high: where it may stand (2,) m.
        top: height of its rim or upper face, m.
        clearance: least xy distance between its centre and the object's at the start, m.
        placed_height, placed_radius: the object counts as placed below this height and within
            this xy distance of the centre, m, whether the gripper holds it or not.
    """

    asset: str
    low: Tuple[float, float]
    high: Tuple[float, float]
    top: float
    clearance: float = 0.11
    placed_height: float = -0.32
    placed_radius: float = 0.04


TRAY = Container("tray", (0.50, 0.25), (0.50, 0.25), top=-0.345)
BOWL = Container("bowl", (0.50, 0.26), (0.70, 0.26), top=-0.330)
BOX = Container("box", (0.50, 0.23), (0.70, 0.23), top=-0.325)
CUBE = Container(
    "cube", (0.50, 0.22), (0.70, 0.24), top=-0.325,
    clearance=0.10, placed_height=-0.23, placed_radius=0.03,
)  # fmt: skip


class PickTray(Task):
    """A block outside a fixed tray; success is the block low inside the tray."""

    spec: ClassVar[TaskSpec] = TaskSpec(
        id="Widow250PickTray-v0",
        horizon=40,
        description="Pick the block up and drop it into the tray.",
        success_key="place_success_target",
        scripted_policy="pick_place",
        use_neutral_action=True,
        neutral_gripper_open=False,
    )
    container: ClassVar[Container] = TRAY
    spawn_low: ClassVar[Sequence[float]] = (0.49, 0.18)
    spawn_high: ClassVar[Sequence[float]] = (0.75, 0.27)
    in_gripper: ClassVar[bool] = False  # whether the object starts there

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the objects; see :meth:`Task.build`."""
        self.draw(rng)
        # Both places are drawn again until they are far enough apart, as roboverse does.
        clearance = self.container.clearance
        spot = place(
            rng,
            np.array([*self.container.low, *self.spawn_low]),
            np.array([*self.container.high, *self.spawn_high]),
            lambda both: float(np.linalg.norm(both[:2] - both[2:])) > clearance,
            self.spec.id,
        )
        self._container = np.array([spot[0], spot[1], TABLE_HEIGHT])
        world.load(self.container.asset, self._container, fixed=True)
        if self.in_gripper:
            self.target = self.load_object(world, self._held_position(world))
        else:
            self.target = self.load_object(world, (spot[2], spot[3], DROP_HEIGHT))
            world.step(SETTLE_SUBSTEPS)

    def draw(self, rng: np.random.Generator) -> None:
        """Draw this episode's object; a task with one object does nothing."""

    def load_object(self, world: World, position: Sequence[float]) -> int:
        """Load this episode's object with its frame at ``position`` (3,) m; return its body id."""
        return world.load("block", position, HALF_TURN)

    def underside(self) -> float:
        """Return the depth of this episode's object, at its usual size, below its frame, m."""
        return BLOCK_UNDERSIDE

    def _held_position(self, world: World) -> Tuple[float, float, float]:
        return (*HELD_XY, HELD_UNDERSIDE + world.object_size * self.underside())

    def start(self, world: World, arm: WidowXArm) -> None:
        """Put the object into the closed gripper."""
        if not self.in_gripper:
            return
        # imported here, because listing the tasks must not load the physics engine
        from ofrl_robot.sim.arm import LEFT_FINGER, MOVABLE_JOINTS, RIGHT_FINGER

        for joint, value in zip(MOVABLE_JOINTS, HOLDING_JOINTS):
            world.set_joint(arm.body, joint, value)
        fingers = CLOSING_FINGERS + HALF_WIDTH * (world.object_size - 1.0)
        world.set_joint(arm.body, LEFT_FINGER, fingers)
        world.set_joint(arm.body, RIGHT_FINGER, -fingers)
        arm.gripper_open = False
        arm.command_delta(np.zeros(3), np.zeros(3))
        for joint in MOVABLE_JOINTS[:7]:
            world.hold_joint(arm.body, joint, ARM_BRAKE)
        for _ in range(CLOSING_SUBSTEPS):  # it is kept in the air until the fingers hold it
            world.move(self.target, self._held_position(world), HALF_TURN)
            world.step(1)
        for joint, value, speed in zip(MOVABLE_JOINTS, HOLDING_JOINTS, HOLDING_SPEEDS):
            world.set_joint(arm.body, joint, value, speed)

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, Any]:
        """Return the success conditions by roboverse's key names."""
        item = world.pose(self.target)[0]
        off_centre = float(np.linalg.norm(item[:2] - self._container[:2]))
        low = float(item[2]) < self.container.placed_height
        placed = low and off_centre < self.container.placed_radius
        info = super().info(world, ee_position)
        return dict(info, place_success=placed, place_success_target=placed)

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies, m, world axes."""
        return dict(
            super().ground_truth(world),
            container_position=self._container.copy(),
            container_top=np.array([self.container.top]),
            container_radius=np.array([self.container.placed_radius]),
        )


class PlaceTray(PickTray):
    """PickTray with the block in the closed gripper at the start, always at the same place."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        PickTray.spec,
        id="Widow250PlaceTray-v0",
        description="Drop the block, held in the gripper, into the tray.",
        scripted_policy="place",
    )
    in_gripper = True


class PickTrayMult(PickTray):
    """PickTray with one of many objects, drawn at each reset from the first ``num_objects``."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        PickTray.spec,
        id="Widow250PickTrayMult-v0",
        description="Pick the object up, one of many, and drop it into the tray.",
        object_pool=35,
    )

    def draw(self, rng: np.random.Generator) -> None:
        """Draw this episode's object."""
        self._index = int(rng.integers(self.num_objects))
        self._item = catalogue(self.num_objects)[self._index]

    def load_object(self, world: World, position: Sequence[float]) -> int:
        """Load the drawn object and return its body id."""
        return world.add(self._item, position, HALF_TURN)

    def underside(self) -> float:
        """Return the depth of the object, at its usual size, below its frame, m."""
        return -float(self._item.low[2])

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, Any]:
        """Return the success conditions by roboverse's key names."""
        return dict(super().info(world, ee_position), object_index=self._index)


class PlaceTrayMult(PickTrayMult):
    """PlaceTray with one of many objects."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        PickTrayMult.spec,
        id="Widow250PlaceTrayMult-v0",
        description="Drop the object, one of many, held in the gripper, into the tray.",
        scripted_policy="place",
    )
    in_gripper = True


class SinglePutInBowl(PickTray):
    """A block and a bowl, both at random places."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        PickTray.spec,
        id="Widow250SinglePutInBowl-v0",
        description="Pick the block up and drop it into the bowl.",
        use_neutral_action=False,
        neutral_gripper_open=True,
    )
    container = BOWL
    spawn_high = (0.59, 0.27)


class PutInBox(SinglePutInBowl):
    """A block and an open box. Roboverse names a second object here and does not load it."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        SinglePutInBowl.spec,
        id="Widow250PutInBox-v0",
        description="Pick the block up and drop it into the box.",
    )
    container = BOX


class PlaceOnCube(SinglePutInBowl):
    """A block and a cube. Roboverse names a second object here and does not load it."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        SinglePutInBowl.spec,
        id="Widow250PlaceOnCube-v0",
        description="Pick the block up and put it on the cube.",
    )
    container = CUBE


TASKS: Tuple[Type[Task], ...] = (
    PickTray,
    PlaceTray,
    PickTrayMult,
    PlaceTrayMult,
    SinglePutInBowl,
    PutInBox,
    PlaceOnCube,
)
