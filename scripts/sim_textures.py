"""Draw the embedded simulator's own textures and meshes into ofrl_robot/sim/assets/.

Run it after a change here; the files are committed, and a test compares them. Everything is
drawn from the few numbers below and from seeded noise: no picture or mesh of others is read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

ASSETS = Path(__file__).resolve().parent.parent / "ofrl_robot" / "sim" / "assets"
Point = Tuple[float, float, float]

# The renderer shows a face that looks up at 0.8178 of its colour (measured).
LIT_UP = 0.8178

LIGHTEST = 245  # byte of a table's texture: the simulator makes tables up to 4 % brighter
# Table: red, green and blue (of 255, as the camera shows them) over the table, as polynomials
# in u = (x - 0.75 m) / 0.5 and v = (y + 0.2 m) / 0.75, which run from -1 to 1. Least squares
# over the table's pixels in the mean first frames of the two recorded files.
TABLE_SIZE_M = (1.0, 1.5)
TABLE_TEXELS = (256, 384)  # 3.9 mm each; a pixel of 48 covers 7 mm or more
TABLE_POWERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3))
TABLE_FIELD = np.array(
    [
        [175.6, 157.7, 129.8],
        [27.0, 28.0, 25.8],
        [4.4, 1.6, -2.7],
        [-7.2, -8.0, -4.4],
        [4.5, 7.1, 8.1],
        [-2.7, -6.5, -6.1],
        [-7.9, -5.6, -3.6],
        [1.9, 4.6, 8.3],
        [4.2, 5.0, 0.4],
        [-8.2, -5.1, -0.7],
    ]
)
TABLE_SEEN_V = 0.68  # nearer to the camera than this nothing is seen
# What the polynomials leave has a standard deviation of 2.5 and lasts about two pixels.
TABLE_GRAIN = 2.2

# Trays: grey and noise (standard deviation) of 255 as the camera shows them, in the order of the
# tiles in the texture.
TILE = 32
TILES: Dict[str, Tuple[float, float]] = {
    "back": (55.0, 3.0),
    "left": (32.0, 2.0),
    "right": (35.0, 2.0),
    "front": (45.0, 2.0),
    "outside": (60.0, 3.0),
    "rim": (55.0, 3.0),
    "divider": (84.0, 10.0),
    "floor": (78.0, 9.0),
}


def table() -> np.ndarray:
    """Return the table's texture, uint8 (rows, columns, 3): columns along x, rows down from +y."""
    columns, rows = TABLE_TEXELS
    u, v = np.meshgrid(np.linspace(-1.0, 1.0, columns), np.linspace(1.0, -1.0, rows))
    v = np.minimum(v, TABLE_SEEN_V)  # the camera sees no farther; a cubic would run away
    field = sum(
        np.multiply.outer(u**i * v**j, row) for (i, j), row in zip(TABLE_POWERS, TABLE_FIELD)
    )
    rng = np.random.default_rng(1)
    # Fibres along x, and blotches of some centimetres; the colours vary together (r = 0.8).
    grain = _noise(rng, (rows, columns), (0.5, 1.0)) + _noise(rng, (rows, columns), (5.0, 8.0))
    tint = np.stack([_noise(rng, (rows, columns), (1.0, 2.0)) for _ in range(3)], axis=2)
    field = field + TABLE_GRAIN * (grain[:, :, None] / np.sqrt(2.0) + 0.4 * tint)
    return np.minimum(_to_bytes(field / LIT_UP), LIGHTEST)


def other_tables() -> Dict[str, np.ndarray]:
    """Return textures of other tables of the same mean colour, uint8 (rows, columns, 3)."""
    rng = np.random.default_rng(3)
    mean = table().reshape(-1, 3).mean(axis=0)
    shape = rows, columns = 192, 128  # 7.8 mm each
    board = np.arange(rows) // 16  # 12.5 cm wide
    boards = rng.uniform(-1.0, 1.0, rows // 16)[board][:, None] * np.ones(columns)
    boards -= 2.5 * (np.arange(rows) % 16 == 0)[:, None]
    thread = (np.add.outer(np.arange(rows), np.arange(columns)) % 2) * 2.0 - 1.0
    relative = {
        "plain": np.zeros(shape),
        "boards": 0.06 * boards + 0.02 * _noise(rng, shape, (0.6, 4.0)),
        "weave": 0.05 * thread + 0.02 * _noise(rng, shape, (1.0, 1.0)),
        "worn": 0.07 * _noise(rng, shape, (7.0, 7.0)) + 0.03 * _noise(rng, shape, (0.5, 0.5)),
    }
    return {
        f"table_{name}": np.minimum(_to_bytes(mean * (1.0 + change)[:, :, None]), LIGHTEST)
        for name, change in relative.items()
    }


def tray() -> np.ndarray:
    """Return the trays' texture, uint8 (32, 32 * tiles, 3): worn dark metal."""
    rng = np.random.default_rng(2)
    tiles = []
    for name, (grey, noise) in TILES.items():
        tile = grey + noise * _noise(rng, (TILE, TILE), (1.0, 2.0))
        across, down = np.meshgrid(np.linspace(0.0, 1.0, TILE), np.linspace(0.0, 1.0, TILE))
        if name == "floor":  # polished where things have slid, dark in the far corner
            worn = np.exp(-(((across - 0.62) / 0.25) ** 2) - ((down - 0.8) / 0.45) ** 2)
            tile += 58.0 * worn - 35.0 * np.exp(-((across / 0.15) ** 2))
        if name == "divider":  # scratches in the middle, a seam at its foot
            tile -= 24.0 * np.exp(-(((across - 0.4) / 0.22) ** 2)) * (down < 0.6)
            tile[down > 0.82] = 38.0
        tiles.append(tile)
    grey = np.concatenate(tiles, axis=1)
    return _to_bytes(grey[:, :, None] * np.array([1.01, 1.0, 0.93]) / LIT_UP)


def table_mesh() -> str:
    """Return the table top as OBJ: its frame is the centre of the upper face."""
    x, y, z = TABLE_SIZE_M[0] / 2.0, TABLE_SIZE_M[1] / 2.0, -0.05
    top = [(-x, -y, 0.0), (x, -y, 0.0), (x, y, 0.0), (-x, y, 0.0)]
    mesh = Mesh("table")
    mesh.quad(top, (0.0, 0.0, 1.0, 1.0))
    for a, b in zip(top, top[1:] + top[:1]):  # the sides show the colour of the near edge
        mesh.quad([(a[0], a[1], z), (b[0], b[1], z), b, a], (0.0, 0.0, 1.0, 0.01))
    return mesh.text()


def tray_mesh() -> str:
    """Return a tray of 10.8 cm with a leaning divider as OBJ: its frame is on the table."""
    low, high, foot, top, edge = 0.0362, 0.0524, 0.0065, 0.0288, 0.0012
    inner = {
        "left": [(low, low, foot), (low, -low, foot), (high, -high, top), (high, high, top)],
        "right": [(-low, -low, foot), (-low, low, foot), (-high, high, top), (-high, -high, top)],
        "back": [(low, -low, foot), (-low, -low, foot), (-high, -high, top), (high, -high, top)],
        "front": [(-low, low, foot), (low, low, foot), (high, high, top), (-high, high, top)],
    }
    mesh = Mesh("tray", -0.0015)  # the frame is not quite its middle
    for name, corners in inner.items():
        mesh.quad(corners, _tile(name))
        wide = [_outwards(corner, edge) for corner in corners]
        mesh.quad(
            [(p[0], p[1], 0.0 if i < 2 else p[2]) for i, p in enumerate(wide)][::-1],
            _tile("outside"),
        )
        mesh.quad([corners[3], corners[2], wide[2], wide[3]], _tile("rim"))
    floor = [(low, low, foot), (-low, low, foot), (-low, -low, foot), (low, -low, foot)]
    mesh.quad(floor, _tile("floor"))  # as the camera sees it, from +y: x runs to the left
    near, far, side = -0.0055, -0.0295, (0.0362, 0.0500)
    face = [
        (side[0], near, foot),
        (-side[0], near, foot),
        (-side[1], far, top),
        (side[1], far, top),
    ]
    mesh.quad(face, _tile("divider"))
    mesh.quad(face[::-1], _tile("outside"))
    return mesh.text()


def plate_mesh() -> str:
    """Return the gripper's winged plate as OBJ, 3 mm thick along x, without a texture."""
    half = [(0.0507, 0.0), (0.0490, 0.0045), (0.0320, 0.0105), (0.0160, 0.0220), (0.0123, 0.0352)]
    under = [(0.0030, -0.0137), (0.0180, -0.0085), (0.0490, -0.0045)]
    outline = under + half + [(-y, z) for y, z in (under + half)[::-1]]
    lines = ["# drawn by scripts/sim_textures.py"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x in (0.0, 0.003) for y, z in outline]
    n = len(outline)
    # The outline is symmetric: strips between its two halves are convex, the whole is not.
    for i in range(n // 2 - 1):
        a, b, c, d = i + 1, i + 2, n - 1 - i, n - i
        lines += [f"f {a} {c} {b}", f"f {a} {d} {c}"]
        lines += [f"f {n + a} {n + b} {n + c}", f"f {n + a} {n + c} {n + d}"]
    for i in range(n):
        a, b = i + 1, (i + 1) % n + 1
        lines += [f"f {a} {b} {n + b}", f"f {a} {n + b} {n + a}"]
    return "\n".join([*lines, ""])


class Mesh:
    """Quads with texture coordinates, in the OBJ format."""

    def __init__(self, material: str, shift: float = 0.0) -> None:
        self._shift = shift  # of every corner along x, m
        self._lines: List[str] = [f"mtllib {material}.mtl", f"usemtl {material}"]
        self._count = 0

    def quad(self, corners: Sequence[Point], window: Tuple[float, float, float, float]) -> None:
        """Add a quad, seen counter-clockwise; ``window``: u and v of its first and third corner."""
        u0, v0, u1, v1 = window
        self._lines += [f"v {x + self._shift:.4f} {y:.4f} {z:.4f}" for x, y, z in corners]
        places = ((u0, v0), (u1, v0), (u1, v1), (u0, v1))
        self._lines += [f"vt {u:.5f} {v:.5f}" for u, v in places]
        n = self._count
        self._lines += [
            f"f {n + a}/{n + a} {n + b}/{n + b} {n + c}/{n + c}"
            for a, b, c in ((1, 2, 3), (1, 3, 4))
        ]
        self._count += 4

    def text(self) -> str:
        """Return the file."""
        return "\n".join(["# drawn by scripts/sim_textures.py", *self._lines, ""])


def material(name: str) -> str:
    """Return the MTL file of a material whose texture is ``name``.png."""
    return f"# drawn by scripts/sim_textures.py\nnewmtl {name}\nKd 1 1 1\nmap_Kd {name}.png\n"


def write(folder: Path) -> None:
    """Write every texture, material and mesh into ``folder``."""
    for name, pixels, mesh in (("table", table(), table_mesh()), ("tray", tray(), tray_mesh())):
        Image.fromarray(pixels).save(folder / f"{name}.png", optimize=True)
        (folder / f"{name}.mtl").write_text(material(name))
        (folder / f"{name}.obj").write_text(mesh)
    for name, pixels in other_tables().items():
        Image.fromarray(pixels).save(folder / f"{name}.png", optimize=True)
    (folder / "gripper_plate.obj").write_text(plate_mesh())


def _noise(
    rng: np.random.Generator, shape: Tuple[int, int], blur: Tuple[float, float]
) -> np.ndarray:
    smooth = gaussian_filter(rng.normal(size=shape), blur, mode="wrap")
    return (smooth - smooth.mean()) / smooth.std()


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _tile(name: str) -> Tuple[float, float, float, float]:
    """Return the window of a tile, half a texel inside its border."""
    count, margin = len(TILES), 0.5 / TILE
    at = list(TILES).index(name)
    return (at + margin) / count, margin, (at + 1 - margin) / count, 1.0 - margin


def _outwards(corner: Point, distance: float) -> Point:
    x, y, z = corner
    return x + float(np.sign(x)) * distance, y + float(np.sign(y)) * distance, z


if __name__ == "__main__":
    write(ASSETS)
    sys.exit(0)
