"""Signals survive the trip through ROS messages."""

from __future__ import annotations

import numpy as np
import pytest
from ofrl_ros import messages

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import widowx_observation

STAMP = 1_700_000_000_123_456_789


def test_image_round_trip_and_row_padding():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    message = messages.image_message(pixels, STAMP, "image")
    assert np.array_equal(messages.image_pixels(message), pixels)
    padded = np.zeros((5, 24), np.uint8)
    padded[:, :21] = pixels.reshape(5, 21)
    message.step, message.data = 24, padded.tobytes()
    assert np.array_equal(messages.image_pixels(message), pixels)
    message.encoding = "bgr8"
    assert np.array_equal(messages.image_pixels(message), pixels[..., ::-1])


def test_unknown_encoding_is_named():
    message = messages.image_message(np.zeros((2, 2, 3), np.uint8), STAMP, "wrist")
    message.encoding = "yuv422"
    with pytest.raises(ConfigError, match="wrist.*yuv422"):
        messages.image_pixels(message)


@pytest.mark.parametrize("delay", [0, 1, 41_666_667, 3_000_000_001, -7_200_000_000_001])
def test_applied_round_trip(delay):
    applied = AppliedAction(
        STAMP, np.linspace(-1, 1, 8), np.linspace(-2, 2, 8), "human", ("range",), True,
        applied_ns=STAMP + delay,
    )  # fmt: skip
    back = messages.applied_from(messages.applied_message(applied))
    assert (back.stamp_ns, back.source, back.limited, back.intervention) == (
        STAMP, "human", True, True,
    )  # fmt: skip
    np.testing.assert_allclose(back.action, applied.action)
    np.testing.assert_allclose(back.requested, applied.requested)
    assert back.applied_ns == STAMP + delay


def test_applied_of_an_earlier_version_left_with_its_tick():
    message = messages.applied_message(AppliedAction(STAMP, np.zeros(8), np.zeros(8), "hold"))
    message.buttons = message.buttons[:2]
    assert messages.applied_from(message).applied_ns == STAMP


def test_stamp_keeps_nanoseconds():
    assert messages.stamp_of(STAMP).to_nsec() == STAMP


def test_tick_message_names_state_and_bookkeeping():
    spec = widowx_observation()
    captured = STAMP - 12_345_678
    tick = Tick(
        STAMP, 3, {}, np.arange(10.0), reward=1.0, truncated=True, state_stamp_ns=captured
    )  # fmt: skip
    message = messages.tick_message(tick, spec, seed=42)
    values = dict(zip(message.name, message.position))
    assert values["ee_z"] == 2.0
    assert (values["step"], values["seed"], values["reward"]) == (3, 42, 1.0)
    assert (values["terminated"], values["truncated"]) == (0.0, 1.0)
    assert messages.state_stamp(message) == captured
