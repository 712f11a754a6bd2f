"""The simulated arm, its camera and its task: what their stamps say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ofrl_robot.control.rig import Rig
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.robots import sim as module
from ofrl_robot.robots.config import ArmConfig, load_limits
from ofrl_robot.robots.registry import make_rig
from ofrl_robot.specs import WORLD

TASK = "Widow250SingleObjGrasp-v0"


def make(lockstep=True, from_zero=True, **settings):
    settings = {"image_size": 8, **settings}
    return make_rig(ArmConfig("sim", TASK, load_limits("sim"), lockstep, from_zero, settings))


def ticks_of(rig, steps=6):
    """Ticks of an episode, and the time at which each was answered."""
    ticks, answered = [rig.reset(0)], []
    for _ in range(steps):
        answered.append(rig.arm.now_ns())
        rig.arm.command(np.zeros(8))
        ticks.append(rig.observe())
    rig.close()
    return ticks, answered


def test_simulated_time_stands_still_between_a_tick_and_its_action():
    ticks, answered = ticks_of(make())
    stamps = [tick.stamp_ns for tick in ticks]
    assert set(np.diff(stamps)) == {int(round(1e9 / 24))} and answered == stamps[:-1]
    assert stamps[0] == int(round(1e9 / 24)), "every episode starts at 0"
    assert [tick.state_stamp_ns for tick in ticks] == stamps
    assert [tick.image_stamps_ns["image"] for tick in ticks] == stamps


def test_stamps_of_simulated_time_can_start_at_the_wall_clock_and_never_run_back(monkeypatch):
    clock = itertools.chain([10**18, 10**18 + 5], itertools.repeat(0))
    monkeypatch.setattr(module.time, "time_ns", lambda: next(clock))
    rig = make(from_zero=False)
    first = [rig.reset(0).stamp_ns]
    for _ in range(3):
        rig.arm.command(np.zeros(8))
        first.append(rig.observe().stamp_ns)
    assert first[0] > 10**18
    assert rig.reset(1).stamp_ns > first[-1], "simulated time ran ahead of the clock"
    rig.close()


def test_in_real_time_stamps_are_the_clock_s_and_a_frame_keeps_that_of_its_capture(monkeypatch):
    clock = itertools.count(1_000, 7)
    monkeypatch.setattr(module.time, "time_ns", lambda: next(clock))
    ticks, answered = ticks_of(make(lockstep=False, realism="harsh"))
    stamps = [tick.stamp_ns for tick in ticks]
    captured = [tick.state_stamp_ns for tick in ticks]
    assert stamps == sorted(stamps) and all(c < s for c, s in zip(captured, stamps))
    assert all(s < a for s, a in zip(stamps, answered)), "an action leaves after its tick"
    shown = [tick.image_stamps_ns["image"] for tick in ticks]
    assert shown[:4] == [captured[0]] * 4 and set(shown) <= set(captured)  # three steps of latency
    for before, after in zip(ticks, ticks[1:]):
        same = np.array_equal(before.images["image"], after.images["image"])
        assert same == (before.image_stamps_ns == after.image_stamps_ns)


def test_without_an_episode_there_is_no_time_and_no_tick():
    rig = make()
    for ask in (rig.arm.now_ns, rig.arm.state, rig.cameras.newest, rig.observe):
        with pytest.raises(RobotError, match="call reset first"):
            ask()
    rig.close()


def test_poses_actions_and_limits_are_in_the_world_and_the_base_stands_in_it():
    """Measured after a reset: end effector at (0.6, 0.155, -0.173), base at (0.6, 0, -0.4)."""
    rig = make()
    tick = rig.reset(0)
    assert rig.observation_spec.state_frame == rig.action_spec.frame == WORLD
    position, _ = rig.arm.base_pose
    assert np.allclose(tick.state[:3] - position, [0.0, 0.155, 0.227], atol=0.01)
    rig.close()


def test_a_rig_of_several_frames_is_refused(fake_robot):
    fake_robot.state_frame = WORLD
    with pytest.raises(ConfigError, match="measured poses in 'world'.*one frame of reference"):
        Rig(fake_robot, fake_robot, fake_robot)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_sise": 8}, "no setting 'image_sise'"),
        ({"image_size": "many"}, "image_size is 'many'; use a whole number"),
        ({"realism": "wild"}, "wild"),
        ({"roboverse_bugs": 1}, "roboverse_bugs is 1; use true or false"),
    ],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        make(**settings)
