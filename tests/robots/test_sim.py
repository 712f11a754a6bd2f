"""The simulated arm as a robot: what its stamps say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ofrl_robot.robots.sim import SimRobot
from ofrl_robot.sim.options import SimOptions

TASK = "Widow250SingleObjGrasp-v0"


def ticks_of(robot, steps=6):
    """Ticks of an episode, and the time at which each was answered."""
    robot.reset(0)
    ticks, answered = [robot.observe()], []
    for _ in range(steps):
        answered.append(robot.now_ns())
        robot.apply(np.zeros(8))
        ticks.append(robot.observe())
    robot.close()
    return ticks, answered


def test_simulated_time_stands_still_between_a_tick_and_its_action():
    ticks, answered = ticks_of(SimRobot(TASK, SimOptions(image_size=8)))
    stamps = [tick.stamp_ns for tick in ticks]
    assert set(np.diff(stamps)) == {int(round(1e9 / 24))} and answered == stamps[:-1]
    assert [tick.state_stamp_ns for tick in ticks] == stamps
    assert [tick.image_stamps_ns["image"] for tick in ticks] == stamps


def test_with_a_clock_stamps_are_its_time_and_a_frame_keeps_that_of_its_capture():
    clock = itertools.count(1_000, 7)
    robot = SimRobot(TASK, SimOptions(image_size=8, realism="harsh"), clock_ns=lambda: next(clock))
    ticks, answered = ticks_of(robot)
    stamps = [tick.stamp_ns for tick in ticks]
    assert stamps == list(range(1_000, 1_000 + 14 * len(ticks), 14))
    assert answered == [stamp + 7 for stamp in stamps[:-1]]
    shown = [tick.image_stamps_ns["image"] for tick in ticks]
    assert shown[:4] == [stamps[0]] * 4 and set(shown) <= set(stamps)  # three steps of latency
    for before, after in zip(ticks, ticks[1:]):
        same = np.array_equal(before.images["image"], after.images["image"])
        assert same == (before.image_stamps_ns == after.image_stamps_ns)


def test_without_an_episode_there_is_no_time():
    robot = SimRobot(TASK, SimOptions(image_size=8))
    with pytest.raises(Exception, match="call reset first"):
        robot.now_ns()
    robot.close()
