"""The conservative term against quadrature and hand-made numbers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from ofrl_robot.nets.distributions import DiscreteEntries, MixedAction, TanhGaussian, TanhMixture
from tests.algos.known_q import KnownQ

LEVELS = {1: (-1.0, 0.0, 1.0)}
DATA = 0.25


def gaussian(mean, log_std, rows=8):
    return TanhGaussian(torch.full((rows, 1), mean), torch.full((rows, 1), log_std))


def mixture(mean, log_std, rows=8):
    means = torch.tensor([mean, -mean - 0.5]).reshape(1, 2, 1).expand(rows, 2, 1)
    return TanhMixture(torch.zeros(rows, 2), means, torch.full((rows, 2, 1), log_std))


def mixed(mean, log_std, rows=8):
    logits = torch.tensor([[0.5, -1.0, mean]]).expand(rows, 3)
    return MixedAction(gaussian(mean, log_std, rows), [logits], DiscreteEntries(2, LEVELS))


HEADS = {"gaussian": gaussian, "mixture": mixture, "mixed": mixed}


def steep(actions):
    """Of the pose and, where there is one, of the gripper."""
    x, last = actions[..., 0], actions[..., -1]
    return 3.0 * torch.sin(3.0 * x) + 2.0 * last


def flat(actions):
    return actions[..., 0] ** 2 - 0.3 * actions[..., -1]


def integral(function, temperature, head, density=None):
    """T log of the integral of exp(Q/T), or of density * exp(Q/T), over all actions; levels are
    summed over."""
    x = torch.linspace(-1.0, 1.0, 20001, dtype=torch.float64)
    total = 0.0
    for level in LEVELS[1] if head == "mixed" else (None,):
        columns = [x] if level is None else [x, torch.full_like(x, level)]
        actions = torch.stack(columns, -1)
        height = (function(actions) / temperature).exp()
        if density is not None:
            height = height * density(actions)
        total = total + torch.trapezoid(height, x)
    return temperature * math.log(float(total))


def regulariser_of(algorithm, functions, here, there, seed=0):
    """R of known Q-functions on the algorithm's own proposals, all data actions the same."""
    torch.manual_seed(seed)
    proposals = algorithm.proposals(here, there)
    actions = proposals.actions
    critic = KnownQ(*functions)
    data = torch.full((len(actions), 1, actions.shape[-1]), DATA)
    data_q = critic.q(None, data).squeeze(-1)
    return algorithm.regulariser(None, data_q, critic.q(None, actions), proposals), actions


def truth_of(softmax, functions, head):
    data = torch.full((1, 2 if head == "mixed" else 1), DATA)
    return torch.tensor([softmax(f) - float(f(data)) for f in functions])


every_head = pytest.mark.parametrize("head", sorted(HEADS))
temperatures = pytest.mark.parametrize("temperature", [1.0, 2.5])


@every_head
@temperatures
@pytest.mark.parametrize("shares", [(1, 1, 1), (3, 1, 0), (1, 0, 0), (0, 2, 1)], ids=str)
def test_variant_h_converges_to_the_log_integral_minus_data_q(head, temperature, shares, build):
    """Each sample is corrected by the density it was drawn with, so each share alone estimates
    the integral without bias; a mixed head's is over the pose and summed over the levels."""
    make = HEADS[head]
    truth = truth_of(lambda f: integral(f, temperature, head), (steep, flat), head)
    errors = []
    for scale in (1, 20000):
        algorithm = build(
            "cql", cql_samples=tuple(scale * s for s in shares), cql_temperature=temperature
        )
        value, _ = regulariser_of(algorithm, (steep, flat), make(0.4, 0.0), make(-0.6, 0.1))
        errors.append(float((value - truth).abs().max()))
    assert errors[1] < 0.03 < errors[0]


@every_head
@temperatures
def test_variant_rho_converges_to_the_policys_own_log_mean(head, temperature, build):
    here = HEADS[head](0.4, 0.0)
    double = HEADS[head](0.4, 0.0, rows=1).log_prob

    def density(actions):
        return double(actions.float().unsqueeze(0)).exp()[0].double()

    truth = truth_of(lambda f: integral(f, temperature, head, density), (steep, flat), head)
    algorithm = build(
        "cql", cql_variant="rho", cql_samples=(0, 40000, 0), cql_temperature=temperature
    )
    value, actions = regulariser_of(algorithm, (steep, flat), here, HEADS[head](-5.0, -3.0))
    assert actions.shape[1] == 40000  # none uniform, none of the next image
    torch.testing.assert_close(value, truth, rtol=0, atol=0.03)


def test_variant_rho_proposes_the_policys_actions_only(build):
    """Also where cql_samples names others, as its default does."""
    algorithm = build("cql", cql_variant="rho")
    here = gaussian(0.4, 0.0)
    torch.manual_seed(0)
    actions, log_density, n_uniform = algorithm.proposals(here, gaussian(-5.0, -3.0))
    assert actions.shape == (8, 4, 1) and n_uniform == 0
    torch.testing.assert_close(log_density, here.log_prob(actions), rtol=1e-4, atol=1e-4)


def test_without_importance_sampling_it_is_the_soft_maximum_of_what_was_sampled(build):
    """A third of each: its limit is the log mean over the mixture of the three densities."""
    here, there = gaussian(0.4, 0.0), gaussian(-0.6, 0.1)

    def density(actions):
        uniform = torch.full((len(actions),), 0.5)
        policies = [d.log_prob(actions.float().expand(8, -1, 1)).exp()[0] for d in (here, there)]
        return (uniform + policies[0] + policies[1]).double() / 3.0

    truth = truth_of(lambda f: integral(f, 1.0, "gaussian", density), (steep,), "gaussian")
    algorithm = build("cql", importance_sampling=False, cql_samples=(20000,) * 3)
    value, _ = regulariser_of(algorithm, (steep,), here, there)
    torch.testing.assert_close(value, truth, rtol=0, atol=0.03)
    corrected, _ = regulariser_of(build("cql", cql_samples=(20000,) * 3), (steep,), here, there)
    assert abs(float(value - corrected)) > 0.1


@pytest.mark.parametrize("samples", [(1, 1, 1), (3, 3, 3), (1, 2, 4)], ids=str)
def test_the_log_mean_is_over_exactly_as_many_corrected_entries(samples, build):
    """One entry too few or a density on the wrong share does not show in the limit."""
    here, there = gaussian(0.4, -0.3, 5), gaussian(-0.6, 0.1, 5)
    got, actions = regulariser_of(build("cql", cql_samples=samples), (steep,), here, there)
    uniform, policy, _ = samples
    assert actions.shape == (5, sum(samples), 1)
    density = torch.full((5, sum(samples)), -math.log(2.0))
    density[:, uniform : uniform + policy] = here.log_prob(actions[:, uniform : uniform + policy])
    density[:, uniform + policy :] = there.log_prob(actions[:, uniform + policy :])
    expected = (steep(actions) - density).exp().mean(1).log() - steep(torch.full((1, 1), DATA))
    torch.testing.assert_close(got, expected.mean().reshape(1), rtol=1e-4, atol=1e-4)


def test_its_gradient_pushes_down_where_q_is_high_and_up_at_the_data(build):
    """d R / d Q(a) is the softmax of Q over actions, minus one at the data."""
    theta = torch.tensor(1.3, requires_grad=True)
    r, _ = regulariser_of(
        build("cql", cql_samples=(4000,) * 3),
        (lambda a: theta * a[..., 0],), gaussian(0.4, 0.0), gaussian(-0.6, 0.0),
    )  # fmt: skip
    grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    density = torch.exp(1.3 * grid) / torch.trapezoid(torch.exp(1.3 * grid), grid)
    expected = float(torch.trapezoid(grid * density, grid)) - DATA
    assert float(torch.autograd.grad(r.sum(), theta)[0]) == pytest.approx(expected, abs=0.02)


def test_next_images_count_only_through_the_actions_proposed_there(build, batch, losses_of):
    """All proposals are looked at here: Q of the next image's actions at the next image would
    be another algorithm."""
    values = []
    for swap in (False, True):
        algorithm = build("cql", cql_samples=(2, 2, 0))
        if swap:
            image = batch.next_observations["image"]
            image[:] = image[::-1].copy()
        values.append(losses_of(algorithm, batch).metrics["cql_term"])
    assert torch.equal(*values)


def test_what_it_adds_to_the_critics_loss(build, batch, losses_of):
    """w times the sum over critics, and the metric is without w."""
    plain, weighted = (
        losses_of(build("cql", cql_weight=w, nets={"n_critics": 3}), batch) for w in (0.0, 2.5)
    )
    value = plain.metrics["cql_term"]
    assert value.shape == () and torch.equal(value, weighted.metrics["cql_term"])
    difference = weighted.parts["critic"] - plain.parts["critic"]
    torch.testing.assert_close(difference, 2.5 * 3 * value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("gap", "direction"), [(-50.0, 1.0), (50.0, -1.0)])
def test_the_lagrange_multiplier_moves_towards_the_gap(gap, direction, build, batch):
    """Up while w R is above the gap, down below it (that of the released bottleneck's code never
    moved); R itself then counts more or less."""
    algorithm = build("cql", lagrange=True, lagrange_gap=gap, critic_lr=1e-2)
    assert float(algorithm.multiplier.value) == 1.0
    for _ in range(5):
        algorithm.update(batch)
    assert (float(algorithm.multiplier.value) - 1.0) * direction > 0.01


def test_lagrange_by_its_formula(build, batch, losses_of):
    algorithm = build("cql", lagrange=True, lagrange_gap=0.7, cql_weight=2.0)
    with torch.no_grad():
        algorithm.multiplier.log.fill_(math.log(3.0))
    plain = build("cql", cql_weight=0.0)
    td, got = losses_of(plain, batch), losses_of(algorithm, batch)
    term = got.metrics["cql_term"] + math.log(12)
    added = got.parts["critic"] - td.parts["critic"]
    torch.testing.assert_close(added, 3.0 * 2 * (2.0 * term - 0.7), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        got.parts["multiplier"], -math.log(3.0) * (2.0 * term - 0.7), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 12),
        ({"cql_samples": (1, 1, 1)}, 3),
        ({"importance_sampling": False}, 12),
        ({"cql_variant": "rho", "cql_samples": (0, 5, 0)}, 5),
        ({"cql_temperature": 0.5}, 12),
    ],
    ids=str,
)
def test_a_published_gap_counts_from_the_log_sum(settings, count, build):
    """w (T log sum exp(Q/T) - Q(a_data)) - gap, as the papers' code has it, written out."""
    algorithm = build("cql", lagrange=True, lagrange_gap=0.7, cql_weight=2.0, **settings)
    here, there = gaussian(0.4, -0.3), gaussian(-0.6, 0.1)
    term, _ = regulariser_of(algorithm, (steep, flat), here, there)
    torch.manual_seed(0)
    proposals = algorithm.proposals(here, there)
    temperature = settings.get("cql_temperature", 1.0)
    corrected = settings.get("importance_sampling", "cql_variant" not in settings)
    expected = []
    for function in (steep, flat):
        exponents = function(proposals.actions) / temperature
        if corrected:
            exponents = exponents - proposals.log_density
        assert exponents.shape[1] == count
        soft = temperature * exponents.exp().sum(1).log()
        expected.append(2.0 * (soft.mean() - function(torch.full((1, 1), DATA))).squeeze() - 0.7)
    losses = algorithm.regulariser_losses(term)
    torch.testing.assert_close(losses["critic"], sum(expected), rtol=1e-4, atol=1e-4)


def test_probe_reports_the_unmultiplied_terms(build, batch):
    """TD error pure, regulariser without its weight: comparable between runs."""
    values = []
    for settings in ({"cql_weight": 0.0}, {"cql_weight": 50.0}, {"lagrange": True}):
        algorithm = build("cql", **settings)
        torch.manual_seed(5)
        values.append(algorithm.probe(batch))
    assert values[0] == values[1] == values[2] and np.isfinite(values[0]["cql_term"])


@pytest.mark.slow
def test_conservatism_lowers_q_away_from_the_data(build, batch):
    """What the term is for: after some steps data actions are worth more than random ones."""
    gaps, batch = [], dataclasses.replace(batch, bootstrap=batch.bootstrap * np.float32(0.5))
    for weight in (0.0, 5.0):
        algorithm = build("cql", cql_weight=weight, critic_lr=3e-3, discount=0.5)
        for _ in range(60):
            algorithm.update(batch)
        torch.manual_seed(0)
        probe = algorithm.probe(batch)
        gaps.append(probe["data_q"] - probe["random_q"])
    assert gaps[1] > gaps[0] + 0.5
