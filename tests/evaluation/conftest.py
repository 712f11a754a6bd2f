"""Episodes of our own simulator, as roboverse's collection scripts would store them."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.sim import make
from ofrl_robot.sim.scripted import make_scripted

OBSERVED = ("state", "object_position", "object_orientation")


def record(task, seed, steps):
    """One trajectory of the task's scripted policy: a dict of seven lists, without images."""
    env, policy = make(task, image_size=1), make_scripted(task, noise=0.05)
    keys = ("observations", "actions", "rewards", "next_observations", "terminals",
            "agent_infos", "env_infos")  # fmt: skip
    trajectory = {key: [] for key in keys}
    observation, _ = env.reset(seed=seed)
    policy.reset(seed)
    for _ in range(steps):
        action = policy.act(env.ground_truth())
        after, reward, _, _, info = env.step(action)
        step = (observation, action, reward, after, False, {"done": False}, info)
        for key, value in zip(keys, step):
            if key.endswith("observations"):
                value = {name: value[name] for name in OBSERVED}
            trajectory[key].append(value)
        observation = after
    env.close()
    return trajectory


@pytest.fixture(scope="session")
def record_trajectory():
    return record


@pytest.fixture(scope="session")
def write_npy():
    """Function (path, trajectories) that stores them as roboverse does."""

    def write(path, trajectories):
        array = np.empty(len(trajectories), object)
        array[:] = trajectories
        np.save(str(path), array, allow_pickle=True)
        return path

    return write
