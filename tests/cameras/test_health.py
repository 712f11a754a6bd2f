"""What is a new frame, and when a camera must not be trusted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofrl_robot.cameras.camera import ARRIVAL, DEVICE, Frame, wall_stamp
from ofrl_robot.cameras.health import DISCONNECTED, ENDED, FROZEN, STALE, STARTING, Health

WALL = 1_700_000_000_000_000_000
PERIOD = 0.1


class Clock:
    """A camera of 10 fps seen through Health: time goes on by hand."""

    def __init__(self, frozen_after=5):
        self.health = Health(10.0, stale_after=6, frozen_after=frozen_after)
        self.now = 100.0

    def take(self, value, after=PERIOD, latency=0.0):
        self.now += after
        wall = WALL + int(self.now * 1e9)
        stamp = wall - int(latency * 1e9)
        return self.health.take(
            Frame(np.full((2, 2, 3), value, np.uint8), stamp, DEVICE), wall, self.now
        )

    @property
    def reason(self):
        return self.health.reason(self.now)

    @property
    def values(self):
        return self.health.values(self.now)


@pytest.fixture
def clock():
    return Clock()


def test_before_the_first_frame(clock):
    assert clock.reason == STARTING and clock.values["age_s"] == ""
    clock.health.lost()
    assert clock.reason == DISCONNECTED
    assert clock.take(1) and clock.reason == ""


def test_stale_after_six_periods_without_a_new_frame(clock):
    clock.take(1)
    clock.now += 0.59
    assert clock.reason == ""
    clock.now += 0.02
    assert clock.reason == STALE
    assert clock.take(2) and clock.reason == ""


def test_a_frame_that_arrives_old_is_stale_at_once(clock):
    clock.take(1)
    clock.take(2, latency=0.7)
    assert clock.reason == STALE, "a driver that serves its backlog"


def test_a_repeated_frame_is_not_new_and_five_in_a_row_are_frozen(clock):
    clock.take(7)
    assert [clock.take(7) for _ in range(4)] == [False] * 4 and clock.reason == ""
    assert not clock.take(7) and clock.reason == FROZEN
    assert not clock.take(7) and not clock.take(7) and clock.reason == FROZEN, "not stale: it reads"
    assert clock.take(8) and clock.reason == ""
    assert clock.values["repeated"] == 7 and clock.values["frames"] == 2
    assert clock.values["dropped"] == 0, "what was repeated was not dropped"


def test_frozen_after_0_takes_equal_frames_for_new():
    clock = Clock(frozen_after=0)
    assert all(clock.take(7) for _ in range(20)) and clock.reason == ""


def test_a_frame_served_again_after_a_reconnect_is_a_repeat(clock):
    clock.take(7)
    clock.health.lost()
    assert clock.reason == DISCONNECTED
    assert not clock.take(7)
    assert clock.take(8) and clock.values["reconnects"] == 1


def test_dropped_frames_are_counted_but_not_those_of_an_unplugged_camera(clock):
    for value, after in ((1, 0.1), (2, 0.1), (3, 0.3), (4, 0.1), (5, 0.2)):
        clock.take(value, after=after)
    assert clock.values["dropped"] == 3
    clock.health.lost()
    clock.take(6, after=60.0)
    assert clock.values["dropped"] == 3


def test_rate_and_slow(clock):
    for value in range(30):
        clock.take(value)
    assert clock.values["rate_hz"] == "10.00" and not clock.health.slow(clock.now)
    for value in range(30):
        clock.take(value + 100, after=0.125)
    assert clock.values["rate_hz"] == "8.00" and clock.health.slow(clock.now)
    clock.now += 3.0
    assert clock.values["rate_hz"] == "0.00"


def test_an_end_is_final(clock):
    clock.take(1)
    clock.health.end()
    assert clock.reason == ENDED


def test_a_clock_set_back_or_forward_neither_drops_nor_stales():
    health = Health(10.0, stale_after=6, frozen_after=5)
    for i, jump in enumerate((0, 0, -3600, -3600, 7200, 7200)):
        now = 100.0 + 0.1 * i
        wall = WALL + int((now + jump) * 1e9)
        assert health.take(Frame(np.full((1, 1, 3), i, np.uint8), wall, DEVICE), wall, now)
        assert health.reason(now) == ""
    assert health.values(now)["dropped"] == 0


@pytest.mark.parametrize("clock_ns", [5_000_000_000_000, WALL], ids=["monotonic", "wall"])
def test_a_stamp_of_the_driver_on_either_clock(clock_ns):
    stamp, clock = wall_stamp(clock_ns - 20_000_000, 5_000_000_000_000, WALL)
    assert (stamp, clock) == (WALL - 20_000_000, DEVICE)


@given(st.integers(-(2**40), 2**62))
def test_any_other_stamp_means_the_arrival(device_ns):
    monotonic = 5_000_000_000_000
    stamp, clock = wall_stamp(device_ns, monotonic, WALL)
    assert 0 <= WALL - stamp < 10_000_000_000
    assert clock == DEVICE or stamp == WALL
    assert wall_stamp(0, monotonic, WALL) == (WALL, ARRIVAL)
