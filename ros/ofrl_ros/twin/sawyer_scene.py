"""Simulate what stands before a Sawyer: a table, an object to grasp, a camera. No ROS here."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from ofrl_robot.sim.items import PALETTE, Item, Part
from ofrl_robot.sim.world import TIME_STEP_S, Camera, World
from ofrl_ros.twin.sawyer_model import (
    HAND,
    MAX_OPENING,
    NEUTRAL,
    TIP,
    Kinematics,
    SawyerBody,
    SawyerController,
)

TABLE = (0.75, 0.0, -0.10)  # centre of the table's upper face, m, base frame
SPAWN_LOW, SPAWN_HIGH = (0.50, 0.10), (0.57, 0.20)  # where objects are placed, m
LIFTED = 0.05  # m above where it lay: grasped
# Objects are 20 mm wide along the way of the fingers, which open by 41 mm: 10 mm on either side.
_SHAPES = (("box", (0.020, 0.040, 0.040)), ("cylinder", (0.010, 0.040)))
_COLORS = ("red", "blue", "green", "yellow", "purple")
_SETTLE = 60  # substeps that an object falls


class Snapshot(NamedTuple):
    """What was measured after a substep.

    Attributes:
        positions, velocities, efforts: of the joints, (7,) rad, rad/s, N m.
        tips: position (3,) m and quaternion xyzw (4,) of each tip.
        opening, opening_speed: of the gripper, m and m/s.
    """

    positions: np.ndarray
    velocities: np.ndarray
    efforts: np.ndarray
    tips: Dict[str, Tuple[np.ndarray, np.ndarray]]
    opening: float
    opening_speed: float


class SawyerScene:
    """A Sawyer at a table with one object. Implements :class:`~ofrl_ros.twin.world.Scene`.

    Not thread-safe: what reads or moves the world is called with the physics' lock held.

    Args:
        image_size: pixels per side of the camera's image.

    Attributes:
        stuck: the motors do not follow (a fault).
        gripper_target: distance that the fingers go to, m.
    """

    def __init__(self, image_size: int = 64) -> None:
        self._image_size = image_size
        self.kinematics = Kinematics()
        self._world = World()
        self._world.clear()
        self._world.move(self._world.table, TABLE, (0.0, 0.0, 0.0, 1.0))
        self.body = SawyerBody(self._world)
        self.controller = SawyerController(self.kinematics, NEUTRAL)
        self.gripper_target = MAX_OPENING
        self.stuck = False
        self._item = -1
        self._rest = 0.0
        self._camera = Camera(
            (0.52, 0.15, -0.05), distance=0.36, yaw_deg=90.0, pitch_deg=-50.0, fov_deg=50.0
        )
        self.arrange(0)

    def arrange(self, seed: int) -> None:
        """Put another object on the table; the arm stays where it is."""
        rng = np.random.default_rng(seed)
        item = _item(rng)
        x, y = rng.uniform(SPAWN_LOW, SPAWN_HIGH)
        if self._item >= 0:
            self._world.remove(self._item)
        height = TABLE[2] - float(item.low[2])
        self._item = self._world.add(item, (x, y, height + 0.002))
        self.advance(_SETTLE)
        self._rest = float(self._world.pose(self._item)[0][2])

    def advance(self, substeps: int) -> None:
        """Let ``substeps`` of 1/240 s pass."""
        for _ in range(substeps):
            targets, speeds = self.controller.targets(TIME_STEP_S)
            if self.stuck:
                targets = self.body.joints()[0]
            self.body.drive(targets, speeds, self.kinematics.efforts)
            self.body.drive_gripper(self.gripper_target)
            self._world.step(1)

    def snapshot(self) -> Snapshot:
        """Return what a robot measures."""
        positions, velocities, efforts = self.body.joints()
        tips = {}
        for tip in (HAND, TIP):
            place, turn = self.kinematics.forward(positions, tip)
            tips[tip] = (place, turn.as_quat())
        return Snapshot(positions, velocities, efforts, tips, *self.body.opening())

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, base frame."""
        grip, _ = self.kinematics.forward(self.body.joints()[0], TIP)
        return {
            "grip_position": grip,
            "object_position": self._world.pose(self._item)[0],
            "gripper_opening": np.array([self.body.opening()[0]]),
        }

    def success(self) -> bool:
        """Whether the object is lifted."""
        return float(self._world.pose(self._item)[0][2]) > self._rest + LIFTED

    def image(self) -> np.ndarray:
        """Draw the camera's image: uint8 RGB (s, s, 3)."""
        return self._camera.render(self._world, self._image_size)

    def solve(
        self, position: np.ndarray, quaternion: np.ndarray, seed: np.ndarray, tip: str
    ) -> Optional[np.ndarray]:
        """Return joints (7,) rad that put a tip there, or None. May run in any thread."""
        return self.kinematics.solve(position, Rotation.from_quat(quaternion), seed, tip)

    def close(self) -> None:
        """End the physics."""
        self._world.close()


def _item(rng: np.random.Generator) -> Item:
    shape, size = _SHAPES[int(rng.integers(len(_SHAPES)))]
    color = _COLORS[int(rng.integers(len(_COLORS)))]
    part = Part(shape, size, (0.0, 0.0, 0.0), PALETTE[color])
    return Item(f"{color} {shape}", (part,))
