"""The simulated arm, its camera and its task: what their stamps say."""

from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest

from ofrl_robot.control.rig import Rig
from ofrl_robot.control.signals import Setpoint
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.robots import sim as module
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import make_rig
from ofrl_robot.specs import WORLD

TASK = "Widow250SingleObjGrasp-v0"


def make(lockstep=True, from_zero=True, **settings):
    settings = {"image_size": 8, **settings}
    return make_rig(ArmConfig("sim", TASK, load_arm_file("sim"), lockstep, from_zero, settings))


def hold(rig):
    """A setpoint that asks for nothing."""
    state = rig.arm.state()
    return Setpoint(np.zeros(8), state.position, state.orientation)


def ticks_of(rig, steps=6):
    """Ticks of an episode, and the time at which each was answered."""
    ticks, answered = [rig.reset(0)], []
    for _ in range(steps):
        answered.append(rig.arm.now_ns())
        rig.arm.command(hold(rig))
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
        rig.arm.command(hold(rig))
        first.append(rig.observe().stamp_ns)
    assert first[0] > 10**18
    assert rig.reset(1).stamp_ns > first[-1], "simulated time ran ahead of the clock"
    rig.close()


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def test_in_real_time_stamps_are_the_clock_s_and_a_frame_keeps_that_of_its_capture():
    rig = make(lockstep=False, realism="harsh")
    begin = time.time_ns()
    ticks = [rig.reset(0)]
    for _ in range(6):
        rig.arm.command(hold(rig))
        ticks.append(rig.observe())
    rig.close()
    stamps = [tick.stamp_ns for tick in ticks]
    assert begin < stamps[0] and stamps == sorted(set(stamps)) and stamps[-1] < time.time_ns()
    shown = [tick.image_stamps_ns["image"] for tick in ticks]
    assert len(set(shown[:3])) == 1 and shown == sorted(shown), "three steps of latency"
    for before, after in zip(ticks, ticks[1:]):
        same = np.array_equal(before.images["image"], after.images["image"])
        assert same == (before.image_stamps_ns == after.image_stamps_ns)


def test_in_real_time_the_world_goes_on_without_anybody():
    """A late action must cost in simulation what it costs on an arm."""
    rig = make(lockstep=False)
    start = rig.reset(0).state
    action = np.zeros(8)
    action[2] = -1.0
    rig.arm.command(dataclasses.replace(hold(rig), action=action))
    wait_until(lambda: rig.arm.state().position[2] < start[2] - 0.02)
    rig.arm.stop()
    places = []
    wait_until(lambda: still(places, rig.arm.state().position))
    rig.close()


def still(places, place):
    places.append(place)
    return len(places) > 20 and np.ptp(places[-20:], axis=0).max() < 1e-4


def test_in_real_time_a_gripper_toggle_lasts_longer_than_a_period():
    rig = make(lockstep=False)
    rig.reset(0)
    close = np.array([0, 0, 0, 0, 0, 0, -1.0, 0])
    assert rig.arm.command(hold(rig)).duration == 0.0
    toggled = dataclasses.replace(hold(rig), action=close)
    assert rig.arm.command(toggled).duration == pytest.approx(75 / 240)
    wait_until(lambda: rig.arm.state().vector[7] < 0.02)  # the left finger
    rig.close()


def test_a_stop_after_the_end_does_nothing():
    """The robot node holds still once more when it ends, also when ROS closed the arm before."""
    rig = make(lockstep=False)
    rig.reset(0)
    rig.close()
    rig.arm.stop()
    rig.close()


@pytest.mark.parametrize("rate", [5, 10, 20, 24])
def test_the_control_rate_is_a_setting(rate):
    rig = make(control_rate_hz=rate)
    assert rig.control_rate_hz == pytest.approx(rate)
    stamps = [tick.stamp_ns for tick in ticks_of(rig)[0]]
    assert np.diff(stamps) == pytest.approx([1e9 / rate] * 6, abs=1)


def test_a_rate_that_physics_cannot_have_is_named():
    with pytest.raises(ConfigError, match="control_rate_hz is 7; use 240 divided by"):
        make(control_rate_hz=7)


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
