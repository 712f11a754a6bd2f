"""A policy that always takes the same action, with the interface of a distribution."""

from __future__ import annotations

import math
from typing import Optional, Tuple

import torch

from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.distributions import ActionDistribution


class Deterministic(ActionDistribution):
    """One action per row, for algorithms that need no densities.

    :meth:`sample` and :meth:`weighted_actions` return the action itself with a log-density of 0,
    so that an entropy term vanishes. :meth:`log_prob` raises ConfigError.
    """

    has_density = False

    def __init__(self, action: torch.Tensor) -> None:
        self._action = action

    @property
    def mode(self) -> torch.Tensor:
        """Action (B, A) of the deterministic policy."""
        return self._action

    def sample(
        self, count: int, generator: Optional[torch.Generator] = None
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return the action ``count`` times, and log-densities of 0."""
        actions = self._action.unsqueeze(1).expand(-1, count, -1)
        return actions, actions.new_zeros(actions.shape[:2])

    def weighted_actions(self, count: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the action itself with weight 1."""
        actions, log_prob = self.sample(1)
        return actions, log_prob, torch.ones_like(log_prob)

    def log_prob(self, actions: torch.Tensor, floor: float = -math.inf) -> torch.Tensor:
        """Raise ConfigError: there is no density."""
        raise _no_density()

    def uniform(self, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw uniform actions and their log-densities."""
        rows, entries = self._action.shape
        actions = torch.rand(rows, count, entries, device=self._action.device) * 2.0 - 1.0
        return actions, actions.new_full((rows, count), -entries * math.log(2.0))

    def detach(self) -> "Deterministic":
        """Return the same distribution without the policy's gradient."""
        return Deterministic(self._action.detach())


def _no_density() -> ConfigError:
    return ConfigError(
        "a deterministic policy has no density", "use --action-head gaussian, mixture or mixed"
    )
