"""Measure light, colour and grain of a picture, and say in words how they differ from the data's.

These numbers do not decide whether a policy is in trouble (its own features do, see
``pictures.py``); they tell a person what to look at.
"""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

SIDES = ("left side", "right side", "upper part", "lower part")
QUANTITIES = ("picture", *SIDES, "contrast", "red", "green", "blue", "grain")
# Least excess that is worth a word, in units of 255. Frames of a camera at rest vary by 0.1 in
# their mean and by 0.5 in their colours (recorded frames of the embedded simulator, realism mild).
LEAST_LIGHT, LEAST_OTHER, LEAST_GRAIN = 3.0, 2.0, 0.5
MOST_PIXELS = 128  # per side; larger pictures are thinned out, so that 640x480 takes 0.5 ms
_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601
_WORDS = {"red": ("redder", "less red"), "green": ("greener", "less green"),
          "blue": ("bluer", "less blue")}  # fmt: skip
WHOLE_SHARE = 0.6  # of the largest side's excess from which the whole picture is named


def measure(image: np.ndarray) -> np.ndarray:
    """Return the QUANTITIES of an image, float64 (10,), in units of 255.

    The mean luminance of the whole picture and of its outer quarters; the standard deviation of
    the luminance; the mean of each channel less that of the luminance; and the mean step between
    neighbours (grain, sharpness).

    Args:
        image: uint8 RGB (H, W, 3).
    """
    stride = max(1, -(-max(image.shape[:2]) // MOST_PIXELS))
    pixels = image[::stride, ::stride].astype(np.float32)
    light = pixels @ _LUMINANCE
    rows, columns = (max(1, size // 4) for size in light.shape)
    mean = light.mean()
    steps = [np.abs(np.diff(light, axis=axis)) for axis in (0, 1)]
    parts = light[:, :columns], light[:, -columns:], light[:rows], light[-rows:]
    return np.array(
        [
            mean,
            *(part.mean() for part in parts),
            light.std(),
            *(pixels.mean((0, 1)) - mean),
            np.mean([step.mean() if step.size else 0.0 for step in steps]),
        ],
        np.float64,
    )


def differences(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, worth: float = 1.0
) -> List[str]:
    """Return what is outside a range in words, the largest difference first; empty if nothing is.

    Args:
        values, low, high: float (10,), in the order of QUANTITIES.
        worth: how often the least excess that is worth a word a difference must be.
    """
    excess = np.maximum(values - high, 0.0) - np.maximum(low - values, 0.0)
    found: List[Tuple[float, str]] = []  # size in units of what is worth a word, words
    whole, sides = excess[0], excess[1 : 1 + len(SIDES)]
    side = int(np.abs(sides).argmax())
    if abs(whole) >= WHOLE_SHARE * abs(sides[side]):
        name, amount = "picture", whole
    else:
        name, amount = SIDES[side], sides[side]
    if abs(amount) >= worth * LEAST_LIGHT:
        word = "brighter" if amount > 0 else "darker"
        found.append((abs(amount) / LEAST_LIGHT, f"{name} {abs(amount):.0f} {word}"))
    # one channel more is two channels less: only the most different one is named
    cast = max(_WORDS, key=lambda name: abs(excess[QUANTITIES.index(name)]))
    for quantity in ("contrast", cast, "grain"):
        amount = excess[QUANTITIES.index(quantity)]
        least = LEAST_GRAIN if quantity == "grain" else LEAST_OTHER
        if abs(amount) < worth * least:
            continue
        if quantity in _WORDS:
            text = f"{abs(amount):.0f} {_WORDS[quantity][int(amount < 0)]}"
        elif quantity == "contrast":
            text = f"contrast {abs(amount):.0f} {'higher' if amount > 0 else 'lower'}"
        else:
            text = f"grain {abs(amount):.1f} {'stronger' if amount > 0 else 'weaker'}"
        found.append((abs(amount) / least, text))
    return [text for _, text in sorted(found, reverse=True)]
