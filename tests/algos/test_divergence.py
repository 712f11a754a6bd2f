"""Divergences of known policies against closed forms and quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofrl_robot.algos import divergence
from ofrl_robot.nets.distributions import DiscreteEntries, MixedAction, TanhGaussian, TanhMixture

MANY = 20000


def gaussian(mean, log_std):
    return TanhGaussian(torch.tensor([mean]), torch.tensor([log_std]))


def gaussian_kl(p, q):
    normals = [torch.distributions.Normal(d.mean, d.log_std.exp()) for d in (p, q)]
    return torch.distributions.kl_divergence(*normals).sum(-1)


@settings(max_examples=25, deadline=None)
@given(
    means=st.tuples(*[st.floats(-0.7, 0.7)] * 4),
    ours=st.tuples(*[st.floats(-1.5, 0.0)] * 2),
    theirs=st.tuples(*[st.floats(-0.5, 0.0)] * 2),
)
def test_kl_is_that_of_the_gaussians_before_tanh(means, ours, theirs):
    """A divergence knows no coordinates: tanh changes both densities alike."""
    p, q = gaussian(means[:2], ours), gaussian(means[2:], theirs)
    torch.manual_seed(0)
    # the estimate's spread is of the order of the divergence itself
    torch.testing.assert_close(divergence.kl(p, q, MANY), gaussian_kl(p, q), rtol=0.05, atol=0.05)


def test_kl_of_mixed_policies_is_that_of_poses_plus_that_of_levels():
    levels = DiscreteEntries(3, {0: (-1.0, 0.0, 1.0), 2: (0.0, 1.0)})
    logits = [torch.tensor([[0.3, -0.5, 1.0]]), torch.tensor([[0.7, -0.2]])]
    others = [torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([[-0.5, 0.1]])]
    p, q = gaussian([0.3], [-0.5]), gaussian([-0.4], [0.1])
    exact = gaussian_kl(p, q)
    for one, other in zip(logits, others):
        categoricals = [torch.distributions.Categorical(logits=x) for x in (one, other)]
        exact = exact + torch.distributions.kl_divergence(*categoricals)
    torch.manual_seed(0)
    got = divergence.kl(MixedAction(p, logits, levels), MixedAction(q, others, levels), MANY)
    torch.testing.assert_close(got, exact, rtol=0.02, atol=0)


def mixture(mean, log_std):
    return TanhMixture(torch.tensor([[0.5, -0.5]]), torch.tensor([mean]), torch.tensor([log_std]))


def by_quadrature(function, *dists):
    """Integral of function(densities, actions) over 1-D actions."""
    z = torch.linspace(-6.0, 6.0, 20001)
    actions = torch.tanh(z)
    densities = [d.log_prob(actions.reshape(1, -1, 1))[0].double().exp() for d in dists]
    return float(torch.trapezoid(function(*densities), actions.double()))


def test_kl_and_density_of_mixtures_against_quadrature():
    p = mixture([[0.8], [-0.6]], [[-1.0], [-0.5]])
    q = mixture([[0.0], [-1.0]], [[-0.2], [-0.4]])
    torch.manual_seed(0)
    kl = by_quadrature(lambda a, b: a * (a / b).log(), p, q)
    assert float(divergence.kl(p, q, MANY)) == pytest.approx(kl, rel=0.03)
    cross = by_quadrature(lambda a, b: -a * b.log(), p, q)
    assert float(divergence.negative_log_density(p, q, MANY)) == pytest.approx(cross, abs=0.02)


@pytest.mark.parametrize("log_std", [-2.0, 0.0, 2.0])
def test_kl_of_a_policy_from_itself_is_zero_and_so_is_its_gradient(log_std):
    """Wide policies fill their samples with actions of exactly +-1. log b is taken at clipped
    actions; log pi of the unclipped ones would make this 3 nats an entry at log_std 2."""
    torch.manual_seed(0)
    mean = torch.tensor([[0.5, -1.0]], requires_grad=True)
    spread = torch.full((1, 2), log_std, requires_grad=True)
    policy = TanhGaussian(mean, spread)
    value = divergence.kl(policy, policy.detach(), 2000)
    assert value.item() == pytest.approx(0.0, abs=1e-4)
    for gradient in torch.autograd.grad(value.sum(), (mean, spread)):
        assert gradient.abs().max() < 1e-3


def test_gradient_of_the_kl_is_that_of_its_closed_form():
    parameters = [torch.tensor([[0.5]]), torch.tensor([[-0.7]])]
    for p in parameters:
        p.requires_grad_(True)
    policy, behavior = TanhGaussian(*parameters), gaussian([-0.3], [0.1])
    torch.manual_seed(0)
    got = torch.autograd.grad(divergence.kl(policy, behavior, MANY).sum(), parameters)
    wanted = torch.autograd.grad(gaussian_kl(policy, behavior).sum(), parameters)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0.02)


@pytest.mark.parametrize("estimate", [divergence.kl, divergence.negative_log_density])
def test_beyond_20_nats_an_entry_the_cost_of_a_far_action_grows_by_its_logarithm(estimate):
    """log b has no lower bound, and one such action would outweigh the batch."""
    policy, behavior = gaussian([2.0, 2.0], [-3.0, -3.0]), gaussian([-2.0, -2.0], [-4.0, -4.0])
    torch.manual_seed(0)
    value = estimate(policy, behavior, 64)
    torch.manual_seed(0)
    actions, log_prob, _ = policy.weighted_actions(64)
    entries = torch.stack(
        [gaussian([-2.0], [-4.0]).log_prob(actions[..., k : k + 1]) for k in (0, 1)]
    )
    assert entries.max() < -2000.0
    lifted = (-20.0 - torch.log1p(-20.0 - entries)).sum(0)
    expected = -lifted.mean(1) + (estimate is divergence.kl) * log_prob.mean(1)
    torch.testing.assert_close(value, expected)
    assert 40.0 < float(-lifted.mean()) < 62.0  # the densities themselves: -10^9 and less


@pytest.mark.parametrize(
    "behavior",
    [
        gaussian([-2.0, 0.3], [-5.0, -0.5]),
        TanhMixture(
            torch.zeros(1, 2),
            torch.tensor([[[-2.0, 0.3], [-2.5, 0.3]]]),
            torch.full((1, 2, 2), -5.0),
        ),
        MixedAction(
            gaussian([-2.0, 0.3], [-5.0, -0.5]),
            [torch.zeros(1, 3)],
            DiscreteEntries(3, {2: (-1.0, 0.0, 1.0)}),
        ),
    ],
    ids=["gaussian", "mixture", "mixed"],
)
def test_there_is_a_pull_however_far_an_action_is(behavior):
    """Towards b, in the far entry, and the near entry keeps its own: a floor on the whole action
    let go of 46 to 92 % of the samples where the data does not move an entry."""
    actions = torch.tensor([[[0.9, 0.2, 0.0]]])[..., : 3 if hasattr(behavior, "pose") else 2]
    actions.requires_grad_(True)
    (slope,) = torch.autograd.grad(divergence.behavior_log_prob(behavior, actions).sum(), actions)
    # along the tail of a Gaussian before tanh: 2 / distance, times d atanh / da, and the tanh's own
    assert float(slope[0, 0, 0]) < -1.0
    near = actions.detach()[..., :1].clone()
    near.fill_(math.tanh(-2.0))
    close = torch.cat([near, actions.detach()[..., 1:]], -1).requires_grad_(True)
    (own,) = torch.autograd.grad(divergence.behavior_log_prob(behavior, close).sum(), close)
    assert float(slope[0, 0, 1]) == pytest.approx(float(own[0, 0, 1]), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.5, 20.0])
def test_mmd_against_quadrature(sigma):
    p, q = gaussian([0.4], [-0.5]), gaussian([-0.6], [-0.2])
    z = torch.linspace(-4.0, 4.0, 1601)
    actions = torch.tanh(z).double()
    volume = (1.0 - actions.square()) * float(z[1] - z[0])
    masses = [
        d.log_prob(actions.float().reshape(1, -1, 1)).exp()[0].double() * volume for d in (p, q)
    ]
    kernel = torch.exp(-(actions[:, None] - actions[None]).abs() / sigma)
    difference = masses[0] - masses[1]
    exact = float(difference @ kernel @ difference)
    torch.manual_seed(0)
    got = float(divergence.mmd(p, q, 3000, sigma))
    assert got == pytest.approx(exact, rel=0.08)
    assert exact > 0.01


def test_mmd_counts_all_entries_and_is_never_negative():
    """Exactly, on certain policies: k = exp(-|a - b|_1 / sigma), 2 - 2 k between two points."""
    p, q = gaussian([0.5, -0.2], [-12.0] * 2), gaussian([-0.3, 0.4], [-12.0] * 2)
    distance = float((p.mode - q.mode).abs().sum())
    expected = 2.0 - 2.0 * math.exp(-distance / 1.5)
    assert float(divergence.mmd(p, q, 3, 1.5)) == pytest.approx(expected, abs=1e-4)
    torch.manual_seed(0)
    same = [float(divergence.mmd(p, p, 1, 1.5)) for _ in range(5)]
    wide = gaussian([0.5, -0.2], [0.0] * 2)
    assert min(same + [float(divergence.mmd(wide, wide, 4, 1.5)) for _ in range(20)]) >= -1e-6


def test_mmd_weighs_the_branches_of_both_policies():
    """Components and levels count by their probability, not by their number."""
    levels = DiscreteEntries(2, {0: (-1.0, 0.0, 1.0)})
    pose = gaussian([0.0], [-12.0])
    sure = MixedAction(pose, [torch.tensor([[50.0, 0.0, 0.0]])], levels)
    torn = MixedAction(pose, [torch.tensor([[0.0, -50.0, 0.0]])], levels)
    k = math.exp(-2.0)  # between -1 and 1, sigma 1; torn is half at each
    expected = 1.0 + (0.5 + 0.5 * k) - 2.0 * (0.5 + 0.5 * k)
    assert float(divergence.mmd(sure, torn, 2, 1.0)) == pytest.approx(expected, abs=1e-4)


def test_primal_estimates_send_a_gradient_to_the_policy_only():
    leaves = [torch.tensor([[value]], requires_grad=True) for value in (0.3, -0.5, -0.2, 0.1)]
    policy, behavior = TanhGaussian(*leaves[:2]), TanhGaussian(*leaves[2:]).detach()
    for value in (
        divergence.kl(policy, behavior, 8),
        divergence.negative_log_density(policy, behavior, 8),
        divergence.mmd(policy, behavior, 8, 1.0),
    ):
        gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        assert all(g.abs() > 0 for g in gradients[:2]) and gradients[2:] == (None, None)


# -- dual forms -------------------------------------------------------------------------------


def quantiles(dist, count=20000):
    """Evenly likely actions (count,) of a 1-D policy: means over them are integrals."""
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    unit = torch.special.ndtri(levels)
    return torch.tanh(dist.mean.double() + dist.log_std.double().exp() * unit)[0]


@settings(max_examples=30, deadline=None)
@given(bumps=st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4))
def test_no_discriminator_gives_more_than_the_kl_and_the_best_gives_it(bumps):
    """The best is softplus(c) = pi / b (Nowozin et al. 2016)."""
    p, q = gaussian([0.4], [-0.5]), gaussian([-0.3], [-0.2])

    def best(actions):
        ratio = [d.log_prob(actions.float().reshape(1, -1, 1))[0].double() for d in (p, q)]
        return torch.log(torch.expm1((ratio[0] - ratio[1]).exp().clamp(min=1e-9)))

    def bent(actions):
        return best(actions) + sum(b * torch.sin((k + 1) * actions) for k, b in enumerate(bumps))

    exact = float(gaussian_kl(p, q))
    values = [
        float(divergence.dual_kl(c(quantiles(p)), c(quantiles(q))).mean()) for c in (best, bent)
    ]
    assert values[0] == pytest.approx(exact, abs=2e-3)
    assert values[1] <= exact + 2e-3


def test_dual_forms_by_hand():
    at_policy, at_data = torch.tensor([0.5, -2.0]), torch.tensor([1.0, 0.0])
    assert divergence.dual_wasserstein(at_policy, at_data).tolist() == [-0.5, -2.0]
    softplus = [math.log1p(math.exp(v)) for v in (0.5, -2.0, 1.0, 0.0)]
    expected = [
        math.log(softplus[0]) - softplus[2] + 1.0,
        math.log(softplus[1]) - softplus[3] + 1.0,
    ]
    assert divergence.dual_kl(at_policy, at_data).tolist() == pytest.approx(expected, abs=1e-5)
