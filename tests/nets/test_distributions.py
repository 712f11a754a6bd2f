"""Every distribution over actions is one: its density, samples, weighted_actions and mode agree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofrl_robot.nets.distributions import (
    LIMIT,
    DiscreteEntries,
    MixedAction,
    TanhGaussian,
    TanhMixture,
    log_det_tanh,
)

EDGE = math.atanh(LIMIT)  # z of the outermost action that log_prob tells from its neighbours
LEVELS = {0: (-1.0, 0.0, 1.0), 2: (0.0, 1.0)}  # gripper, x, neutral: pose between the discrete


def numbers(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def parameters(kind):
    """Two rows' parameters, float64 leaves: they differ, and one entry or component is wide."""
    values = {
        "gaussian": (numbers([0.5, -1.0], [1.5, 0.0]), numbers([-1.0, 0.2], [-0.3, -1.2])),
        "mixture": (
            numbers([0.3, -0.4, 0.0], [1.0, 0.0, -2.0]),
            numbers([[0.5, -1.0], [-0.7, 0.3], [0.0, 0.9]], [[1.2, 0.2], [-1.0, 0.0], [0.1, 0.1]]),
            numbers([[-1.0, 0.1], [-0.3, -1.0], [-0.5, 0]], [[-1.0, 0], [-0.4, -0.8], [0, -1.0]]),
        ),
        "mixed": (
            numbers([0.5], [-0.8]), numbers([-0.4], [0.1]),
            numbers([0.3, -0.5, 1.0], [-1.0, 0.2, 0.0]), numbers([0.7, -0.2], [0.0, 1.1]),
        ),
    }  # fmt: skip
    return [value.requires_grad_(True) for value in values[kind]]


def build(kind, values):
    if kind == "gaussian":
        return TanhGaussian(*values)
    if kind == "mixture":
        return TanhMixture(*values)
    return MixedAction(TanhGaussian(values[0], values[1]), values[2:], DiscreteEntries(3, LEVELS))


def quadrature(kind, points):
    """Actions (M, A) and the volume that each stands for, over the whole space."""
    z = torch.linspace(-EDGE, EDGE, points, dtype=torch.float64)
    axis, volume = torch.tanh(z), log_det_tanh(z).exp() * (z[1] - z[0])
    if kind == "mixed":
        rows = [(g, float(x), n) for g, n in itertools.product(*LEVELS.values()) for x in axis]
        return numbers(*rows), volume.repeat(6)
    grid = torch.cartesian_prod(axis, axis)
    return grid, torch.outer(volume, volume).flatten()


def expectation(dist, kind, function, points=501):
    """E f per row by quadrature over the density, (B,), with gradient to the parameters."""
    actions, volume = quadrature(kind, points)
    density = dist.log_prob(actions.expand(2, *actions.shape)).exp()
    return (density * volume * function(actions)).sum(1)


def curved(actions):
    """Of all entries together, so that no entry can be taken for another."""
    weights = torch.arange(1, actions.shape[-1] + 1, dtype=actions.dtype)
    return torch.sin((actions * weights).sum(-1) + 0.4) + 0.5 * actions[..., 0] * actions[..., -1]


every = pytest.mark.parametrize("kind", ["gaussian", "mixture", "mixed"])


@pytest.mark.slow
@every
def test_density_integrates_to_one(kind):
    """In two dimensions, or over the pose and summed over all levels."""
    total = expectation(build(kind, parameters(kind)), kind, lambda actions: 1.0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(mean=st.floats(-3.0, 3.0), log_std=st.floats(-3.0, 2.0))
def test_a_tanh_gaussian_has_the_mass_of_its_gaussian_between_any_two_actions(mean, log_std):
    """To 1 where it is narrow; a wide one has part of its mass beyond the clipped actions."""
    dist = TanhGaussian(numbers([mean]), numbers([log_std]))
    for low, high in ((-EDGE, EDGE), (-1.0, 0.3)):
        z = torch.linspace(low, high, 4001, dtype=torch.float64)
        density = dist.log_prob(torch.tanh(z).reshape(1, -1, 1)).exp()[0]
        mass = torch.trapezoid(density * log_det_tanh(z).exp(), z)
        scale = math.exp(log_std) * math.sqrt(2.0)
        expected = 0.5 * (math.erf((high - mean) / scale) - math.erf((low - mean) / scale))
        assert float(mass) == pytest.approx(expected, abs=1e-6)


@every
def test_density_of_one_action_a_row_of_many_and_of_a_sample_are_the_same(kind):
    dist = build(kind, parameters(kind))
    actions, log_prob = dist.sample(5)
    assert actions.shape == (2, 5, 3 if kind == "mixed" else 2) and log_prob.shape == (2, 5)
    torch.testing.assert_close(dist.log_prob(actions), log_prob, rtol=1e-8, atol=1e-8)
    one = torch.stack([dist.log_prob(actions[:, k]) for k in range(5)], 1)
    torch.testing.assert_close(one, log_prob, rtol=1e-8, atol=1e-8)


@every
def test_branches_carry_the_density_of_their_actions_and_weights_of_sum_one(kind):
    actions, log_prob, weights = build(kind, parameters(kind)).weighted_actions(3)
    assert actions.shape[1] == 3 * {"gaussian": 1, "mixture": 3, "mixed": 6}[kind]
    torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64))
    dist = build(kind, parameters(kind))
    torch.testing.assert_close(dist.log_prob(actions), log_prob, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@every
@pytest.mark.parametrize("what", ["value", "entropy"])
def test_branches_give_unbiased_means_and_gradients(kind, what):
    """Against quadrature, whose gradient is exact, for f(a) and for log pi itself."""
    values = parameters(kind)
    exact = expectation(build(kind, values), kind, curved)
    if what == "entropy":
        dist = build(kind, values)
        actions, volume = quadrature(kind, 501)
        log_prob = dist.log_prob(actions.expand(2, *actions.shape))
        exact = (log_prob.exp() * volume * log_prob).sum(1)
    wanted = torch.autograd.grad(exact.sum(), values)
    torch.manual_seed(0)
    actions, log_prob, weights = build(kind, values).weighted_actions(60000)
    estimate = (weights * (curved(actions) if what == "value" else log_prob)).sum(1)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.015)
    for got, expected in zip(torch.autograd.grad(estimate.sum(), values), wanted):
        torch.testing.assert_close(got, expected, rtol=0, atol=0.03)
        assert expected.abs().max() > 0.05  # there is a gradient to miss


def test_one_branch_of_each_level_gives_its_logits_their_exact_gradient():
    """Nothing is left to chance where the pose is certain: no score-function noise."""
    values = parameters("mixed")
    with torch.no_grad():
        values[1].fill_(-12.0)
    actions, _, weights = build("mixed", values).weighted_actions(1)
    got = torch.autograd.grad((weights * curved(actions)).sum(), values[2:])
    gripper, neutral = values[2].softmax(-1), values[3].softmax(-1)
    total = 0.0
    for (i, g), (j, n) in itertools.product(enumerate(LEVELS[0]), enumerate(LEVELS[2])):
        x = torch.tanh(values[0][:, 0]).detach()
        action = torch.stack([torch.full_like(x, g), x, torch.full_like(x, n)], -1)
        total = total + (gripper[:, i] * neutral[:, j] * curved(action)).sum()
    torch.testing.assert_close(got, torch.autograd.grad(total, values[2:]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every
def test_samples_follow_the_density_of_their_own_row(kind):
    dist = build(kind, parameters(kind))
    torch.manual_seed(1)
    actions = dist.sample(60000)[0]
    for function in (curved, lambda a: a[..., 0], lambda a: a[..., -1] ** 2):
        exact = expectation(dist, kind, function)
        torch.testing.assert_close(function(actions).mean(1), exact, rtol=0, atol=0.015)
    assert (exact[0] - exact[1]).abs() > 0.05  # rows could be mistaken for each other


@every
def test_a_generator_fixes_the_sample_and_leaves_the_global_one_alone(kind):
    dist, generator = build(kind, parameters(kind)), torch.Generator()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (dist.sample(4, generator.manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_uniform_actions_fill_the_space_evenly(kind):
    """Density times volume is 1, each level is as frequent as the next, moments are a uniform's."""
    torch.manual_seed(0)
    actions, log_prob = build(kind, parameters(kind)).uniform(30000)
    volume = {"gaussian": 4.0, "mixture": 4.0, "mixed": 2.0 * 3.0 * 2.0}[kind]
    torch.testing.assert_close(log_prob.exp() * volume, torch.ones_like(log_prob))
    discrete = LEVELS if kind == "mixed" else {}
    for entry in range(actions.shape[-1]):
        column = actions[..., entry].flatten()
        if entry in discrete:
            values, counts = column.unique(return_counts=True)
            assert values.tolist() == list(discrete[entry])
            assert (counts / len(column) - 1.0 / len(values)).abs().max() < 0.01
        else:
            assert column.abs().max() <= 1.0
            assert abs(float(column.mean())) < 0.01
            assert float(column.square().mean()) == pytest.approx(1.0 / 3.0, abs=0.01)


def test_modes_by_hand():
    gaussian, mixture, mixed = (
        build(kind, parameters(kind)).mode.detach() for kind in ("gaussian", "mixture", "mixed")
    )
    torch.testing.assert_close(gaussian, torch.tanh(parameters("gaussian")[0]).detach())
    # the mean of the most probable component; that of all of them may be where nothing was
    likely = torch.tanh(numbers([0.5, -1.0], [1.2, 0.2]))
    torch.testing.assert_close(mixture, likely)
    x = torch.tanh(numbers([0.5], [-0.8]))[:, 0]
    torch.testing.assert_close(mixed[:, 1], x)
    assert mixed[:, 0].tolist() == [1.0, 0.0] and mixed[:, 2].tolist() == [0.0, 1.0]


def test_canonical_does_what_the_robot_makes_of_the_entry():
    """Above +0.5 opens, below -0.5 closes, anything else keeps; above 0.5 fires neutral."""
    near = [np.nextafter(np.float32(0.5), np.float32(b)) for b in (0.0, 1.0)]
    column = [-1.0, -near[1], -0.5, -near[0], -0.1, 0.0, near[0], 0.5, near[1], 0.9]
    entry = torch.tensor(column, dtype=torch.float32)
    actions = torch.stack([entry, entry, entry], -1)
    values = [value.detach().float() for value in parameters("mixed")]
    dist = build("mixed", [value[:1].expand(len(entry), -1) for value in values])
    before = actions.clone()
    got = dist.canonical(actions)
    opens = (entry > 0.5).float()
    assert torch.equal(got, torch.stack([opens - (entry < -0.5).float(), entry, opens], -1))
    assert torch.equal(actions, before)  # a copy
    torch.testing.assert_close(dist.log_prob(actions), dist.log_prob(got))
    torch.testing.assert_close(dist.log_prob(actions.unsqueeze(1)), dist.log_prob(got).unsqueeze(1))


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_continuous_actions_are_canonical_as_they_are(kind):
    actions = torch.rand(2, 2) * 2 - 1
    assert build(kind, parameters(kind)).canonical(actions) is actions


@every
def test_detached_it_is_the_same_distribution_without_a_gradient(kind):
    dist = build(kind, parameters(kind))
    cut = dist.detach()
    torch.manual_seed(0)
    actions, log_prob, weights = cut.weighted_actions(2)
    torch.manual_seed(0)
    for detached, live in zip((actions, log_prob, weights), dist.weighted_actions(2)):
        torch.testing.assert_close(detached, live.detach())
        assert not detached.requires_grad
    assert not cut.log_prob(actions).requires_grad and not cut.mode.requires_grad
    assert dist.log_prob(actions).requires_grad


@every
@pytest.mark.parametrize("edge", [-1.0, 1.0])
def test_an_action_on_the_border_has_a_finite_density_and_gradient(kind, edge):
    """Data holds exact -1 and 1: the textbook atanh of them is infinite."""
    values = [value.detach().float().requires_grad_(True) for value in parameters(kind)]
    dist = build(kind, values)
    log_prob = dist.log_prob(torch.full((2, 3 if kind == "mixed" else 2), edge))
    assert torch.isfinite(log_prob).all()
    for gradient in torch.autograd.grad(log_prob.sum(), values, allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()


def test_log_det_is_exact_and_finite_where_the_textbook_form_is_not():
    z = torch.linspace(-5.0, 5.0, 101, dtype=torch.float64)
    torch.testing.assert_close(log_det_tanh(z), torch.log(1.0 - torch.tanh(z) ** 2))
    far = torch.tensor([-40.0, 40.0])  # tanh is exactly 1 there in float32
    torch.testing.assert_close(log_det_tanh(far), 2.0 * (math.log(2.0) - far.abs()))
