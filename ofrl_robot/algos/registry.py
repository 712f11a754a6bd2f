"""Algorithm classes by the name of their config."""

from __future__ import annotations

from typing import Tuple

import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.algos.bc import BC
from ofrl_robot.algos.config import AlgoConfig, BCConfig, CQLConfig
from ofrl_robot.algos.cql import CQL
from ofrl_robot.nets.config import NetConfig

_ALGORITHMS = {BCConfig: BC, CQLConfig: CQL}


def make_algorithm(
    config: AlgoConfig,
    nets: NetConfig,
    image_shape: Tuple[int, int, int],
    action_size: int,
    device: torch.device,
    bf16: bool = False,
) -> Algorithm:
    """Build the algorithm that ``config`` belongs to."""
    return _ALGORITHMS[type(config)](config, nets, image_shape, action_size, device, bf16)
