"""Wrap one PyBullet client: a private physics world; several may live in one process."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Set, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.engine import pybullet

if TYPE_CHECKING:
    from ofrl_robot.sim.items import Item
    from ofrl_robot.sim.looks import Look

ASSETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets")
TIME_STEP_S = 1.0 / 240.0
TABLE_POSITION = (0.75, -0.2, -0.375)  # centre of the table's upper face, m
GRAVITY = -10.0
SOLVER_ITERATIONS = 150
ITEM_MASS_KG = 0.05
OBJECTS = ("ball", "block", "bottle")  # what the tasks grasp, beside the catalogue's items
# What the renderer takes when it is not told: shares of light from everywhere, from the lamp and
# of its reflections.
AMBIENT, DIFFUSE, SPECULAR = 0.6, 0.35, 0.05
# Colours may not get brighter than white: the renderer's bytes wrap round. The table's textures
# have no byte above 245 (scripts/sim_textures.py).
TABLE_HEADROOM = 1.04


class World:
    """One PyBullet DIRECT client, whose id goes with every call.

    Without the explicit id PyBullet uses the first client of the process, so a second
    environment would silently move the robot of the first.

    Args:
        object_size: factor of every length of ``OBJECTS`` and of what :meth:`add` builds; their
            mass stays.

    Raises:
        ConfigError: PyBullet cannot return images as arrays.
    """

    def __init__(self, object_size: float = 1.0) -> None:
        self.object_size = object_size
        if not pybullet.isNumpyEnabled():
            raise ConfigError(
                "this pybullet was built without numpy, so its images come as Python tuples",
                "with numpy installed: pip install --force-reinstall --no-cache-dir pybullet",
            )
        self.client: int = pybullet.connect(pybullet.DIRECT)
        self.table = -1  # body id, after clear

    def close(self) -> None:
        """Disconnect. Calling it again does nothing."""
        if self.client >= 0:
            client = self.client
            self.client = -1
            try:
                pybullet.disconnect(physicsClientId=client)
            except pybullet.error:  # the interpreter is shutting down and has closed it already
                pass

    def clear(self) -> None:
        """Remove every body, load a fresh table and set the engine's parameters.

        The world is rebuilt at each reset rather than restored from a saved state: contact
        and motor warm-starting then always begin empty, which is what makes a seed give the
        same bits after any history. Primitives load in a few milliseconds.
        """
        pybullet.resetSimulation(physicsClientId=self.client)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=TIME_STEP_S,
            numSolverIterations=SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
            physicsClientId=self.client,
        )
        pybullet.setGravity(0.0, 0.0, GRAVITY, physicsClientId=self.client)
        self.table = self.load("table", TABLE_POSITION, fixed=True)

    def load(
        self,
        name: str,
        position: Sequence[float],
        quaternion: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
        fixed: bool = False,
    ) -> int:
        """Load ``assets/<name>.urdf`` with its frame at ``position`` (m), ``quaternion`` (xyzw).

        Returns the body id.
        """
        return pybullet.loadURDF(
            os.path.join(ASSETS, f"{name}.urdf"),
            basePosition=tuple(float(v) for v in position),
            baseOrientation=tuple(float(v) for v in quaternion),
            useFixedBase=fixed,
            globalScaling=self.object_size if name in OBJECTS else 1.0,
            flags=pybullet.URDF_USE_INERTIA_FROM_FILE,
            physicsClientId=self.client,
        )

    def add(
        self,
        item: Item,
        position: Sequence[float],
        quaternion: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
    ) -> int:
        """Build ``item``, 0.05 kg, with its frame at ``position`` (m), ``quaternion`` (xyzw).

        Returns the body id.
        """
        kinds = {
            "box": pybullet.GEOM_BOX,
            "cylinder": pybullet.GEOM_CYLINDER,
            "sphere": pybullet.GEOM_SPHERE,
        }
        # The engine requires every list in full length and picks what each shape needs.
        factor = self.object_size
        shapes = dict(
            shapeTypes=[kinds[part.shape] for part in item.parts],
            halfExtents=[(factor * part.half_extents).tolist() for part in item.parts],
            radii=[factor * part.size[0] for part in item.parts],
            lengths=[factor * part.size[-1] for part in item.parts],
            physicsClientId=self.client,
        )
        places = [[factor * v for v in part.position] for part in item.parts]
        return pybullet.createMultiBody(
            ITEM_MASS_KG,
            pybullet.createCollisionShapeArray(collisionFramePositions=places, **shapes),
            pybullet.createVisualShapeArray(
                visualFramePositions=places,
                rgbaColors=[[*part.color, 1.0] for part in item.parts],
                **shapes,
            ),
            [float(v) for v in position],
            [float(v) for v in quaternion],
            physicsClientId=self.client,
        )

    def dress(self, look: Look, arm: int) -> None:
        """Give the table and every body but ``arm`` the texture and colours of ``look``."""
        if look.table_texture:
            texture = pybullet.loadTexture(
                os.path.join(ASSETS, f"table_{look.table_texture}.png"),
                physicsClientId=self.client,
            )
            pybullet.changeVisualShape(
                self.table, -1, textureUniqueId=texture, physicsClientId=self.client
            )
        self._tint(self.table, look.table_color, TABLE_HEADROOM)
        count = pybullet.getNumBodies(physicsClientId=self.client)
        bodies = [pybullet.getBodyUniqueId(i, physicsClientId=self.client) for i in range(count)]
        objects = [body for body in bodies if body not in (self.table, arm)]
        for body, factors in zip(objects, itertools.cycle(look.object_colors)):
            self._tint(body, factors)

    def _tint(self, body: int, factors: Sequence[float], most: float = 1.0) -> None:
        """Multiply the colours of a body's shapes by factors; none gets above ``most``."""
        if all(factor == 1.0 for factor in factors):
            return
        shapes: Dict[int, int] = {}  # of each link so far: the engine counts them link by link
        for data in pybullet.getVisualShapeData(body, physicsClientId=self.client):
            link, (*color, alpha) = data[1], data[7]
            shape = shapes[link] = shapes.get(link, -1) + 1
            tinted = [min(c * f, most) for c, f in zip(color, factors)]
            pybullet.changeVisualShape(
                body, link, shape, rgbaColor=[*tinted, alpha], physicsClientId=self.client
            )

    def remove(self, body: int) -> None:
        """Take a body out of the world."""
        pybullet.removeBody(body, physicsClientId=self.client)

    def step(self, substeps: int) -> None:
        """Advance physics by ``substeps`` of 1/240 s."""
        for _ in range(substeps):
            pybullet.stepSimulation(physicsClientId=self.client)

    def move(self, body: int, position: Sequence[float], quaternion: Sequence[float]) -> None:
        """Put a free body at rest at position (3,) m with quaternion (4,) xyzw, world axes."""
        pybullet.resetBasePositionAndOrientation(
            body,
            [float(v) for v in position],
            [float(v) for v in quaternion],
            physicsClientId=self.client,
        )
        pybullet.resetBaseVelocity(body, (0, 0, 0), (0, 0, 0), physicsClientId=self.client)

    def ignore_contacts(self, body: int, other: int) -> None:
        """Let two bodies pass through each other."""
        for link in range(-1, pybullet.getNumJoints(body, physicsClientId=self.client)):
            for other_link in range(-1, pybullet.getNumJoints(other, physicsClientId=self.client)):
                pybullet.setCollisionFilterPair(
                    body, other, link, other_link, 0, physicsClientId=self.client
                )

    def set_joint(self, body: int, joint: int, value: float, speed: float = 0.0) -> None:
        """Put a joint at ``value`` (rad or m), moving at ``speed`` per second."""
        pybullet.resetJointState(
            body, joint, float(value), float(speed), physicsClientId=self.client
        )

    def hold_joint(self, body: int, joint: int, force: float) -> None:
        """Switch on a motor that holds the joint still with at most ``force`` (N or N m)."""
        pybullet.setJointMotorControl2(
            body,
            joint,
            pybullet.VELOCITY_CONTROL,
            targetVelocity=0.0,
            force=force,
            physicsClientId=self.client,
        )

    def link_position(self, body: int, link: int) -> np.ndarray:
        """Return the centre of mass (3,) m of a link, world axes, as cached by the last substep."""
        return np.array(pybullet.getLinkState(body, link, physicsClientId=self.client)[0])

    def touching(self, body: int) -> Set[int]:
        """Return the ids of the bodies that ``body`` touched in the last substep."""
        points = pybullet.getContactPoints(bodyA=body, physicsClientId=self.client)
        return {point[2] for point in points}

    def pose(self, body: int) -> Tuple[np.ndarray, np.ndarray]:
        """Return centre of mass (3,) m and quaternion (4,) xyzw of a body's base, world axes."""
        position, quaternion = pybullet.getBasePositionAndOrientation(
            body, physicsClientId=self.client
        )
        return np.array(position), np.array(quaternion)


class Camera:
    """A fixed pinhole camera, drawn by the software renderer.

    TinyRenderer is chosen explicitly: OpenGL gives other colours on machines with a GPU, and
    images must not depend on the machine that collected them.
    """

    def __init__(
        self,
        target: Sequence[float],
        distance: float,
        yaw_deg: float,
        pitch_deg: float,
        fov_deg: float = 60.0,
        near: float = 0.1,
        far: float = 2.0,
        light_direction: Optional[Sequence[float]] = None,
    ) -> None:
        self.view = pybullet.computeViewMatrixFromYawPitchRoll(
            cameraTargetPosition=tuple(target),
            distance=distance,
            yaw=yaw_deg,
            pitch=pitch_deg,
            roll=0.0,
            upAxisIndex=2,
        )
        self.projection = pybullet.computeProjectionMatrixFOV(fov_deg, 1.0, near, far)
        self.light = tuple(light_direction or (1.0, 1.0, 1.0))

    def render(self, world: World, size: int, look: Optional[Look] = None) -> np.ndarray:
        """Draw the world: uint8 RGB (size, size, 3), with the lamp and camera pose of ``look``."""
        view: Sequence[float] = self.view
        light: Dict[str, Any] = {"lightDirection": self.light}
        if look is not None:
            view = _displaced(self.view, look)
            light = {
                "lightDirection": look.light_direction,
                "lightAmbientCoeff": AMBIENT,
                "lightDiffuseCoeff": DIFFUSE * look.light_level,
                "lightSpecularCoeff": SPECULAR * look.light_level,
            }
        image = pybullet.getCameraImage(
            size,
            size,
            viewMatrix=view,
            projectionMatrix=self.projection,
            **light,
            shadow=0,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=world.client,
        )[2]
        pixels = np.asarray(image, dtype=np.uint8).reshape(size, size, 4)
        return np.ascontiguousarray(pixels[:, :, :3])


def _displaced(view: Sequence[float], look: Look) -> Sequence[float]:
    """Return the view matrix (16, column by column) of a displaced and rotated camera."""
    if not any(look.camera_shift) and not any(look.camera_tilt):
        return view
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", look.camera_tilt).as_matrix()
    pose[:3, 3] = look.camera_shift
    return (np.linalg.inv(pose) @ np.reshape(view, (4, 4), order="F")).ravel(order="F").tolist()
