"""A small checkpoint on disk."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.policy.checkpoint import ACTOR, Header, save_checkpoint
from ofrl_robot.specs import WIDOWX_ACTION, widowx_observation

HEADER = Header(
    algo="cql",
    algo_config={"discount": 0.95, "clip_targets": True},
    nets=NetConfig(latent=8, hidden=(16, 8)),
    action_spec=WIDOWX_ACTION,
    observation_spec=widowx_observation(24),
    observe=("image",),
    control_rate_hz=5.0,
    task="Widow250SingleObjGrasp-v0",
    robot="sim",
    dataset="grasp",
    dataset_fingerprint="f" * 64,
    step=500,
    probe={"data_q": 0.1, "td_error": 1e-9},
)


def actor_of(header, seed=0):
    torch.manual_seed(seed)
    actor = Actor(header.nets, header.shapes, header.action_spec)
    with torch.no_grad():  # larger than at the start, so that images differ in their action
        actor.head[-1].weight.normal_(0.0, 0.3)
    return actor


def actor_weights(header):
    """As in a checkpoint: by the names of :func:`actor_of` behind the prefix."""
    return {ACTOR + k: v for k, v in actor_of(header).state_dict().items()}


@pytest.fixture
def header():
    return HEADER


@pytest.fixture
def save(tmp_path):
    """Function (header changes) -> path of a checkpoint with fitting weights."""

    def write(name="step_0000500.safetensors", weights=None, **changes):
        header = dataclasses.replace(HEADER, **changes)
        path = tmp_path / name
        save_checkpoint(path, header, weights or actor_weights(HEADER))
        return path

    return write
