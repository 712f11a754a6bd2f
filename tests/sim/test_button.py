"""The button: when it counts as pressed, that it stays so, and the bottle beside it."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim import make
from ofrl_robot.sim.scripted import make_scripted
from ofrl_robot.sim.tasks.button import PUSH_JOINT, TRAVEL, ButtonPress
from ofrl_robot.sim.world import World

BUTTON = ButtonPress.spec.id


@pytest.fixture
def env():
    env = make(BUTTON, image_size=8)
    yield env
    env.close()


@pytest.mark.parametrize(
    "travel, pressed", [(0.0, False), (0.79, False), (0.81, True), (1.0, True)]
)
def test_pressed_is_four_fifths_of_the_travel_and_stays(travel, pressed):
    world = World()
    world.clear()
    task = ButtonPress()
    task.build(world, np.random.default_rng(0))
    high = task.info(world, np.zeros(3))["button_z_pos"]
    world.set_joint(task.button, PUSH_JOINT, -travel * TRAVEL)
    world.step(100)
    info = task.info(world, np.zeros(3))
    world.close()
    assert info["button_pressed_success"] is pressed
    assert info["button_pressed_percentage"] == pytest.approx(travel, abs=0.005)
    assert info["button_z_pos"] == pytest.approx(high - travel * TRAVEL, abs=1e-4)


def test_pushed_by_the_arm_it_rewards_to_the_end(env):
    env.reset(seed=0)
    policy = make_scripted(BUTTON, 0.0)
    rewards = [env.step(policy.act(env.ground_truth()))[1] for _ in range(env.task.horizon)]
    first = rewards.index(1.0)
    assert 2 < first < 15 and all(reward == 1.0 for reward in rewards[first:])
    assert env.ground_truth()["ee_position"][2] > -0.23, "the arm has left the button"


def test_holding_still_does_not_press(env):
    _, info = env.reset(seed=0)
    assert info["success"] is False and info["button_pressed_percentage"] == 0.0
    assert [env.step(np.zeros(8))[1] for _ in range(env.task.horizon)] == [0.0] * 30


def test_the_bottle_lies_beside_the_button(env):
    spots = []
    for seed in range(15):
        env.reset(seed=seed)
        truth = env.ground_truth()
        spots.append(truth["object_position"])
        assert abs(truth["object_position"][0] - truth["button_position"][0]) > 0.085
    spots = np.array(spots)
    assert (spots[:, :2] > [0.58, 0.175]).all() and (spots[:, :2] < [0.705, 0.275]).all()
    assert (spots[:, :2].std(axis=0) > 0.01).all()
    np.testing.assert_allclose(spots[:, 2], -0.3575, atol=2e-3)


def test_a_policy_without_its_object_is_refused(env):
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="container_position"):
        make_scripted(BUTTON, 0.0, "pick_place").act(env.ground_truth())
