"""Decode the JPEG images of a foreign file into arrays."""

from __future__ import annotations

import io
from typing import List, Tuple

import numpy as np
from PIL import Image

from ofrl_robot.data.convert.trajectory import trajectory_error

_MAX_PIXELS = 2**25  # a few bytes can declare billions; 33 Mpx is 8K video


def decode_jpegs(encoded: List[bytes], where: object) -> np.ndarray:
    """Return uint8 (n, H, W, 3) RGB.

    Raises:
        DatasetError: one is not a JPEG, is damaged, or has another size than the first.
    """
    if not encoded:
        return np.zeros((0, 0, 0, 3), np.uint8)
    first = _open(encoded[0], where)
    frames = np.empty((len(encoded),) + _shape(first), np.uint8)
    for number, data in enumerate(encoded):
        image = _open(data, where)
        if _shape(image) != frames.shape[1:]:
            width, height = image.size
            text = f"image {number} is {width}x{height} pixels, the first is not"
            raise trajectory_error(text, where)
        try:
            frames[number] = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise trajectory_error(f"image {number} is damaged ({error})", where) from error
    return frames


def _open(data: bytes, where: object) -> Image.Image:
    """Read the header only, so that the size is known before anything is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise trajectory_error("an image is not a JPEG", where) from error
    width, height = image.size
    if width * height > _MAX_PIXELS:
        text = f"an image declares {width}x{height} pixels, at most {_MAX_PIXELS} are read"
        raise trajectory_error(text, where)
    return image


def _shape(image: Image.Image) -> Tuple[int, int, int]:
    return (image.size[1], image.size[0], 3)
