"""The scalar of temperatures and multipliers moves towards its constraint, and only that."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofrl_robot.nets.dual import LagrangeMultiplier


@given(st.floats(1e-3, 1e3))
def test_it_starts_where_it_was_told(initial):
    assert float(LagrangeMultiplier(initial).value) == pytest.approx(initial, rel=1e-5)


@pytest.mark.parametrize(("excess", "direction"), [([0.5, -0.1], 1.0), ([-0.3, 0.2], -1.0)])
@pytest.mark.parametrize("initial", [0.01, 1.0, 30.0])
def test_a_step_follows_the_mean_excess_as_fast_whatever_the_value(excess, direction, initial):
    dual = LagrangeMultiplier(initial)
    optimizer = torch.optim.SGD(dual.parameters(), lr=0.1)
    dual.loss(torch.tensor(excess)).backward()
    optimizer.step()
    expected = initial * torch.tensor(0.1 * sum(excess) / 2).exp()
    torch.testing.assert_close(dual.value, expected, rtol=1e-5, atol=0)
    assert (float(dual.value) - initial) * direction > 0


def test_it_stays_at_its_bound():
    dual = LagrangeMultiplier(2.0, most=3.0)
    with torch.no_grad():
        dual.log.fill_(50.0)
    assert float(dual.value) == 3.0


@pytest.mark.parametrize(("excess", "bound"), [(1.0, 3.0), (-1.0, 1e-8)])
def test_it_comes_back_from_its_bound_at_once(excess, bound):
    """A logarithm that ran on would need as many steps back: the constraint cannot be met."""
    dual = LagrangeMultiplier(2.0, most=3.0)
    optimizer = torch.optim.SGD(dual.parameters(), lr=0.1)

    def step(value):
        optimizer.zero_grad()
        dual.loss(torch.tensor([value])).backward()
        optimizer.step()

    for _ in range(1000):
        step(excess)
    assert float(dual.value) == pytest.approx(bound)
    for _ in range(3):
        step(-excess)
    change = float(dual.value) / bound
    assert change < 0.9 if excess > 0 else change > 1.1


def test_a_value_of_0_is_none():
    dual = LagrangeMultiplier(0.0)
    assert float(dual.value) == 0.0 and all(torch.isfinite(p).all() for p in dual.parameters())


def test_neither_use_passes_a_gradient_on():
    """The excess learns nothing from the multiplier, nor what is multiplied from its loss."""
    dual, x = LagrangeMultiplier(1.0), torch.tensor(2.0, requires_grad=True)
    (dual.value * x).backward()
    assert float(x.grad) == 1.0 and dual.log.grad is None
    x.grad = None
    dual.loss(x).backward()
    assert x.grad is None and float(dual.log.grad) == -2.0
