"""Scripted policies: they solve their task, repeat by seed, and see only the ground truth."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim import TASK_IDS, make
from ofrl_robot.sim.scripted import make_scripted


def succeeds(env, policy, seed: int) -> bool:
    """Whether the condition holds at the last step of the horizon."""
    env.reset(seed=seed)
    policy.reset(seed)
    truncated, info = False, {}
    while not truncated:
        action = policy.act(env.ground_truth())
        _, _, _, truncated, info = env.step(action)
    return bool(info["success"])


@pytest.mark.slow
@pytest.mark.parametrize("task_id", TASK_IDS)
@pytest.mark.parametrize("noise, least", [(0.0, 9), (0.1, 7)])
def test_success_floor(task_id, noise, least):
    env = make(task_id, image_size=8, image_format="uint8")
    policy = make_scripted(task_id, noise)
    assert sum(succeeds(env, policy, seed) for seed in range(10)) >= least
    env.close()


def test_holding_still_does_not_succeed():
    env = make("Widow250SingleObjGrasp-v0", image_size=8)
    env.reset(seed=0)
    rewards = [env.step(np.zeros(8))[1] for _ in range(env.task.horizon)]
    assert rewards == [0.0] * env.task.horizon
    env.close()


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_actions_repeat_by_seed_and_stay_in_bounds(task_id):
    env = make(task_id, image_size=8, image_format="uint8")
    env.reset(seed=3)
    truth = env.ground_truth()
    env.close()
    policy = make_scripted(task_id, noise=1.0)

    def actions(seed: int) -> np.ndarray:
        policy.reset(seed)
        return np.array([policy.act(truth) for _ in range(20)])

    first = actions(1)
    assert first.shape == (20, 8) and first.dtype == np.float64
    assert np.abs(first).max() == 0.9
    assert np.array_equal(actions(1), first)
    assert not np.array_equal(actions(2), first)


def test_ground_truth_is_copied_not_shared():
    env = make("Widow250PickTray-v0", image_size=8)
    env.reset(seed=0)
    for value in env.ground_truth().values():
        assert value.dtype == np.float64
        value[:] = 7.0
    assert all((value != 7.0).all() for value in env.ground_truth().values())
    env.close()


def test_negative_noise_and_unknown_task_are_refused():
    with pytest.raises(ConfigError, match="noise"):
        make_scripted("Widow250PickTray-v0", -0.1)
    with pytest.raises(ConfigError, match="unknown"):
        make_scripted("Widow250Nothing-v0", 0.1)
