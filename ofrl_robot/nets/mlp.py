"""The plain multi-layer perceptron that heads are made of."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import nn
from torch.nn import functional


class OutputLinear(nn.Linear):
    """A linear layer that stays in float32 under autocast.

    bfloat16 has 8 bits of mantissa: a Q-value of 10 would be rounded to steps of 1/16, as large
    as the differences between actions that the actor climbs.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


def mlp(sizes: Tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them; none after the last, which is float32."""
    layers: List[nn.Module] = []
    for a, b in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, OutputLinear(sizes[-2], sizes[-1]))
