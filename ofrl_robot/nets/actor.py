"""The policy network: observations in, a distribution over actions out."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

import torch
from torch import nn

from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.deterministic import Deterministic
from ofrl_robot.nets.distributions import (
    ActionDistribution,
    DiscreteEntries,
    MixedAction,
    TanhGaussian,
    TanhMixture,
)
from ofrl_robot.nets.encoder import Encoder
from ofrl_robot.nets.mlp import Bottleneck, OutputLinear, mlp
from ofrl_robot.specs import ActionSpec


def output_sizes(config: NetConfig, action: ActionSpec) -> List[int]:
    """Return the number of outputs of each part of the actor's head."""
    if config.action_head == "gaussian":
        return [2 * action.size]
    if config.action_head == "deterministic":
        return [action.size]
    if config.action_head == "mixture":
        return [config.components, 2 * config.components * action.size]
    levels = [len(values) for values in action.levels.values()]
    return [2 * (action.size - len(levels)), *levels]


class Actor(nn.Module):
    """Observations by name -> :class:`ActionDistribution` over (B, A).

    Args:
        config: settings of encoder and head.
        shapes: shape of each observation by name, as in :class:`~ofrl_robot.nets.encoder.Encoder`.
        action: what an action is.

    Attributes:
        config: as given.

    Raises:
        ConfigError: a mixed head, but the action has no discrete entry.
    """

    def __init__(
        self, config: NetConfig, shapes: Dict[str, Tuple[int, ...]], action: ActionSpec
    ) -> None:
        super().__init__()
        self.config = config
        size, levels = action.size, action.levels
        if config.action_head == "mixed" and not levels:
            raise ConfigError(
                f"action_head mixed, but none of {', '.join(action.names)} is discrete",
                "use --action-head gaussian or mixture",
            )
        self._sizes = output_sizes(config, action)
        if config.action_head == "mixed":
            self._entries = DiscreteEntries(size, levels)
        self.encoder = Encoder(config, shapes, config.resnet_policy)
        code_size = self.encoder.size
        self.bottleneck: Optional[Bottleneck] = None
        if config.bottleneck and config.bottleneck_place == "policy":
            self.bottleneck = Bottleneck(OutputLinear(code_size, 2 * config.bottleneck_size))
            code_size = config.bottleneck_size
        self.head = mlp((code_size, *config.hidden, sum(self._sizes)), config.dropout)
        last = self.head[-1]
        assert isinstance(last, OutputLinear)
        # small last layer: near-zero mean action and unit spread at the start
        nn.init.uniform_(last.weight, -1e-3, 1e-3)
        nn.init.zeros_(last.bias)
        if config.action_head == "mixture":  # components that start alike stay alike
            nn.init.uniform_(last.bias, -0.5, 0.5)
        self._size = size

    def forward(self, observations: Dict[str, torch.Tensor]) -> ActionDistribution:
        """Return the policy's distribution at each observation."""
        code = self.encoder(observations)
        bottleneck_kl = None
        if self.bottleneck is not None:
            code, bottleneck_kl = self.bottleneck(code)
        dist = self._distribution(self.head(code))
        dist.bottleneck_kl = bottleneck_kl
        return dist

    def _distribution(self, output: torch.Tensor) -> ActionDistribution:
        parts = output.split(self._sizes, -1)
        if self.config.action_head == "gaussian":
            return self._gaussian(parts[0])
        if self.config.action_head == "deterministic":
            return Deterministic(torch.tanh(parts[0]))
        if self.config.action_head == "mixture":
            shape = (len(output), self.config.components, 2 * self._size)
            gaussian = self._gaussian(parts[1].reshape(shape))
            return TanhMixture(parts[0], gaussian.mean, gaussian.log_std)
        return MixedAction(self._gaussian(parts[0]), parts[1:], self._entries)

    def _gaussian(self, output: torch.Tensor) -> TanhGaussian:
        mean, log_std = output.chunk(2, dim=-1)
        return TanhGaussian(mean, log_std.clamp(self.config.log_std_min, self.config.log_std_max))
