"""A scalar that an optimiser tunes against a constraint: temperatures and multipliers."""

from __future__ import annotations

import math

import torch
from torch import nn


class LagrangeMultiplier(nn.Module):
    """Positive scalar, stored as its logarithm and clamped to [0, ``most``] when it is used.

    :meth:`loss` raises the value while the constraint's excess is positive and lowers it while it
    is negative. As in SAC's released code the logarithm multiplies the excess, not the value: the
    speed does not depend on how large the value has become.
    """

    def __init__(self, initial: float, most: float = 1e6) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial)))
        self._most = most

    @property
    def value(self) -> torch.Tensor:
        """The scalar, without a gradient."""
        return self.log.detach().exp().clamp(max=self._most)

    def loss(self, excess: torch.Tensor) -> torch.Tensor:
        """Return a scalar loss that raises the value while the mean of ``excess`` is above 0."""
        return -self.log * excess.detach().mean()
