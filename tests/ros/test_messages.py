"""Signals survive the trip through ROS messages."""

from __future__ import annotations

import numpy as np
import pytest
from std_msgs.msg import String

from ofrl_robot.control.signals import AppliedAction, ArmState, Tick
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import widowx_observation
from ofrl_ros import messages

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


def test_stamp_keeps_nanoseconds():
    assert messages.stamp_of(STAMP).to_nsec() == STAMP


def test_tick_message_names_state_and_bookkeeping():
    spec = widowx_observation()
    captured = STAMP - 12_345_678
    tick = Tick(
        STAMP, 3, {}, np.arange(10.0), reward=1.0, truncated=True, state_stamp_ns=captured
    )  # fmt: skip
    message = messages.tick_message(tick, spec, messages.TickInfo(seed=42, episode=7))
    values = dict(zip(message.name, message.position))
    assert values["ee_z"] == 2.0
    assert (values["step"], values["seed"], values["episode"], values["reward"]) == (3, 42, 7, 1.0)
    assert (values["terminated"], values["truncated"]) == (0.0, 1.0)
    assert messages.state_stamp(message) == captured


def test_every_pose_says_in_which_frame_it_is():
    """The simulator measures in its world; that is what the messages say, and where the base is."""
    spec = widowx_observation()
    tick = Tick(STAMP, 0, {}, np.zeros(10), ground_truth={"ee_position": np.zeros(3)})
    info = messages.TickInfo(0, 1)
    assert messages.tick_message(tick, spec, info).header.frame_id == "world"
    assert messages.ground_truth_message(tick).header.frame_id == "world"
    state = ArmState(STAMP, np.zeros(10), np.array([0.6, 0.1, -0.2]), np.array([0, 0, 0, 1.0]))
    for frame in ("world", "base"):
        pose = messages.pose_message(state, frame)
        assert pose.header.frame_id == frame and pose.pose.position.x == 0.6
    (transform,) = messages.base_transform(((0.6, 0.0, -0.4), (0.0, 0.0, 0.0, 1.0))).transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("world", "base")
    assert transform.transform.translation.z == -0.4 and transform.transform.rotation.w == 1.0


def test_an_image_of_another_size_than_its_data_is_named():
    message = messages.image_message(np.zeros((2, 2, 3), np.uint8), STAMP, "wrist")
    message.height = 3
    with pytest.raises(ConfigError, match="wrist: image has 12 bytes for 2x3 pixels"):
        messages.image_pixels(message)


def test_what_is_said_of_the_pictures_survives_and_junk_does_not():
    remarks = {"score": 2.1, "outside": True, "words": "left side 30 darker"}
    assert messages.pictures_from(messages.pictures_message(7, remarks)) == (7, remarks)
    for junk in (
        "",
        "[]",
        "{}",
        '{"seed": "7"}',
        '{"seed": true}',
        '{"seed": 1, "a": "%s"}' % ("x" * 5000),
    ):
        with pytest.raises(ValueError):
            messages.pictures_from(String(junk))
