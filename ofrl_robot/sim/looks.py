"""Looks of the simulated scene: lamp, table, objects, camera pose, exposure; drawn by episode.

They change pictures only: physics, and where the objects lie, are the same to the bit.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, Tuple

import numpy as np

from ofrl_robot.errors import ConfigError

Vector = Tuple[float, float, float]

TEXTURES = ("plain", "boards", "weave", "worn")  # of the table, beside its own


def _up_to(most: float) -> Any:
    return dataclasses.field(default=0.0, metadata={"most": most})


@dataclasses.dataclass(frozen=True)
class Looks:
    """How far the looks of an episode may be from the usual ones. The default is not at all.

    Every value is drawn uniformly between minus and plus the setting, anew for each episode.

    Attributes:
        light_angle: degrees by which the lamp's direction turns, in any direction, 0..60.
        light_level: fraction by which the lamp's own light is brighter or darker, 0..1.
        light_gradient: shade across the picture, along x and along y: change at the edges of a
            white surface, of 255, 0..128.
        table_color: fraction by which each colour of the table changes, 0..0.5.
        table_texture: probability that the table has another texture, 0..1.
        object_color: fraction by which each colour of each object changes, 0..0.5; neither table
            nor arm are objects.
        camera_shift_mm: displacement of the camera along each of its axes, mm, 0..50.
        camera_tilt_deg: rotation of the camera about each of its axes, degrees, 0..10.
        exposure: fraction by which the whole picture is brighter or darker, 0..0.5.
        white_balance: fraction by which red and blue change, each on its own, 0..0.5.

    Raises:
        ConfigError: a value outside its range, or not finite.
    """

    light_angle: float = _up_to(60.0)
    light_level: float = _up_to(1.0)
    light_gradient: float = _up_to(128.0)
    table_color: float = _up_to(0.5)
    table_texture: float = _up_to(1.0)
    object_color: float = _up_to(0.5)
    camera_shift_mm: float = _up_to(50.0)
    camera_tilt_deg: float = _up_to(10.0)
    exposure: float = _up_to(0.5)
    white_balance: float = _up_to(0.5)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, most = getattr(self, field.name), field.metadata["most"]
            if not 0.0 <= value <= most:  # false for NaN, too
                raise ConfigError(f"{field.name} is {value:g}", f"use 0..{most:g}")

    def draw(self, rng: np.random.Generator) -> "Look":
        """Draw the looks of one episode.

        The same numbers are drawn whatever the settings: a seed turns the lamp the same way with
        and without another table, so that trials with and without a setting are pairs.
        """
        unit = rng.uniform(-1.0, 1.0, 20)
        texture = rng.random(), int(rng.integers(len(TEXTURES)))
        object_colors = rng.uniform(-1.0, 1.0, (MOST_OBJECTS, 3))
        azimuth = math.pi * unit[0]
        return Look(
            light_direction=_turned(math.radians(self.light_angle) * unit[1], azimuth),
            light_level=1.0 + self.light_level * unit[2],
            light_slopes=tuple((self.light_gradient / 255.0 * unit[3:5]).tolist()),
            table_color=tuple((1.0 + self.table_color * unit[5:8]).tolist()),
            table_texture=TEXTURES[texture[1]] if texture[0] < self.table_texture else "",
            object_colors=tuple(map(tuple, (1.0 + self.object_color * object_colors).tolist())),
            camera_shift=tuple((self.camera_shift_mm / 1e3 * unit[8:11]).tolist()),
            camera_tilt=tuple((math.radians(self.camera_tilt_deg) * unit[11:14]).tolist()),
            gains=self._gains(unit[14:17]),
        )

    def _gains(self, unit: np.ndarray) -> Vector:
        exposure = 1.0 + self.exposure * unit[0]
        red, blue = 1.0 + self.white_balance * unit[1:]
        return float(exposure * red), float(exposure), float(exposure * blue)


USUAL = Looks()
LAMP = (1.0, 1.0, 1.0)  # direction to the lamp in roboverse, world axes
MOST_OBJECTS = 8  # objects of a scene that get a colour of their own


@dataclasses.dataclass(frozen=True)
class Look:
    """The looks of one episode.

    Attributes:
        light_direction: towards the lamp, world axes; its length does not matter.
        light_level: factor of the lamp's own light.
        light_slopes: relative change of brightness from the middle of the picture to its right
            and to its lower edge.
        table_color: factor of red, green and blue.
        table_texture: one of ``TEXTURES``, empty for the usual one.
        object_colors: factors of red, green and blue, for each object of the scene in turn.
        camera_shift: displacement along the camera's axes (right, up, back), m.
        camera_tilt: rotation about the camera's axes, rad.
        gains: factors of red, green and blue of the picture.
    """

    light_direction: Vector
    light_level: float
    light_slopes: Tuple[float, ...]
    table_color: Tuple[float, ...]
    table_texture: str
    object_colors: Tuple[Tuple[float, ...], ...]
    camera_shift: Tuple[float, ...]
    camera_tilt: Tuple[float, ...]
    gains: Vector

    def to_dict(self) -> Dict[str, Any]:
        """Return the looks as JSON values."""
        return dataclasses.asdict(self)

    def develop(self, image: np.ndarray) -> np.ndarray:
        """Apply shade, exposure and white balance: uint8 RGB (S, S, 3) to the same."""
        if not any(self.light_slopes) and self.gains == (1.0, 1.0, 1.0):
            return image
        edge = np.linspace(-1.0, 1.0, len(image), dtype=np.float32)
        right, down = self.light_slopes
        shade = 1.0 + right * edge[None, :] + down * edge[:, None]
        developed = image * shade[:, :, None].astype(np.float32)
        developed *= np.array(self.gains, np.float32)
        return np.clip(np.rint(developed), 0, 255).astype(np.uint8)


def _turned(angle: float, azimuth: float) -> Vector:
    """Return ``LAMP`` turned by ``angle`` (rad) about an axis across it, chosen by ``azimuth``."""
    if angle == 0.0:
        return LAMP
    along = np.array(LAMP) / math.sqrt(3.0)
    side = np.cross(along, (0.0, 0.0, 1.0))
    side /= np.linalg.norm(side)
    other = np.cross(along, side)
    across = math.cos(azimuth) * side + math.sin(azimuth) * other
    turned = math.sqrt(3.0) * (math.cos(angle) * along + math.sin(angle) * across)
    x, y, z = turned.tolist()
    return x, y, max(z, 0.1)  # never from below the table
