"""The thread that moves a joint target and sends it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ofrl_robot.robots.sawyer_stream import TargetStream


class Robot:
    """Keeps what it is sent, with the time."""

    def __init__(self):
        self.sent, self.fails = [], False

    def __call__(self, joints):
        if self.fails:
            raise ValueError("the topic is closed")
        self.sent.append((time.monotonic(), joints.copy()))


@pytest.fixture
def robot():
    return Robot()


@pytest.fixture
def stream(robot):
    made = TargetStream(robot, np.zeros(2), rate_hz=200.0)
    made.start()
    yield made
    made.close()


def test_a_move_is_linear_and_ends_where_it_should(stream, robot):
    stream.move(np.array([1.0, -2.0]), 0.1)
    time.sleep(0.15)
    joints = np.array([one for _, one in robot.sent])
    assert np.array_equal(joints[-1], [1.0, -2.0]) and np.array_equal(stream.goal(), [1.0, -2.0])
    assert (np.diff(joints[:, 0]) >= 0.0).all()
    assert np.allclose(joints[:, 1], -2.0 * joints[:, 0])


def test_a_move_begins_where_the_target_is(stream):
    stream.move(np.array([1.0, 0.0]), 0.2)
    time.sleep(0.1)
    here = stream.setpoint()[0]
    stream.move(np.array([0.0, 0.0]), 0.2)
    assert stream.setpoint()[0] == pytest.approx(here, abs=0.1)


def test_a_smooth_move_begins_and_ends_slowly(stream, robot):
    stream.move(np.array([1.0, 0.0]), 0.2, smooth=True)
    begun = stream._begun
    time.sleep(0.22)
    shares = [(t - begun) / 0.2 for t, _ in robot.sent]
    places = [joints[0] for _, joints in robot.sent]
    for share, place in zip(shares, places):
        if 0.0 < share < 0.2:
            assert place < share * 0.7
        elif 0.8 < share < 1.0:
            assert place > share


def test_a_hold_stays_and_refuses_what_was_decided_before_it(stream):
    holds = stream.holds
    stream.move(np.array([1.0, 0.0]), 1.0, holds)
    stream.hold(np.array([0.3, 0.3]))
    assert not stream.move(np.array([1.0, 0.0]), 1.0, holds)
    assert np.array_equal(stream.setpoint(), [0.3, 0.3])
    assert stream.move(np.array([1.0, 0.0]), 1.0, stream.holds)


def test_a_hold_without_joints_stays_at_the_target_of_that_moment(stream):
    stream.move(np.array([1.0, 0.0]), 0.1)
    time.sleep(0.05)
    stream.hold()
    here = stream.setpoint()
    time.sleep(0.1)
    assert np.array_equal(stream.setpoint(), here) and 0.0 < here[0] < 1.0


def test_an_error_of_the_sender_is_kept(stream, robot):
    assert stream.error is None
    robot.fails = True
    deadline = time.monotonic() + 2.0
    while stream.error is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert "closed" in str(stream.error)


def test_after_closing_nothing_is_sent(stream, robot):
    stream.close()
    stream.close()
    count = len(robot.sent)
    time.sleep(0.03)
    assert len(robot.sent) == count
