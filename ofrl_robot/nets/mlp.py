"""The plain multi-layer perceptron that heads are made of, and the information bottleneck."""

from __future__ import annotations

from typing import List, Sequence, Tuple

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


def dropped(p: float) -> List[nn.Module]:
    """A dropout layer, or none where ``p`` is 0: off is the same as absent."""
    return [nn.Dropout(p)] if p else []


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU between them, dropout before each ReLU; the last is float32."""
    layers: List[nn.Module] = []
    for a, b in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(a, b)] + dropped(dropout) + [nn.ReLU()]
    return nn.Sequential(*layers, OutputLinear(sizes[-2], sizes[-1]))


class Bottleneck(nn.Module):
    """Stochastic code z ~ N(mean(x), std(x)^2): sampled while training, its mean otherwise.

    The deep variational information bottleneck (Alemi et al. 2017, arXiv 1612.00410). Returns z
    (..., size) and the rate (...), KL(N(mean, std^2) || N(0, I)) in nats, which a loss limits.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.parameters_of_z = OutputLinear(inputs, 2 * size)

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.parameters_of_z(x).chunk(2, dim=-1)
        log_std = log_std.clamp(-10.0, 4.0)  # the released code has none; exp(100) is inf
        std = log_std.exp()
        rate = 0.5 * (mean.square() + std.square() - 1.0 - 2.0 * log_std).sum(-1)
        return (mean + std * torch.randn_like(std) if self.training else mean), rate
