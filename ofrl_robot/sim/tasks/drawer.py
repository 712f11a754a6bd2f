"""Tasks: open a drawer, take the ball out of it, first remove what is in the way."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Sequence, Tuple, Type

import numpy as np

from ofrl_robot.sim.tasks.base import HALF_TURN, SETTLE_SUBSTEPS, TABLE_HEIGHT, Task, TaskSpec

if TYPE_CHECKING:
    from ofrl_robot.sim.world import World

OPENED_FRACTION = 0.95
CLOSED_FRACTION = 0.05

# Roboverse slides its drawers with a motor at 0.5 m/s for 57 to 60 substeps of 1/240 s; that
# distance counts as open. The motor stays on and holds still with this force, N.
SUBSTEP_TRAVEL = 0.5 / 240.0
SLIDE_SUBSTEPS = (57, 61)
HOLDING_FORCE = 5.0
OUT_TO_RIGHT = (0.0, 0.0, 0.707107, 0.707107)  # slides out along +x: image left
OUT_TO_LEFT = (0.0, 0.0, -0.707107, 0.707107)
SLIDE_JOINT, HANDLE_LINK = 1, 5

SIDE_TRAY_XY = (0.80, 0.0)
BALL_REST = -0.355  # height of the ball in the drawer, m
BALL_RADIUS = 0.0163  # of its underside, m
BALL_AHEAD = 0.12  # where it is dropped, from the middle of the closed drawer
BALL_SPREAD = 0.015


class Drawer:
    """One drawer in a world: its direction and how far it is open."""

    def __init__(
        self, world: World, asset: str, position: np.ndarray, opens_to: float = 1.0
    ) -> None:
        quaternion = OUT_TO_RIGHT if opens_to > 0 else OUT_TO_LEFT
        self.body = world.load(asset, position, quaternion)
        # The box reaches 1 cm into the table, in roboverse too, where the 32 contacts do
        # nothing (measured: it moves at 5.0 N, its motor's force) but cost most of a step.
        world.ignore_contacts(self.body, world.table)
        self.position = np.array(position, float)
        self.opens_to = opens_to  # +1 or -1: direction of opening along world x
        self.travel = 0.0  # distance that counts as fully open, m

    def place(self, world: World, x: float, opens_to: float) -> None:
        """Put the shell at ``x`` (m) facing the given way."""
        self.position[0], self.opens_to = x, opens_to
        world.move(self.body, self.position, OUT_TO_RIGHT if opens_to > 0 else OUT_TO_LEFT)

    def slide(self, world: World, travel: float) -> None:
        """Put the box ``travel`` m out of the shell, at rest, and hold it there."""
        world.set_joint(self.body, SLIDE_JOINT, -travel)
        world.hold_joint(self.body, SLIDE_JOINT, HOLDING_FORCE)

    def box(self, world: World) -> np.ndarray:
        """Return the position (3,) of the sliding box, m."""
        return world.link_position(self.body, SLIDE_JOINT)

    def handle(self, world: World) -> np.ndarray:
        """Return the position (3,) of the middle of the handle, m."""
        return world.link_position(self.body, HANDLE_LINK)

    def opened(self, world: World) -> float:
        """Return how far the drawer is open, as a fraction of its travel, nominally 0..1."""
        return float(self.opens_to * (self.box(world)[0] - self.position[0]) / self.travel)


class DrawerTask(Task):
    """A closed drawer with a ball in it; the base of all drawer tasks."""

    spec: ClassVar[TaskSpec] = TaskSpec(
        id="Widow250DrawerOpen-v0",
        horizon=30,
        description="Open the drawer by its handle.",
        success_key="drawer_opened_success",
        scripted_policy="drawer_open",
    )
    drawer_position: ClassVar[Sequence[float]] = (0.50, 0.20, -0.35)
    start_opened: ClassVar[bool] = False

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the objects; see :meth:`Task.build`."""
        # In roboverse's order: the ball falls into the opened drawer, which is then closed.
        opened, closed, again = rng.integers(*SLIDE_SUBSTEPS, size=3) * SUBSTEP_TRAVEL
        self.drawer = Drawer(world, "drawer", np.array(self.drawer_position))
        self.drawer.travel = opened
        at = max(opened - closed, 0.0)
        if self.start_opened:
            at = min(at + again, 0.125)
        self.drawer.slide(world, at)
        x = self.drawer_position[0] + BALL_AHEAD + rng.uniform(-BALL_SPREAD, BALL_SPREAD)
        rest = BALL_REST + BALL_RADIUS * (world.object_size - 1.0)
        ball = (x - opened + at, self.drawer_position[1], rest)
        self.target = world.load("ball", ball, HALF_TURN)
        world.step(10)

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, Any]:
        """Return the success conditions by roboverse's key names."""
        opened = self.drawer.opened(world)
        return dict(
            super().info(world, ee_position),
            drawer_x_pos=float(self.drawer.box(world)[0]),
            drawer_opened_percentage=opened,
            drawer_opened_success=opened > OPENED_FRACTION,
        )

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies, m, world axes."""
        return dict(
            super().ground_truth(world),
            drawer_position=self.drawer.position.copy(),
            handle_position=self.drawer.handle(world),
            drawer_opened=np.array([self.drawer.opened(world)]),
            drawer_direction=np.array([self.drawer.opens_to]),
        )

    def restore(self, world: World, first: Dict[str, np.ndarray]) -> None:
        """Put the objects where a recorded episode had them."""
        super().restore(world, first)
        if "drawer_x_pos" in first:
            travel = self.drawer.opens_to * (float(first["drawer_x_pos"]) - self.drawer.position[0])
            self.drawer.slide(world, travel)
        if "drawer_travel" in first:
            self.drawer.travel = float(first["drawer_travel"])


class DrawerOpenNeutral(DrawerTask):
    """DrawerOpen with the neutral action."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DrawerTask.spec, id="Widow250DrawerOpenNeutral-v0", use_neutral_action=True
    )


class DrawerGrasp(DrawerTask):
    """An open drawer; success is the ball lifted."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DrawerTask.spec,
        id="Widow250DrawerGrasp-v0",
        description="Grasp the ball in the open drawer and lift it.",
        success_key="grasp_success_target",
        scripted_policy="drawer_grasp",
    )
    start_opened = True


class DrawerGraspNeutral(DrawerGrasp):
    """DrawerGrasp with the neutral action."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DrawerGrasp.spec, id="Widow250DrawerGraspNeutral-v0", use_neutral_action=True
    )


class DrawerOpenGrasp(DrawerTask):
    """A closed drawer; success is the ball lifted."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DrawerTask.spec,
        id="Widow250DrawerOpenGrasp-v0",
        horizon=50,
        description="Open the drawer, grasp the ball in it and lift it.",
        success_key="grasp_success_target",
        scripted_policy="open_grasp",
        use_neutral_action=True,
    )


class DrawerRandomizedOpen(DrawerTask):
    """A drawer at one of four places; at two it opens the other way. The ball lies on top."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DrawerTask.spec,
        id="Widow250DrawerRandomizedOpen-v0",
        description="Open the drawer by its handle, wherever it stands.",
    )
    places: ClassVar[Sequence[Tuple[float, float]]] = (
        (0.75, -1.0), (0.65, -1.0), (0.55, 1.0), (0.45, 1.0),
    )  # fmt: skip
    item: ClassVar[str] = "ball"

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the objects; see :meth:`Task.build`."""
        x, opens_to = self.places[int(rng.integers(len(self.places)))]
        opened, closed = rng.integers(*SLIDE_SUBSTEPS, size=2) * SUBSTEP_TRAVEL
        position = np.array([x, 0.15, -0.35])
        self.drawer = Drawer(world, "drawer", position, opens_to)
        self.drawer.travel = opened
        self.drawer.slide(world, max(opened - closed, 0.0))
        spread = np.array([0.05, 0.06, 0.0])
        spot = rng.uniform(position - spread, position + spread) + [0.0, 0.0, 0.10]
        self.target = world.load(self.item, spot, HALF_TURN)
        world.step(SETTLE_SUBSTEPS)

    def restore(self, world: World, first: Dict[str, np.ndarray]) -> None:
        """Put the objects where a recorded episode had them."""
        if "drawer_x_pos" in first:  # the drawer was closed, so it is the nearest place
            found = float(first["drawer_x_pos"])
            self.drawer.place(world, *min(self.places, key=lambda spot: abs(spot[0] - found)))
        super().restore(world, first)


class DrawerRandomizedOpenTwoObjGrasp(DrawerRandomizedOpen):
    """Roboverse names two objects here and loads the first: the block lies on top."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DrawerRandomizedOpen.spec, id="Widow250DrawerRandomizedOpenTwoObjGrasp-v0"
    )
    item = "block"


class DoubleDrawerOpen(DrawerTask):
    """A second drawer above, a tray at the side, and a bottle in that tray."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DrawerTask.spec,
        id="Widow250DoubleDrawerOpenNeutral-v0",
        description="Open the bottom drawer by its handle.",
        use_neutral_action=True,
    )
    drawer_position = (0.47, 0.20, -0.35)
    top_half_open: ClassVar[bool] = False
    bottle_low: ClassVar[Sequence[float]] = (0.79, 0.0, -0.34)
    bottle_high: ClassVar[Sequence[float]] = (0.81, 0.0, -0.34)

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the objects; see :meth:`Task.build`."""
        super().build(world, rng)
        above = np.array(self.drawer_position) + [0.0, 0.0, 0.07]
        self.top = Drawer(world, "drawer_plain", above)
        self.top.travel = self.drawer.travel
        world.ignore_contacts(self.top.body, self.drawer.body)
        half = int(rng.integers(*SLIDE_SUBSTEPS)) // 2 * SUBSTEP_TRAVEL
        if self.top_half_open:
            self.top.slide(world, half)
        self._tray = np.array([SIDE_TRAY_XY[0], SIDE_TRAY_XY[1], TABLE_HEIGHT])
        world.load("side_tray", self._tray, fixed=True)
        spot = rng.uniform(self.bottle_low, self.bottle_high)
        self._bottle = world.load("bottle", spot, HALF_TURN)
        world.step(SETTLE_SUBSTEPS)

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, Any]:
        """Return the success conditions by roboverse's key names."""
        opened = self.top.opened(world)
        return dict(
            super().info(world, ee_position),
            drawer_top_x_pos=float(self.top.box(world)[0]),
            drawer_top_opened_percentage=opened,
            drawer_top_closed_success=opened < CLOSED_FRACTION,
        )

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies, m, world axes."""
        return dict(
            super().ground_truth(world),
            top_position=self.top.box(world),
            top_opened=np.array([self.top.opened(world)]),
            bottle_position=world.pose(self._bottle)[0],
            tray_position=self._tray.copy(),
        )

    def restore(self, world: World, first: Dict[str, np.ndarray]) -> None:
        """Put the objects where a recorded episode had them."""
        super().restore(world, first)
        self.top.travel = self.drawer.travel
        if "drawer_top_x_pos" in first and self.top_half_open:
            self.top.slide(world, float(first["drawer_top_x_pos"]) - self.top.position[0])


class DoubleDrawerGrasp(DoubleDrawerOpen):
    """An open bottom drawer; success is the ball lifted."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DoubleDrawerOpen.spec,
        id="Widow250DoubleDrawerGraspNeutral-v0",
        description="Grasp the ball in the open bottom drawer and lift it.",
        success_key="grasp_success_target",
        scripted_policy="drawer_grasp",
    )
    start_opened = True


class DoubleDrawerOpenGrasp(DoubleDrawerOpen):
    """Two closed drawers; success is the ball lifted."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DoubleDrawerOpen.spec,
        id="Widow250DoubleDrawerOpenGraspNeutral-v0",
        horizon=50,
        description="Open the bottom drawer, grasp the ball in it and lift it.",
        success_key="grasp_success_target",
        scripted_policy="open_grasp",
    )


class DoubleDrawerCloseOpenGrasp(DoubleDrawerOpenGrasp):
    """The top drawer, half open, hides the handle of the bottom one."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DoubleDrawerOpenGrasp.spec,
        id="Widow250DoubleDrawerCloseOpenGraspNeutral-v0",
        horizon=80,
        description="Push the top drawer shut, open the bottom one, grasp the ball, lift it.",
        scripted_policy="close_open_grasp",
    )
    top_half_open = True


class DoubleDrawerPickPlaceOpenGrasp(DoubleDrawerOpenGrasp):
    """The bottle lies in front of the handle."""

    spec: ClassVar[TaskSpec] = dataclasses.replace(
        DoubleDrawerOpenGrasp.spec,
        id="Widow250DoubleDrawerPickPlaceOpenGraspNeutral-v0",
        horizon=80,
        description="Put the bottle into the tray, open the drawer, grasp the ball, lift it.",
        scripted_policy="pick_place_open_grasp",
    )
    bottle_low = (0.63, 0.20, -0.34)
    bottle_high = (0.65, 0.20, -0.34)


TASKS: Tuple[Type[Task], ...] = (
    DrawerTask,
    DrawerOpenNeutral,
    DrawerGrasp,
    DrawerGraspNeutral,
    DrawerOpenGrasp,
    DrawerRandomizedOpen,
    DrawerRandomizedOpenTwoObjGrasp,
    DoubleDrawerOpen,
    DoubleDrawerGrasp,
    DoubleDrawerOpenGrasp,
    DoubleDrawerCloseOpenGrasp,
    DoubleDrawerPickPlaceOpenGrasp,
)
