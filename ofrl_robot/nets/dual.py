"""A scalar that an optimiser tunes against a constraint: temperatures and multipliers."""

from __future__ import annotations

import math

import torch
from torch import nn

LEAST = 1e-8  # of a value that is tuned


class LagrangeMultiplier(nn.Module):
    """Positive scalar, stored as its logarithm and kept within [1e-8, ``most``].

    :meth:`loss` raises the value while the constraint's excess is positive and lowers it while it
    is negative. As in SAC's released code the logarithm multiplies the excess, not the value: the
    speed does not depend on how large the value has become. At a bound the logarithm stops too:
    one that ran on while the constraint cannot be met would need as many steps to come back.

    Args:
        initial: the value; 0 is a value that is not tuned and stays 0.
        most: upper bound.
    """

    def __init__(self, initial: float, most: float = 1e6) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial) if initial else 0.0))
        self._scale = 1.0 if initial else 0.0
        self._most = most

    @property
    def value(self) -> torch.Tensor:
        """The scalar, without a gradient."""
        return self._scale * self.log.detach().exp().clamp(LEAST, self._most)

    def loss(self, excess: torch.Tensor) -> torch.Tensor:
        """Return a scalar loss that raises the value while the mean of ``excess`` is above 0."""
        mean, log = excess.detach().mean(), self.log.detach()
        may_rise = (log < math.log(self._most)) | (mean < 0)
        may_fall = (log > math.log(LEAST)) | (mean > 0)
        return -self.log * mean * (may_rise & may_fall)
