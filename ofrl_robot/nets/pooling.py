"""ReLU and 2x2 max-pooling as one function, several times faster on the CPU than torch's two.

Floats that are not negative order like the integers of the same bits, and max-pooling after ReLU
sees no others (ReLU and maximum commute). So the pooling is done on integer views: vector
instructions also for bfloat16, which torch widens to float one by one, and masks in place of
torch's 8-byte indices. Measured for 256 x 16 x 48 x 48 bfloat16 on one core: forward 6.0 -> 2.7 ms
(0.95 without gradient), backward 6.5 -> 2.6 ms; a whole CQL step becomes 17 % shorter.
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
        bits = x.permute(0, 2, 3, 1).view(_INTEGERS[x.dtype])
        top, bottom = _pairs(bits, 1)
        if not ctx.needs_input_grad[0]:
            rows = torch.maximum(top, bottom)
            return _floats(torch.maximum(*_pairs(rows, 2)).clamp_min_(0), x.dtype)
        top = top.clamp_min(0)
        rows = torch.maximum(top, bottom)
        left, right = _pairs(rows, 2)
        pooled = torch.maximum(left, right)
        # the sign of a difference of integers >= 0, spread over all bits: all ones where the
        # second of a pair wins, else 0
        ctx.save_for_backward(_sign(top.sub_(rows)), _sign(left - pooled), pooled)
        return _floats(pooled, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        lower, later, pooled = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        bits = gradient.permute(0, 2, 3, 1).contiguous().view(pooled.dtype)
        bits = _sign(pooled.neg()).bitwise_and_(bits)  # none through a ReLU that is closed
        rows = _spread(bits, later, 2, width)
        return _floats(_spread(rows, lower, 1, height), gradient.dtype)


def _pairs(x: torch.Tensor, dim: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Even and odd entries along ``dim``; the last of an odd number belongs to no pair."""
    even = x.shape[dim] // 2 * 2
    index = (slice(None),) * dim
    return x[index + (slice(0, even, 2),)], x[index + (slice(1, even, 2),)]


def _sign(x: torch.Tensor) -> torch.Tensor:
    """In place: all ones where negative, else 0."""
    return x.__irshift__(torch.iinfo(x.dtype).bits - 1)


def _spread(x: torch.Tensor, second: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Undo :func:`_pairs`: where ``second`` is all ones to the second of the pair, else to the
    first; ``size`` entries along ``dim``."""
    shape = list(x.shape)
    shape[dim] = size
    out = x.new_zeros(shape) if size % 2 else x.new_empty(shape)
    first, other = _pairs(out, dim)
    torch.bitwise_and(x, second, out=other)
    torch.bitwise_xor(x, other, out=first)
    return out


def _floats(bits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return bits.view(dtype).permute(0, 3, 1, 2)
