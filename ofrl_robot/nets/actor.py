"""The policy network: images in, a distribution over actions out."""

from __future__ import annotations

from typing import Optional, Tuple

import torch
from torch import nn

from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.distributions import (
    ActionDistribution,
    DiscreteEntries,
    MixedAction,
    TanhGaussian,
    TanhMixture,
)
from ofrl_robot.nets.encoder import Encoder
from ofrl_robot.nets.mlp import Bottleneck, mlp
from ofrl_robot.specs import ActionSpec


class Actor(nn.Module):
    """uint8 images (B, H, W, 3) -> :class:`ActionDistribution` over (B, A).

    Attributes:
        config: as given.

    Raises ConfigError for a mixed head where the action has no discrete entry.
    """

    def __init__(self, config: NetConfig, shape: Tuple[int, ...], action: ActionSpec) -> None:
        super().__init__()
        self.config, levels = config, action.levels
        if config.action_head == "mixed" and not levels:
            raise ConfigError(
                f"action_head mixed, but none of {', '.join(action.names)} is discrete",
                "use --action-head gaussian or mixture",
            )
        size = action.size
        if config.action_head == "gaussian":
            self._sizes = [2 * size]
        elif config.action_head == "mixture":
            self._sizes = [config.components, 2 * config.components * size]
        else:
            self._sizes = [2 * (size - len(levels))] + [len(values) for values in levels.values()]
            self._entries = DiscreteEntries(size, levels)
        self.encoder = Encoder(config, shape, config.resnet_policy)
        code = self.encoder.size
        self.bottleneck: Optional[Bottleneck] = None
        if config.bottleneck and config.bottleneck_place == "policy":
            self.bottleneck = Bottleneck(code, config.bottleneck_size)
            code = config.bottleneck_size
        self.head = mlp((code,) + tuple(config.hidden) + (sum(self._sizes),), config.dropout)
        # small last layer: near-zero mean action and unit spread at the start
        nn.init.uniform_(self.head[-1].weight, -1e-3, 1e-3)
        nn.init.zeros_(self.head[-1].bias)
        if config.action_head == "mixture":  # components that start alike stay alike
            nn.init.uniform_(self.head[-1].bias, -0.5, 0.5)
        self._size = size

    def forward(self, images: torch.Tensor) -> ActionDistribution:
        code, rate = self.encoder(images), None
        if self.bottleneck is not None:
            code, rate = self.bottleneck(code)
        dist = self._distribution(self.head(code))
        dist.rate = rate
        return dist

    def _distribution(self, output: torch.Tensor) -> ActionDistribution:
        parts = output.split(self._sizes, -1)
        if self.config.action_head == "gaussian":
            return self._gaussian(parts[0])
        if self.config.action_head == "mixture":
            shape = (len(output), self.config.components, 2 * self._size)
            gaussian = self._gaussian(parts[1].reshape(shape))
            return TanhMixture(parts[0], gaussian.mean, gaussian.log_std)
        return MixedAction(self._gaussian(parts[0]), parts[1:], self._entries)

    def _gaussian(self, output: torch.Tensor) -> TanhGaussian:
        mean, log_std = output.chunk(2, dim=-1)
        return TanhGaussian(mean, log_std.clamp(self.config.log_std_min, self.config.log_std_max))
