"""Counts of weights against networks that are built."""

from __future__ import annotations

import pytest

from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic
from ofrl_robot.nets.sizes import actor_weights, critic_weights
from ofrl_robot.specs import STATE, WIDOWX_ACTION

SHAPES = {"front": (24, 24, 3), "wrist": (16, 20, 3), STATE: (5,)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"latent": 0, "encoder": "cog", "critic_encoders": "separate", "n_critics": 3},
        {"bottleneck": True, "hidden": (32,)},
        {"bottleneck": True, "bottleneck_place": "policy", "action_head": "mixture"},
        {"resnet_policy": True, "resnet_enc": True, "action_head": "mixed"},
        {"action_head": "deterministic"},
        {"encoder": "cog", "largest_map": 12, "latent": 0},
    ],
    ids=str,
)
def test_counts_are_those_of_the_linear_layers(settings):
    config = NetConfig(**{"hidden": (32, 16), "latent": 8, **settings})
    for network, counted in (
        (Actor(config, SHAPES, WIDOWX_ACTION), actor_weights(config, SHAPES, WIDOWX_ACTION)),
        (Critic(config, SHAPES, 8), critic_weights(config, SHAPES, 8)),
    ):
        exact = sum(
            parameter.numel()
            for name, parameter in network.named_parameters()
            if name.endswith("weight") and "trunk" not in name and "project.1" not in name
        )
        assert counted == exact
