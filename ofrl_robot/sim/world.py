"""A thin PyBullet client: one private physics world per instance, several per process."""

from __future__ import annotations

import os
from typing import Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.sim.engine import pybullet

ASSETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets")
TIME_STEP_S = 1.0 / 240.0
GRAVITY = -10.0
SOLVER_ITERATIONS = 150


class World:
    """Owns one PyBullet DIRECT client and passes its id to every call.

    Without the explicit id PyBullet talks to the first client of the process, so a second
    environment would silently move the robot of the first.
    """

    def __init__(self) -> None:
        self.client: int = pybullet.connect(pybullet.DIRECT)

    @property
    def is_open(self) -> bool:
        return self.client >= 0

    def close(self) -> None:
        """Disconnect. Calling it again does nothing."""
        if self.client >= 0:
            client, self.client = self.client, -1
            try:
                pybullet.disconnect(physicsClientId=client)
            except pybullet.error:  # the interpreter is shutting down and took it first
                pass

    def clear(self) -> None:
        """Remove every body and set the engine's parameters.

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
            os.path.join(ASSETS, name + ".urdf"),
            basePosition=tuple(float(v) for v in position),
            baseOrientation=tuple(float(v) for v in quaternion),
            useFixedBase=fixed,
            physicsClientId=self.client,
        )

    def step(self, substeps: int) -> None:
        """Advance physics by ``substeps`` of 1/240 s."""
        for _ in range(substeps):
            pybullet.stepSimulation(physicsClientId=self.client)

    def pose(self, body: int) -> Tuple[np.ndarray, np.ndarray]:
        """Centre-of-mass position (3,) m and quaternion xyzw (4,) of a body's base, float64."""
        position, quaternion = pybullet.getBasePositionAndOrientation(
            body, physicsClientId=self.client
        )
        return np.array(position), np.array(quaternion)


class Camera:
    """A fixed pinhole camera drawn by the software renderer.

    TinyRenderer is asked for explicitly: OpenGL would give other colours on machines with a
    GPU, and images must not depend on the machine that collected them.
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

    def render(self, world: World, size: int) -> np.ndarray:
        """Draw the world: uint8 RGB (size, size, 3)."""
        image = pybullet.getCameraImage(
            size,
            size,
            viewMatrix=self.view,
            projectionMatrix=self.projection,
            lightDirection=self.light,
            shadow=0,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=world.client,
        )[2]
        pixels = np.asarray(image, dtype=np.uint8).reshape(size, size, 4)
        return np.ascontiguousarray(pixels[:, :, :3])
