"""CQL against hand-made numbers and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ofrl_robot.algos.base import TensorBatch
from ofrl_robot.nets.distributions import TanhGaussian

CPU = torch.device("cpu")


class KnownQ(torch.nn.Module):
    """A critic of two members with values given by a function of the action; no network."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions

    def encode(self, images):
        return torch.zeros(len(images), 1)

    def q(self, code, actions):
        return torch.stack([f(actions) for f in self.functions])


def dist(rows, mean, log_std):
    return TanhGaussian(torch.full((rows, 1), mean), torch.full((rows, 1), log_std))


def steep(actions):
    return 3.0 * torch.sin(3.0 * actions[..., 0]) + 2.0 * actions[..., 0]


def flat(actions):
    return actions[..., 0] ** 2


def log_integral(function):
    action = torch.linspace(-1.0, 1.0, 20001, dtype=torch.float64)
    return float(torch.trapezoid(function(action.unsqueeze(1)).exp(), action).log())


def regulariser_of(algorithm, functions, here, there, data=0.25):
    """R of known Q-functions on the algorithm's own proposals, all data actions the same."""
    actions, log_density = algorithm.proposals(here, there)
    critic = KnownQ(*functions)
    data_q = critic.q(None, torch.full((len(actions), 1), data))
    return algorithm.regulariser(data_q, critic.q(None, actions), log_density), actions


def test_regulariser_converges_to_log_integral_minus_data_q(build):
    """Each third of the samples is corrected by its own density, so each third estimates the
    integral of exp Q without bias, and so does their mean, which the division by 3N makes it."""
    truth = torch.tensor([
        log_integral(f) - float(f(torch.tensor([[0.25]]))) for f in (steep, flat)
    ])  # fmt: skip
    errors = []
    for count in (4, 20000):
        torch.manual_seed(0)
        algorithm = build("cql", cql_samples=(count,) * 3)
        value, _ = regulariser_of(algorithm, (steep, flat), dist(8, 0.4, -0.3), dist(8, -0.6, 0.1))
        errors.append(float((value - truth).abs().max()))
    assert errors[1] < 0.02 < errors[0]


@pytest.mark.parametrize("count", [1, 3])
def test_regulariser_is_the_log_mean_over_exactly_3n_corrected_entries(build, count):
    algorithm = build("cql", cql_samples=(count,) * 3)
    here, there = dist(5, 0.4, -0.3), dist(5, -0.6, 0.1)
    got, actions = regulariser_of(algorithm, (steep,), here, there)
    assert actions.shape == (5, 3 * count, 1)
    density = torch.full((5, 3 * count), -math.log(2.0))  # uniform over [-1, 1]
    density[:, count : 2 * count] = here.log_prob(actions[:, count : 2 * count])
    density[:, 2 * count :] = there.log_prob(actions[:, 2 * count :])
    expected = (steep(actions) - density).exp().mean(1).log() - steep(torch.tensor([[0.25]]))
    torch.testing.assert_close(got, expected.mean().reshape(1), rtol=1e-4, atol=1e-4)


def test_regulariser_gradient_pushes_down_where_q_is_high_and_up_at_the_data(build):
    """d R / d Q(a) is the softmax of Q over actions, minus one at the data."""
    algorithm = build("cql", cql_samples=(4000,) * 3)
    theta = torch.tensor(1.3, requires_grad=True)
    torch.manual_seed(0)
    r, _ = regulariser_of(
        algorithm, (lambda a: theta * a[..., 0],), dist(8, 0.4, 0.0), dist(8, -0.6, 0.0)
    )
    grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    density = torch.exp(1.3 * grid) / torch.trapezoid(torch.exp(1.3 * grid), grid)
    expected = float(torch.trapezoid(grid * density, grid)) - 0.25
    assert float(torch.autograd.grad(r.sum(), theta)[0]) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("clip", [True, False])
def test_targets_by_hand(build, clip):
    """min over the ensemble, terminal mask, no mask at timeouts, clip to [0, 1/(1-discount)]."""
    algorithm = build("cql", discount=0.5, clip_targets=clip)
    values = torch.tensor([[1.0, 1.0, 9.0, -3.0, 0.0], [0.4, 5.0, 8.0, -2.0, 1.0]])

    class Table(KnownQ):
        def q(self, code, actions):
            assert actions.shape == (5, 1, 2)
            return values.unsqueeze(-1)

    algorithm.target_critic = Table()
    batch = type("Rows", (), {})()
    batch.next_images = torch.zeros(5, 16, 16, 3, dtype=torch.uint8)
    batch.rewards = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])
    batch.bootstrap = 0.5 * torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    got = algorithm.target(batch, TanhGaussian(torch.zeros(5, 2), torch.zeros(5, 2)))
    plain = [1.0 + 0.5 * 0.4, 1.0, 0.5 * 8.0, 0.5 * -3.0, 1.0]
    clipped = [1.2, 1.0, 2.0, 0.0, 1.0]
    torch.testing.assert_close(got, torch.tensor(clipped if clip else plain))


def test_terminals_mask_and_nothing_else_does(batch):
    tensors = TensorBatch.load(batch, CPU, 0.5)
    assert torch.equal(tensors.bootstrap, 0.5 * (1.0 - torch.from_numpy(batch.terminals).float()))


def losses_of(algorithm, batch, seed=3):
    torch.manual_seed(seed)
    return algorithm(algorithm.load(batch))


@pytest.mark.parametrize("warm", [0, 100])
def test_each_loss_reaches_its_own_network_only(build, batch, warm):
    algorithm = build("cql", warm_start_steps=warm, lagrange=True)
    losses = losses_of(algorithm, batch).parts
    assert set(losses) == {"actor", "temperature", "critic", "multiplier"}
    for own, loss in losses.items():
        algorithm.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        for key, parameter in algorithm.named_parameters():
            assert (parameter.grad is not None) == (key.split(".")[0] == own), (own, key)
    for module in (algorithm.target_critic, algorithm.average_actor):
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
    assert all(p.requires_grad for p in algorithm.critic.parameters())  # thawed again


def perturbed_critic(algorithm):
    with torch.no_grad():
        for parameter in algorithm.critic.heads.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_q_has_no_influence_on_the_actor_during_the_warm_start_and_has_after_it(build, batch):
    for step, influenced in ((0, False), (4, False), (5, True)):
        algorithm = build("cql", warm_start_steps=5)
        algorithm.step = step
        plain = losses_of(algorithm, batch).parts["actor"].detach()
        perturbed_critic(algorithm)
        assert (
            torch.equal(losses_of(algorithm, batch).parts["actor"].detach(), plain) != influenced
        ), step


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_actor_loss_by_its_formula(build, batch, weight):
    """0 is the plain algorithm: alpha log pi - min Q; the weight adds imitation, no more."""
    algorithm = build("cql", warm_start_steps=0, actor_bc_weight=weight)
    algorithm.temperature.log.data.fill_(-1.0)
    tensors = algorithm.load(batch)
    torch.manual_seed(3)
    d = algorithm.actor(tensors.images)
    action, log_prob = d.sample(1)
    q = algorithm.critic.q(algorithm.critic.encode(tensors.images), action).squeeze(-1)
    expected = (math.exp(-1.0) * log_prob[:, 0] - torch.min(q[0], q[1])).mean()
    if weight:
        expected = expected - weight * d.log_prob(tensors.actions).mean()
    torch.testing.assert_close(losses_of(algorithm, batch).parts["actor"], expected)


def test_actor_climbs_q(build, batch):
    algorithm = build("cql", warm_start_steps=0, actor_lr=1e-2, critic_lr=1e-12)
    with torch.no_grad():  # Q = large, rising with the first action entry, whatever the image
        for head in algorithm.critic.heads:
            for parameter in head.parameters():
                parameter.zero_()
            head.from_action.weight[0, 0] = 1.0
            head.from_code.bias[0] = 2.0
            chain = [m for m in head.rest.modules() if isinstance(m, torch.nn.Linear)]
            for layer in chain:
                layer.weight[0, 0] = 3.0
    for _ in range(60):
        algorithm.update(batch)
    mode = algorithm.actor(torch.from_numpy(batch.images)).mode
    assert mode[:, 0].min() > 0.7


def test_temperature_rises_when_the_policy_is_too_sure_and_falls_when_not(build, batch):
    for log_std, sign in ((-4.0, 1.0), (0.0, -1.0)):
        algorithm = build("cql")
        torch.nn.init.constant_(algorithm.actor.head[-1].bias[2:], log_std)
        algorithm.update(batch)
        assert algorithm.temperature.log.item() * sign > 0


def test_target_network_starts_equal_and_moves_by_its_rate(build, batch):
    algorithm = build("cql", target_rate=0.25, critic_lr=1e-2)
    start = [p.detach().clone() for p in algorithm.critic.parameters()]
    assert all(map(torch.equal, start, algorithm.target_critic.parameters()))
    algorithm.update(batch)
    for old, now, target in zip(
        start, algorithm.critic.parameters(), algorithm.target_critic.parameters()
    ):
        torch.testing.assert_close(target, (old + 0.25 * (now - old)).detach())


def test_losses_are_computed_before_anything_steps(build, batch):
    """One update equals backward passes at the old weights of all losses, each alone."""
    reference, algorithm = build("cql", warm_start_steps=0), build("cql", warm_start_steps=0)
    for loss in losses_of(reference, batch).parts.values():
        loss.backward(retain_graph=True)
    reference.optimizer.step()
    torch.manual_seed(3)
    algorithm.update(batch)
    for name in ("actor", "critic", "temperature"):
        for a, b in zip(
            getattr(algorithm, name).parameters(), getattr(reference, name).parameters()
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_bf16_reaches_every_weight_and_stays_close_to_fp32(build, batch):
    """Autocast caches cast weights; one cast under no_grad and used again would cut gradients."""
    metrics, grads = [], []
    for bf16 in (False, True):
        algorithm = build("cql", bf16=bf16, warm_start_steps=0, actor_bc_weight=0.2)
        losses = losses_of(algorithm, batch)
        assert all(loss.dtype == torch.float32 for loss in losses.parts.values())
        losses.total.backward()
        metrics.append({k: float(v) for k, v in losses.metrics.items()})
        trained = [(k, p) for k, p in algorithm.named_parameters() if p.requires_grad]
        grads.append({key: parameter.grad for key, parameter in trained})
    assert metrics[1] == pytest.approx(metrics[0], rel=0.05, abs=0.02)
    for key, exact in grads[0].items():
        rough = grads[1][key]
        assert rough is not None, key
        likeness = torch.nn.functional.cosine_similarity(exact.flatten(), rough.flatten(), dim=0)
        assert likeness > 0.8, key


def test_probe_metrics_by_hand(build, batch):
    algorithm = build("cql", actor_average=1.0)
    for _ in range(3):
        algorithm.update(batch)
    torch.manual_seed(5)
    probe = algorithm.probe(batch)
    images = torch.from_numpy(batch.images)
    with torch.no_grad():
        code = algorithm.critic.encode(images)
        data_q = algorithm.critic.q(code, torch.from_numpy(batch.actions)[:, None]).squeeze(-1)
        mode_q = algorithm.critic.q(code, algorithm.actor(images).mode[:, None]).squeeze(-1)
    assert probe["data_q"] == pytest.approx(float(data_q[0].mean()), abs=1e-5)
    assert probe["data_q_min"] == pytest.approx(float(data_q.min(0).values.mean()), abs=1e-5)
    assert probe["mode_q"] == pytest.approx(float(mode_q[0].mean()), abs=1e-5)


def test_probe_reports_the_unmultiplied_terms(build, batch):
    """TD error pure, regulariser without its weight: comparable between runs."""
    values = []
    for weight in (0.0, 50.0):
        algorithm = build("cql", cql_weight=weight)
        torch.manual_seed(5)
        values.append(algorithm.probe(batch))
    assert values[0] == values[1] and np.isfinite(values[0]["cql_term"])
