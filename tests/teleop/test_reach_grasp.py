"""The script that reaches and grasps, on a point with fingers."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.specs import BASE, ActionSpec
from ofrl_robot.teleop.device import DeviceConfig, make_device

SPEC = ActionSpec(
    ("x", "y", "z", "rot_z", "gripper"),
    ("m", "m", "m", "deg", "1"),
    (0.05, 0.05, 0.05, 10.0, 1.0),
    BASE,
)
ITEM = np.array([0.55, 0.1, -0.08])


class Point:
    """Moves by what it is told, lifts the object when the fingers are round it."""

    def __init__(self, lag=0.0):
        self.grip, self.opening, self.item, self.lag = np.array([0.45, 0.2, 0.1]), 0.04, ITEM, lag
        self.target, self.held = self.grip.copy(), False

    def tick(self, step):
        truth = {
            "grip_position": self.grip.copy(),
            "object_position": self.item.copy(),
            "gripper_opening": np.array([self.opening]),
        }
        return Tick(step, step, {}, np.zeros(1), ground_truth=truth)

    def apply(self, action):
        self.target = self.target + action[:3] * 0.05
        before = self.grip
        self.grip = self.grip + (1.0 - self.lag) * (self.target - self.grip)
        if self.held:
            self.item = self.item + self.grip - before
        closed = 0.0 if action[4] > 0 else 0.02
        near = np.linalg.norm(self.grip - self.item) < 0.02
        if action[4] < 0 and self.opening == closed and near:
            self.held = True
        self.opening = 0.04 if action[4] > 0 else max(closed, self.opening - 0.01)


def device(**settings):
    return make_device(DeviceConfig("reach_grasp", "task", SPEC, settings))


@pytest.mark.parametrize("lag", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_it_grasps_and_lifts(seed, lag):
    point, hand = Point(lag), device()
    hand.reset(seed)
    lowest = point.grip[2]
    for step in range(25):
        action = hand.act(point.tick(step))
        assert action.shape == (5,) and (np.abs(action) <= 0.95).all() and action[3] == 0.0
        point.apply(action)
        lowest = min(lowest, point.grip[2])
    assert point.item[2] > ITEM[2] + 0.05
    assert lowest > ITEM[2] - 0.01, "it does not press on the table"


def test_the_fingers_close_where_the_object_is_and_nothing_moves_meanwhile():
    point, hand = Point(), device(noise=0.0)
    hand.reset(0)
    for step in range(25):
        action = hand.act(point.tick(step))
        if action[4] < 0 and point.opening > 0.02:
            assert np.linalg.norm(point.grip - ITEM) < 0.015
            assert not action[:3].any()
        point.apply(action)


def test_a_seed_gives_the_same_actions_again():
    actions = []
    for seed in (3, 3, 4):
        hand, point = device(), Point()
        point.grip = ITEM + [0.02, 0.02, 0.06]  # so near that no entry is clipped
        hand.reset(seed)
        actions.append(hand.act(point.tick(0)))
    assert np.array_equal(actions[0], actions[1]) and not np.array_equal(actions[0], actions[2])


def test_without_ground_truth_it_says_what_is_missing():
    with pytest.raises(RobotError, match="grip_position and object_position"):
        device().act(Tick(0, 0, {}, np.zeros(1)))


def test_an_arm_without_these_actions_is_refused():
    spec = ActionSpec(("x", "y"), ("m", "m"), (0.1, 0.1), BASE)
    with pytest.raises(ConfigError, match="z, gripper"):
        make_device(DeviceConfig("reach_grasp", "task", spec))


@pytest.mark.parametrize("settings", [dict(noise=-1), dict(lift="high"), dict(colour="red")])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        device(**settings)
