"""ReLU with pooling on bit patterns is torch's ReLU of torch's pooling."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ofrl_robot.nets.pooling import MaxPoolReLU

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
SHAPES = ((3, 5, 8, 6), (2, 16, 7, 9), (1, 1, 2, 2), (4, 3, 5, 4))


def images(shape, dtype, distinct=True):
    """channels_last, negative and positive; all entries different, or full of equal ones."""
    torch.manual_seed(0)
    count = torch.Size(shape).numel()
    values = torch.randperm(count) - count // 2 if distinct else torch.randint(-2, 3, (count,))
    x = (values.reshape(shape).to(dtype) / 64).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(True)


def plain(x):
    return functional.relu(functional.max_pool2d(x, 2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_torch(shape, dtype):
    x = images(shape, dtype)
    pooled, expected = MaxPoolReLU()(x), plain(x)
    assert "MaxPoolReLU" in type(pooled.grad_fn).__name__  # and not what it is compared with
    assert torch.equal(pooled, expected) and pooled.dtype == dtype
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(MaxPoolReLU()(x), expected)
    weight = torch.randn(pooled.shape).to(dtype)
    for layout in (weight, weight.contiguous(memory_format=torch.channels_last)):
        got, wanted = (
            torch.autograd.grad(y, x, layout, retain_graph=True) for y in (pooled, expected)
        )
        if shape[1:] != (16, 7, 9) or dtype not in DTYPES[:2]:  # there rounding makes some equal
            assert torch.equal(got[0], wanted[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_of_equal_entries_exactly_one_gets_the_gradient(dtype):
    x = images((4, 3, 8, 6), dtype, distinct=False)
    pooled = MaxPoolReLU()(x)
    assert torch.equal(pooled, plain(x))
    (gradient,) = torch.autograd.grad(pooled.sum(), x)
    windows = gradient.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    values = x.detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert torch.equal(windows.sum(-1), (pooled > 0).to(dtype))
    assert ((windows == 1) | (windows == 0)).all()
    assert torch.equal((windows * values).sum(-1), pooled)  # an entry that is the greatest
    assert (values == pooled.detach().unsqueeze(-1)).sum(-1).max() > 1


def test_other_memory_layouts_give_the_same():
    x = images((2, 5, 8, 6), torch.float32)
    y = x.detach().contiguous().requires_grad_(True)
    got, expected = MaxPoolReLU()(y), MaxPoolReLU()(x)
    assert torch.equal(got, expected)
    assert torch.equal(
        *(torch.autograd.grad(o.square().sum(), i)[0] for o, i in ((got, y), (expected, x)))
    )


def test_extremes_keep_their_order():
    """Subnormal, huge, infinite and both zeros: integers of their bits order as they do."""
    values = torch.tensor([-torch.inf, -1e38, -1e-40, -0.0, 0.0, 1e-40, 1.0, 1e38, torch.inf])
    pairs = torch.cartesian_prod(values, values, values, values)
    x = pairs.reshape(-1, 1, 2, 2).contiguous(memory_format=torch.channels_last)
    assert torch.equal(MaxPoolReLU()(x), plain(x))
