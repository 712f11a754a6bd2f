"""Light, colour and grain in numbers, and what differs in words."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.policy.light import QUANTITIES, differences, measure

FLAT = np.full((48, 48, 3), (100, 120, 140), np.uint8)


def changed(change):
    return np.clip(np.rint(FLAT.astype(float) + change), 0, 255).astype(np.uint8)


def ramp(amount):
    """From -amount at the left edge to +amount at the right one."""
    return np.linspace(-amount, amount, 48)[None, :, None]


def test_a_flat_picture_in_numbers():
    values = dict(zip(QUANTITIES, measure(FLAT)))
    luminance = 0.299 * 100 + 0.587 * 120 + 0.114 * 140
    for name in ("picture", "left side", "right side", "upper part", "lower part"):
        assert values[name] == pytest.approx(luminance, abs=1e-3)
    assert values["red"] == pytest.approx(100 - luminance, abs=1e-3)
    assert values["contrast"] == pytest.approx(0, abs=1e-3) and values["grain"] == 0


@pytest.mark.parametrize(
    "change, words",
    [
        (0, []),
        (-30, ["picture 30 darker"]),
        (20, ["picture 20 brighter"]),
        ((25, 0, 0), ["18 redder", "picture 7 brighter"]),
    ],
)
def test_what_differs_from_a_point(change, words):
    base = measure(FLAT)
    assert differences(measure(changed(change)), base, base) == words


def test_a_side_is_named_where_it_is_the_side():
    base = measure(FLAT)
    left_dark = changed(np.minimum(ramp(60), 0))
    assert differences(measure(left_dark), base, base)[0].startswith("left side 4")
    bottom = changed(np.maximum(ramp(60), 0).swapaxes(0, 1))
    assert differences(measure(bottom), base, base)[0].startswith("lower part 4")


def test_grain_and_a_range():
    noise = np.random.default_rng(0).normal(0, 12, (48, 48, 1))
    base = measure(FLAT)
    (grain, *_) = differences(measure(changed(noise)), base, base)
    assert grain.startswith("grain 13") and grain.endswith("stronger")
    wide = np.full(len(QUANTITIES), 40.0)
    assert differences(measure(changed(-30)), base - wide, base + wide) == []
    assert differences(measure(changed(-42)), base - wide, base + wide) == []  # 2 is no news


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 3), (480, 640, 3)])
def test_any_size_has_finite_numbers(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.isfinite(measure(image)).all()
