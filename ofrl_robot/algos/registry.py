"""Algorithm classes by the name of their config."""

from __future__ import annotations

from typing import Tuple

import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.algos.bc import BC
from ofrl_robot.algos.brac import BRAC
from ofrl_robot.algos.config import AlgoConfig, BCConfig, BRACConfig, CQLConfig
from ofrl_robot.algos.cql import CQL
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.specs import ActionSpec

_ALGORITHMS = {BCConfig: BC, CQLConfig: CQL, BRACConfig: BRAC}


def make_algorithm(
    config: AlgoConfig,
    nets: NetConfig,
    shape: Tuple[int, ...],
    action: ActionSpec,
    device: torch.device,
    bf16: bool = False,
    **options,
) -> Algorithm:
    """Build the algorithm that ``config`` belongs to.

    Args:
        shape: of one observation: (H, W, 3), or (D,) for float vectors.
        options: what only some algorithms take: ``reward_range`` (those with a critic),
            ``behavior`` (BRAC).

    Raises ConfigError for settings that exclude each other.
    """
    return _ALGORITHMS[type(config)](config, nets, shape, action, device, bf16, **options)
