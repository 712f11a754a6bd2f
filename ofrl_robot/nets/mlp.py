"""The layers of heads: float32 output, perceptron, ensemble of layers, information bottleneck."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_BLOCK_BYTES = 512 << 10  # of float32 rows per core: a part of its second-level cache


class OutputLinear(nn.Linear):
    """A linear layer that stays in float32 under autocast.

    bfloat16 has 8 bits of mantissa: a Q-value of 10 would be rounded to steps of 1/16, as large
    as the differences between actions that the actor climbs.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


def dropped(p: float) -> List[nn.Module]:
    """Return a dropout layer, or no layer when ``p`` is 0: off is the same as absent."""
    return [nn.Dropout(p)] if p else []


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers with dropout and ReLU between them; the last one is float32."""
    layers: List[nn.Module] = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(inputs, outputs)] + dropped(dropout) + [nn.ReLU()]
    return nn.Sequential(*layers, OutputLinear(sizes[-2], sizes[-1]))


class EnsembleLinear(nn.Module):
    """E linear layers of the same size, computed as one batched product.

    Each is initialised as ``nn.Linear`` initialises itself, by :meth:`reset`.

    Args:
        count: number of layers E.
        inputs, outputs: entries of each layer's input and output.
        bias: whether the layers add a bias.
        exact: stay in float32 under autocast, as :class:`OutputLinear` does.

    Attributes:
        weight: (E, inputs, outputs). bias: (E, 1, outputs) or None.
    """

    bias: Optional[nn.Parameter]

    def __init__(
        self, count: int, inputs: int, outputs: int, bias: bool = True, exact: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(count, 1, outputs)) if bias else None
        )
        self._exact = exact

    @torch.no_grad()
    def reset(self, member: int) -> None:
        """Draw the initial weights of one layer."""
        _, inputs, outputs = self.weight.shape
        drawn = nn.Linear(inputs, outputs, bias=self.bias is not None, device=self.weight.device)
        self.weight[member] = drawn.weight.T
        if self.bias is not None:
            self.bias[member] = drawn.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(E, ..., inputs), one input per layer, -> (E, ..., outputs)."""
        if not self._exact:
            return self._product(x)
        with torch.autocast(x.device.type, enabled=False):
            if x.device.type == "cpu" and x.dtype == torch.bfloat16 and self.bias is not None:
                product = _ExactProduct.apply(x.flatten(1, -2), self.weight, self.bias)
                return product.reshape(*x.shape[:-1], -1)
            return self._product(x.to(self.weight.dtype))

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(1, -2)
        if self.bias is None:
            product = torch.bmm(rows, self.weight)
        else:
            product = torch.baddbmm(self.bias, rows, self.weight)
        return product.reshape(*x.shape[:-1], -1)


class _ExactProduct(torch.autograd.Function):
    """x W + b in float32 for bfloat16 rows x (E, R, inputs), block by block.

    Whole, the float32 rows and their gradient pass through memory six times: a CQL step with 31
    actions per image and 512 units became 7 % shorter on one core, with 13 and 256 units 1 %.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        count, rows, inputs = x.shape
        out = x.new_empty((count, rows, weight.shape[2]), dtype=weight.dtype)
        for part in _blocks(rows, count * inputs):
            out[:, part] = torch.baddbmm(bias, x[:, part].to(weight.dtype), weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> Tuple[Optional[torch.Tensor], Optional[torch.Tensor], Optional[torch.Tensor]]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        of_x = torch.empty_like(x) if for_x else None
        of_weight = torch.zeros_like(weight) if for_weight else None
        for part in _blocks(x.shape[1], x.shape[0] * x.shape[2]):
            if of_x is not None:
                of_x[:, part] = torch.bmm(gradient[:, part], weight.transpose(1, 2))
            if of_weight is not None:
                rows = x[:, part].to(weight.dtype)
                of_weight.baddbmm_(rows.transpose(1, 2), gradient[:, part])
        return of_x, of_weight, gradient.sum(1, keepdim=True) if for_bias else None


def _blocks(rows: int, row_size: int) -> List[slice]:
    """Cut rows of ``row_size`` float32 entries into blocks that the cores' caches hold."""
    step = max(1, _BLOCK_BYTES * torch.get_num_threads() // (4 * row_size))
    return [slice(first, first + step) for first in range(0, rows, step)]


def ensemble_mlp(count: int, sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Return ``count`` perceptrons as :func:`mlp` makes one, in layers of one product each."""
    layers: List[nn.Module] = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1]):
        layers += [EnsembleLinear(count, inputs, outputs)] + dropped(dropout) + [nn.ReLU()]
    return nn.Sequential(*layers, EnsembleLinear(count, sizes[-2], sizes[-1], exact=True))


class Bottleneck(nn.Module):
    """Stochastic code z ~ N(mean(x), std(x)^2): sampled in training mode, its mean otherwise.

    The deep variational information bottleneck (Alemi et al. 2017, arXiv 1612.00410).

    Args:
        parameters_of_z: layer that maps x to mean and log std, 2 ``size`` float32 outputs.
    """

    def __init__(self, parameters_of_z: nn.Module) -> None:
        super().__init__()
        self.parameters_of_z = parameters_of_z

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return z (..., size) and KL(N(mean, std^2) || N(0, I)) in nats (...)."""
        mean, log_std = self.parameters_of_z(x).chunk(2, dim=-1)
        log_std = log_std.clamp(-10.0, 4.0)  # the released code has none; exp(100) is inf
        std = log_std.exp()
        kl = 0.5 * (mean.square() + std.square() - 1.0 - 2.0 * log_std).sum(-1)
        return (mean + std * torch.randn_like(std) if self.training else mean), kl
