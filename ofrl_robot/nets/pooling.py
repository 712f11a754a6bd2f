"""ReLU and 2x2 max-pooling as one function, several times faster on the CPU than torch's two.

Floats that are not negative order like the integers of the same bits, and max-pooling after ReLU
sees no others (ReLU and maximum commute). So the pooling is done on integer views: vector
instructions also for bfloat16, which torch widens to float one by one, and masks in place of
torch's 8-byte indices. Measured for 256 x 16 x 48 x 48 bfloat16 on one core: forward 6.2 -> 2.2 ms
(1.2 without gradient), backward 6.3 -> 3.0 ms; a CQL step with the papers' networks becomes 17 %
shorter. A NaN whose sign bit is set becomes 0, as a negative number does.
"""

from __future__ import annotations

from typing import Tuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_INTEGERS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


class MaxPoolReLU(nn.Module):
    """(B, C, H, W) -> (B, C, H // 2, W // 2): the greatest of each 2x2 window and 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return _MaxPoolReLU.apply(x)
        return functional.relu(functional.max_pool2d(x, 2))


class _MaxPoolReLU(torch.autograd.Function):
    """On channels_last memory: first rows are joined in pairs, then columns.

    Of equal entries one gets the gradient, as with torch's pooling, though not always the same.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        ctx.shape = x.shape
        # of two negative floats the integers order the other way round; ReLU makes both 0
        top, bottom = _pairs(x.permute(0, 2, 3, 1).view(_INTEGERS[x.dtype]), 1)
        rows = torch.maximum(top, bottom)
        left, right = _pairs(rows, 2)
        pooled = torch.maximum(left, right).clamp_min_(0)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_less(top, bottom), _less(left, right), pooled)
        return pooled.view(x.dtype).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        lower, later, pooled = ctx.saved_tensors
        _, _, height, width = ctx.shape
        bits = gradient.permute(0, 2, 3, 1).contiguous().view(pooled.dtype)
        bits = pooled.clamp_max(1).mul_(bits)  # none through a ReLU that is closed
        rows = _spread(bits, later, 2, width)
        return _spread(rows, lower, 1, height).view(gradient.dtype).permute(0, 3, 1, 2)


def _pairs(x: torch.Tensor, dim: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Even and odd entries along ``dim``; the last of an odd number belongs to no pair."""
    even = x.shape[dim] // 2 * 2
    index = (slice(None),) * dim
    return x[index + (slice(0, even, 2),)], x[index + (slice(1, even, 2),)]


def _less(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """1 where a < b, else 0, as integers of their type: a bool takes 6 times as long to make."""
    return torch.lt(a, b, out=torch.empty(a.shape, dtype=a.dtype))


def _spread(x: torch.Tensor, second: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Undo :func:`_pairs`: to the second of a pair where ``second`` is 1, to the first where it is
    0; ``size`` entries along ``dim``."""
    shape = list(x.shape)
    shape[dim] = size
    out = x.new_zeros(shape) if size % 2 else x.new_empty(shape)
    first, other = _pairs(out, dim)
    torch.mul(x, second, out=other)
    torch.sub(x, other, out=first)
    return out
