"""Count the weights of networks without building them.

A checkpoint's header says how large its networks are. Before they are built this count is compared
with the weights that the file holds, so that a small file cannot claim gigabytes. Convolutions and
biases are left out: the counts are lower bounds, short by less than a million.
"""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

import torch

from ofrl_robot.nets.actor import output_sizes
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import TRUNKS, feature_shape
from ofrl_robot.specs import STATE, ActionSpec

Shapes = Dict[str, Tuple[int, ...]]


def actor_weights(config: NetConfig, shapes: Shapes, action: ActionSpec) -> int:
    """Return how many weights the linear layers of an actor have."""
    encoder, code = _encoder(config, shapes, config.resnet_policy)
    bottleneck = 0
    if config.bottleneck and config.bottleneck_place == "policy":
        bottleneck = code * 2 * config.bottleneck_size
        code = config.bottleneck_size
    return encoder + bottleneck + _layers([code, *config.hidden, sum(output_sizes(config, action))])


def critic_weights(config: NetConfig, shapes: Shapes, action_size: int) -> int:
    """Return how many weights the linear layers of a critic have, of all Q-functions."""
    encoder, code = _encoder(config, shapes, config.resnet_enc)
    first, later = config.hidden[0], list(config.hidden[1:])
    head = (code + action_size) * first
    if config.bottleneck and config.bottleneck_place == "critic":
        head += first * 2 * config.bottleneck_size
        head += _layers([config.bottleneck_size, *(later or [first]), 1])
    else:
        head += _layers([first, *later, 1])
    encoders = config.n_critics if config.critic_encoders == "separate" else 1
    return encoders * encoder + config.n_critics * head


def _encoder(config: NetConfig, shapes: Shapes, residual: bool) -> Tuple[int, int]:
    """Return the weights of the projections, and the entries of the code."""
    with torch.random.fork_rng(devices=[]):
        trunk = TRUNKS["residual" if residual else config.encoder](0.0)
    weights = code = 0
    for name, shape in shapes.items():
        if name == STATE:
            code += shape[0]
            continue
        channels, height, width = feature_shape(config, trunk, shape)
        flat = channels * height * width
        weights += flat * config.latent
        code += config.latent or flat
    return weights, code


def _layers(sizes: Sequence[int]) -> int:
    return sum(inputs * outputs for inputs, outputs in zip(sizes[:-1], sizes[1:]))
