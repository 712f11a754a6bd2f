"""Encoded images (JPEG) of somebody else's file into arrays."""

from __future__ import annotations

import io
from typing import List, Tuple

import numpy as np
from PIL import Image

from ofrl_robot.data.convert.trajectory import bad

_MAX_PIXELS = 2**25  # a few bytes can declare billions; 33 Mpx is 8K video


def decode_jpegs(encoded: List[bytes], where: object) -> np.ndarray:
    """uint8 (n, H, W, 3) RGB. Raises DatasetError where one is no JPEG or of another size."""
    if not encoded:
        return np.zeros((0, 0, 0, 3), np.uint8)
    first = _open(encoded[0], where)
    frames = np.empty((len(encoded),) + _shape(first), np.uint8)
    for number, data in enumerate(encoded):
        image = _open(data, where)
        if _shape(image) != frames.shape[1:]:
            raise bad("image {} is {}x{}, others are not".format(number, *image.size), where)
        try:
            frames[number] = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise bad(f"image {number} is damaged ({error})", where) from error
    return frames


def _open(data: bytes, where: object) -> Image.Image:
    """Read the header only: the size is known before anything is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise bad("an image is no JPEG", where) from error
    if image.size[0] * image.size[1] > _MAX_PIXELS:
        raise bad("an image declares {}x{} pixels".format(*image.size), where)
    return image


def _shape(image: Image.Image) -> Tuple[int, int, int]:
    return (image.size[1], image.size[0], 3)
