"""A tiny fixed batch and small networks for all algorithms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ofrl_robot.algos.build import Build, make_algorithm
from ofrl_robot.algos.registry import config_class
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.specs import ActionSpec

SIZE = 16
ACTION = ActionSpec(("x", "gripper"), ("m", "1"), (0.1, 1.0), "base")
NETS = NetConfig(latent=16, hidden=(32, 32))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    count = 12
    alive = (np.arange(count) % 4 != 0).astype(np.float32)
    return Batch(
        observations={"image": rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)},
        next_observations={"image": rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)},
        actions=rng.uniform(-0.9, 0.9, (count, ACTION.size)).astype(np.float32),
        rewards=(np.arange(count) % 3 == 0).astype(np.float32),
        bootstrap=np.float32(0.99) * alive,
        next_actions=rng.uniform(-0.9, 0.9, (count, ACTION.size)).astype(np.float32),
        has_next_action=alive,
        returns=np.linspace(0.0, 1.0, count, dtype=np.float32),
    )


@pytest.fixture
def build():
    """Function (name, seed, nets, options, **settings) -> algorithm.

    ``nets`` are changes of the small networks, ``options`` fields of Build; images are not shifted
    unless ``shift`` is given.
    """

    def make(name, seed=0, nets=None, options=None, **settings):
        config = dataclasses.replace(config_class(name)(), **{"shift": 0, **settings})
        build = Build(
            nets=dataclasses.replace(NETS, **(nets or {})),
            shapes={"image": (SIZE, SIZE, 3)},
            action=ACTION,
            device=torch.device("cpu"),
        )
        torch.manual_seed(seed)
        return make_algorithm(config, dataclasses.replace(build, **(options or {})))

    return make


@pytest.fixture
def losses_of():
    """Function (algorithm, batch, seed) -> Losses, with the random numbers of that seed."""

    def compute(algorithm, batch, seed=3):
        torch.manual_seed(seed)
        return algorithm(algorithm.load(batch))

    return compute


@pytest.fixture
def weights():
    """Function algorithm -> copies of all that its state_dict holds."""

    def copies(algorithm):
        return {k: v.clone() for k, v in algorithm.state_dict().items()}

    return copies
