"""A device that repeats recorded episodes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ofrl_robot.control.signals import Tick
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import ConfigError, DatasetError, SpecMismatchError
from ofrl_robot.teleop.device import DeviceConfig, make_device
from ofrl_robot.teleop.replay import path_distances


def tick(step):
    return Tick(step, step, {}, np.zeros(1))


def device(folder, spec):
    return make_device(DeviceConfig("replay", "task", spec, {"dataset": str(folder)}))


def recorded(folder, number):
    return read_episode(folder / f"episode_{number:06d}.h5")


def test_it_repeats_the_episode_of_the_seed_and_then_holds_still(make_dataset):
    folder = make_dataset(episodes=3, steps=4)
    hand = device(folder, recorded(folder, 0).meta.action_spec)
    hand.reset(2)
    expected = recorded(folder, 2).actions
    assert np.array_equal([hand.act(tick(step)) for step in range(4)], expected)
    assert not hand.act(tick(4)).any()


def test_a_seed_that_was_not_recorded_is_said(make_dataset):
    folder = make_dataset(episodes=2)
    hand = device(folder, recorded(folder, 0).meta.action_spec)
    with pytest.raises(DatasetError, match="seed 7"):
        hand.reset(7)


def test_actions_that_mean_something_else_are_refused(make_dataset):
    folder = make_dataset(episodes=1)
    spec = dataclasses.replace(recorded(folder, 0).meta.action_spec, scale=(0.2, 0.1, 0.1, 1.0))
    with pytest.raises(SpecMismatchError, match="scale"):
        device(folder, spec)


def test_it_wants_to_know_which_recording(make_dataset):
    spec = recorded(make_dataset(episodes=1), 0).meta.action_spec
    with pytest.raises(ConfigError, match="dataset"):
        make_device(DeviceConfig("replay", "task", spec))


def test_paths_are_compared_step_by_step(make_dataset):
    episode = recorded(make_dataset(episodes=1, steps=4), 0)
    spec = dataclasses.replace(
        episode.meta.observation_spec,
        state_names=("ee_z", "ee_x", "ee_y"),
        state_units=("m",) * 3,
    )
    meta = dataclasses.replace(episode.meta, observation_spec=spec)
    way = np.array(
        [[0.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.2, 0.0], [0.1, 0.2, 0.0], [0.1, 0.2, 0.0]]
    )
    a = dataclasses.replace(episode, meta=meta, state=way)
    assert np.allclose(path_distances(a, a), 0.0)
    later = way + [[0, 0, 0], [0, 0.03, 0], [0.03, 0, 0], [-0.02, 0, 0], [0, 0, 0]]
    assert np.allclose(path_distances(a, dataclasses.replace(a, state=later)), 0.0), "on the path"
    beside = way + [[0, 0, 0], [0, 0, 0.03], [0, 0.04, 0.03], [0.04, 0.03, 0], [0, 0.03, 0.04]]
    expected = [0.0, 0.03, 0.05, 0.05, 0.05]
    assert np.allclose(path_distances(a, dataclasses.replace(a, state=beside)), expected)
    with pytest.raises(DatasetError, match="ee_x"):
        path_distances(a, episode)
