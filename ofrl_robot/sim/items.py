"""Catalogue of 35 small objects built from primitives, for tasks that draw their object."""

from __future__ import annotations

import dataclasses
import math
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np

from ofrl_robot.errors import ConfigError

Vector = Tuple[float, float, float]

PALETTE: Dict[str, Vector] = {
    "red": (0.80, 0.07, 0.07),
    "orange": (0.95, 0.45, 0.02),
    "yellow": (0.95, 0.88, 0.05),
    "green": (0.10, 0.50, 0.12),
    "lime": (0.50, 0.90, 0.15),
    "cyan": (0.10, 0.80, 0.85),
    "blue": (0.08, 0.15, 0.75),
    "purple": (0.42, 0.08, 0.55),
    "pink": (0.98, 0.45, 0.70),
    "brown": (0.35, 0.17, 0.06),
    "black": (0.06, 0.06, 0.07),
    "white": (0.96, 0.96, 0.96),
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One primitive of an item, in the item's frame.

    Attributes:
        shape: "box", "cylinder" (upright) or "sphere".
        size: m; box: its three sides; cylinder: radius, length; sphere: radius.
        position: centre, m.
        color: red, green, blue in [0, 1].
    """

    shape: str
    size: Tuple[float, ...]
    position: Vector
    color: Vector

    @property
    def volume(self) -> float:
        """Volume, m^3."""
        if self.shape == "box":
            return float(np.prod(self.size))
        if self.shape == "cylinder":
            return math.pi * self.size[0] ** 2 * self.size[1]
        return 4.0 / 3.0 * math.pi * self.size[0] ** 3

    @property
    def half_extents(self) -> np.ndarray:
        """Half of the bounding box's sides (3,) m."""
        if self.shape == "box":
            return np.array(self.size) / 2.0
        radius = self.size[0]
        return np.array([radius, radius, self.size[-1] / 2.0 if len(self.size) > 1 else radius])


@dataclasses.dataclass(frozen=True)
class Item:
    """A rigid compound of parts; its frame is the centre of mass, axes as it stands.

    The gripper closes along x, in which no item is wider than 3 cm (the open fingers are 5 cm
    apart); none is longer than 5 cm or higher than 5 cm.
    """

    name: str
    parts: Tuple[Part, ...]

    @property
    def low(self) -> np.ndarray:
        """Lower corner of the bounding box (3,) m."""
        return np.min([np.array(p.position) - p.half_extents for p in self.parts], axis=0)

    @property
    def high(self) -> np.ndarray:
        """Upper corner of the bounding box (3,) m."""
        return np.max([np.array(p.position) + p.half_extents for p in self.parts], axis=0)


def catalogue(count: int) -> Tuple[Item, ...]:
    """Return the first ``count`` items; the most distinct ones come first.

    Raises:
        ConfigError: ``count`` is not in 1..35.
    """
    if not 1 <= count <= len(CATALOGUE):
        raise ConfigError(f"{count} objects are not available", f"use 1..{len(CATALOGUE)}")
    return CATALOGUE[:count]


# Forms: functions from two colours to parts. Sizes and places in mm, z from the underside.

Form = Callable[[Vector, Vector], List[Part]]


def _box(color: Vector, size: Vector, at: Vector) -> Part:
    return Part("box", _metres(size), _metres(at), color)


def _cylinder(color: Vector, radius: float, length: float, at: Vector) -> Part:
    return Part("cylinder", _metres((radius, length)), _metres(at), color)


def _ball(color: Vector, radius: float, at: Vector) -> Part:
    return Part("sphere", _metres((radius,)), _metres(at), color)


def _metres(values: Sequence[float]) -> Tuple[float, ...]:
    return tuple(v / 1000.0 for v in values)


def _brick(a: Vector, b: Vector) -> List[Part]:
    return [_box(a, (26, 48, 14), (0, 0, 7)), _box(b, (26, 48, 12), (0, 0, 20))]


def _post(a: Vector, b: Vector) -> List[Part]:
    return [_cylinder(a, 13, 30, (0, 0, 15)), _cylinder(b, 13, 10, (0, 0, 35))]


def _tee(a: Vector, b: Vector) -> List[Part]:
    return [_box(a, (30, 14, 24), (0, 16, 12)), _box(b, (16, 32, 24), (0, -7, 12))]


def _tower(a: Vector, b: Vector) -> List[Part]:
    return [
        _box(a, (30, 30, 16), (0, 0, 8)),
        _box(b, (22, 22, 14), (0, 0, 23)),
        _box(a, (14, 14, 14), (0, 0, 37)),
    ]


def _dumbbell(a: Vector, b: Vector) -> List[Part]:
    return [
        _cylinder(a, 13, 24, (0, 12, 12)),
        _cylinder(a, 13, 24, (0, -12, 12)),
        _box(b, (10, 34, 10), (0, 0, 29)),
    ]


def _cross(a: Vector, b: Vector) -> List[Part]:
    return [_box(a, (30, 16, 24), (0, 0, 12)), _box(b, (14, 48, 20), (0, 0, 10))]


def _mushroom(a: Vector, b: Vector) -> List[Part]:
    return [_cylinder(a, 10, 24, (0, 0, 12)), _cylinder(b, 15, 14, (0, 0, 31))]


def _stairs(a: Vector, b: Vector) -> List[Part]:
    return [
        _box(a, (26, 16, 14), (0, 16, 7)),
        _box(b, (26, 16, 26), (0, 0, 13)),
        _box(a, (26, 16, 38), (0, -16, 19)),
    ]


def _snowman(a: Vector, b: Vector) -> List[Part]:
    return [
        _cylinder(b, 14.5, 14, (0, 0, 7)),
        _ball(a, 13, (0, 0, 22)),
        _ball(a, 9, (0, 0, 39)),
    ]


def _frame(a: Vector, b: Vector) -> List[Part]:
    sides = [_box(a, (8, 46, 22), (x, 0, 11)) for x in (-11, 11)]
    return sides + [_box(b, (14, 9, 22), (0, y, 11)) for y in (-18.5, 18.5)]


def _ell(a: Vector, b: Vector) -> List[Part]:
    return [_box(a, (28, 16, 24), (0, 16, 12)), _box(b, (14, 32, 24), (-7, -8, 12))]


def _arch(a: Vector, b: Vector) -> List[Part]:
    legs = [_box(a, (10, 26, 26), (x, 0, 13)) for x in (-10, 10)]
    return legs + [_box(b, (30, 30, 12), (0, 0, 32))]


def _crown(a: Vector, b: Vector) -> List[Part]:
    posts = [_box(b, (8, 8, 18), (x, y, 27)) for x in (-8, 8) for y in (-8, 8)]
    return posts + [_cylinder(a, 15, 18, (0, 0, 9))]


def _lollipop(a: Vector, b: Vector) -> List[Part]:
    return [_cylinder(a, 15, 26, (0, 9, 13)), _box(b, (14, 24, 18), (0, -13, 9))]


def _car(a: Vector, b: Vector) -> List[Part]:
    wheels = [_box(b, (28, 12, 10), (0, y, 5)) for y in (-15, 15)]
    return wheels + [_box(a, (24, 48, 16), (0, 0, 14)), _box(a, (24, 24, 12), (0, 0, 28))]


def _hat(a: Vector, b: Vector) -> List[Part]:
    return [_cylinder(a, 15, 12, (0, 0, 6)), _cylinder(b, 10, 28, (0, 0, 26))]


def _table(a: Vector, b: Vector) -> List[Part]:
    legs = [_box(a, (7, 8, 22), (x, y, 11)) for x in (-10, 10) for y in (-18, 18)]
    return legs + [_box(b, (28, 46, 12), (0, 0, 28))]


def _twins(a: Vector, b: Vector) -> List[Part]:
    pillars = [_cylinder(b, 11, 24, (0, y, 26)) for y in (-12, 12)]
    return pillars + [_box(a, (26, 48, 14), (0, 0, 7))]


def _pillar(a: Vector, b: Vector) -> List[Part]:
    return [_box(a, (20, 20, 30), (0, 0, 15)), _box(b, (28, 28, 12), (0, 0, 36))]


def _channel(a: Vector, b: Vector) -> List[Part]:
    sides = [_box(a, (8, 42, 26), (x, 0, 13)) for x in (-10, 10)]
    return sides + [_box(b, (12, 42, 8), (0, 0, 4))]


_FORMS: Dict[str, Form] = {
    "brick": _brick,
    "post": _post,
    "tee": _tee,
    "tower": _tower,
    "dumbbell": _dumbbell,
    "cross": _cross,
    "mushroom": _mushroom,
    "stairs": _stairs,
    "snowman": _snowman,
    "frame": _frame,
    "ell": _ell,
    "arch": _arch,
    "crown": _crown,
    "lollipop": _lollipop,
    "car": _car,
    "hat": _hat,
    "table": _table,
    "twins": _twins,
    "pillar": _pillar,
    "channel": _channel,
}

# form, first and second colour; each row differs most from the rows before it in the
# camera's image of 48 x 48 pixels, so that a small pool holds the most distinct objects
_TABLE: Tuple[Tuple[str, str, str], ...] = (
    ("brick", "red", "red"),
    ("cross", "cyan", "cyan"),
    ("channel", "black", "white"),
    ("snowman", "white", "black"),
    ("twins", "black", "blue"),
    ("post", "white", "black"),
    ("tower", "green", "yellow"),
    ("crown", "white", "yellow"),
    ("frame", "white", "black"),
    ("hat", "orange", "blue"),
    ("dumbbell", "blue", "yellow"),
    ("ell", "orange", "blue"),
    ("tee", "black", "green"),
    ("lollipop", "purple", "cyan"),
    ("pillar", "purple", "lime"),
    ("table", "black", "pink"),
    ("mushroom", "blue", "orange"),
    ("arch", "white", "blue"),
    ("car", "white", "black"),
    ("stairs", "brown", "red"),
    ("crown", "red", "cyan"),
    ("frame", "cyan", "red"),
    ("tower", "blue", "white"),
    ("ell", "cyan", "black"),
    ("hat", "cyan", "red"),
    ("channel", "red", "cyan"),
    ("cross", "purple", "yellow"),
    ("tee", "green", "pink"),
    ("dumbbell", "yellow", "black"),
    ("post", "yellow", "cyan"),
    ("snowman", "brown", "pink"),
    ("twins", "purple", "yellow"),
    ("lollipop", "yellow", "black"),
    ("table", "black", "green"),
    ("brick", "blue", "orange"),
)


def _make_item(form: str, first: str, second: str) -> Item:
    """Return an item with its frame at the centre of mass."""
    parts = _FORMS[form](PALETTE[first], PALETTE[second])
    places = np.array([part.position for part in parts])
    centre = np.average(places, axis=0, weights=[part.volume for part in parts])
    color = first if first == second else f"{first}-{second}"
    moved = (
        dataclasses.replace(part, position=tuple((place - centre).tolist()))
        for part, place in zip(parts, places)
    )
    return Item(f"{color} {form}", tuple(moved))


CATALOGUE: Tuple[Item, ...] = tuple(_make_item(*row) for row in _TABLE)
