"""Steps on resident data, recorded or not, are the algorithm's own to the bit (on the CPU)."""

from __future__ import annotations

import contextlib

import pytest
import torch

from ofrl_robot.algos.bc import BC
from ofrl_robot.algos.build import Build, make_algorithm
from ofrl_robot.algos.configs.bc import BCConfig
from ofrl_robot.algos.configs.brac import BRACConfig
from ofrl_robot.algos.configs.cql import CQLConfig
from ofrl_robot.data.replay.sampler import MixedSampler
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.training.graph import WARM_UP, CudaGraphs, GraphedUpdate
from ofrl_robot.training.resident import ResidentData
from ofrl_robot.training.staging import StreamedData
from tests.training.small_buffer import ACTION, DISCOUNT, SHAPES

CPU = torch.device("cpu")
WARM_START = 6
HYPER = {
    "bc": BCConfig(),
    "cql": CQLConfig(discount=DISCOUNT, warm_start_steps=WARM_START),
    "brac": BRACConfig(discount=DISCOUNT, warm_start_steps=WARM_START),
    "dual": BRACConfig(
        discount=DISCOUNT, warm_start_steps=WARM_START, divergence_form="dual",
        discriminator_steps=1,
    ),
}  # fmt: skip


def sampler(buffer):
    return MixedSampler(buffer, 8, seed=3)


def algorithm(name):
    torch.manual_seed(0)
    nets = NetConfig(latent=8, hidden=(16,))
    return make_algorithm(HYPER[name], Build(nets, SHAPES, ACTION, CPU))


class Recorder:
    """Stands for a CUDA graph: recording runs nothing, a replay runs what was recorded."""

    def __init__(self):
        self.recorded_at, self.replays = [], 0

    def __call__(self, step):
        metrics = {}
        self.recorded_at.append(self.algorithm.step)
        self.algorithm.step += 1  # as the Python of a step does while it is recorded

        def replay():
            self.replays += 1
            metrics.update(step())

        return replay, metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", list(HYPER))
@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("kind", [ResidentData, StreamedData])
def test_steps_are_those_of_update_to_the_bit(buffer, name, recording, kind):
    steps = 14
    plain, source = algorithm(name), sampler(buffer)
    torch.manual_seed(1)
    expected = [plain.update(source.sample()) for _ in range(steps)]

    graphed, source, recorder = algorithm(name), sampler(buffer), Recorder()
    recorder.algorithm = graphed
    data = kind(buffer, CPU)
    update = GraphedUpdate(graphed, data, recorder if recording else None)
    torch.manual_seed(1)
    for number, metrics in enumerate(expected):
        got = update(source.draw())
        assert graphed.step == number + 1
        assert {k: float(v) for k, v in got.items()} == {k: float(v) for k, v in metrics.items()}
    for key, value in plain.state_dict().items():
        assert torch.equal(graphed.state_dict()[key], value), key
    if recording:
        phases = [0] if name == "bc" else [0, WARM_START]
        assert recorder.recorded_at == [start + WARM_UP for start in phases]
        assert recorder.replays == steps - WARM_UP * len(phases)


def test_a_step_that_cannot_be_recorded_is_said_and_runs_on(buffer):
    def refuse(step):
        step_before = graphed.step
        graphed.step += 1
        raise RuntimeError(f"CUDA error: not permitted\nlong story {step_before}")

    plain, graphed = algorithm("cql"), algorithm("cql")
    data = ResidentData(buffer, CPU)
    update = GraphedUpdate(graphed, data, refuse)
    torch.manual_seed(1)
    source = sampler(buffer)
    for _ in range(WARM_UP):
        update(source.draw())
    with pytest.warns(UserWarning, match=r"graph \(CUDA error: not permitted\); it runs kernel"):
        update(source.draw())
    update(source.draw())
    torch.manual_seed(1)
    source = sampler(buffer)
    for _ in range(WARM_UP + 2):
        plain.update(source.sample())
    assert graphed.step == WARM_UP + 2
    for key, value in plain.state_dict().items():
        assert torch.equal(graphed.state_dict()[key], value), key


class Alternating(BC):
    """An algorithm with two kinds of steps in turn, as one with a delayed policy has."""

    @property
    def phase(self):
        return "even" if self.step % 2 == 0 else "odd"

    def losses(self, batch):
        losses = super().losses(batch)
        if self.step % 2:
            losses.parts["again"] = 0.5 * losses.parts["actor"]
        return losses


class Recording(Recorder):
    """A recorder whose replays run the step of the phase in which it was recorded."""

    def __call__(self, step):
        phase = self.algorithm.phase
        replay, metrics = super().__call__(step)

        def checked():
            assert self.algorithm.phase == phase, "the graph of another phase"
            replay()

        return checked, metrics


def test_phases_that_alternate_have_a_graph_each_and_keep_it(buffer):
    def alternating():
        torch.manual_seed(0)
        nets = NetConfig(latent=8, hidden=(16,))
        return Alternating(BCConfig(), Build(nets, SHAPES, ACTION, CPU))

    steps = 2 * WARM_UP + 6
    plain, source = alternating(), sampler(buffer)
    torch.manual_seed(1)
    for _ in range(steps):
        plain.update(source.sample())
    graphed, source, recorder = alternating(), sampler(buffer), Recording()
    recorder.algorithm = graphed
    update = GraphedUpdate(graphed, ResidentData(buffer, CPU), recorder)
    torch.manual_seed(1)
    for _ in range(steps):
        update(source.draw())
    assert recorder.recorded_at == [2 * WARM_UP, 2 * WARM_UP + 1] and recorder.replays == 6
    for key, value in plain.state_dict().items():
        assert torch.equal(graphed.state_dict()[key], value), key


@pytest.mark.parametrize("name", list(HYPER))
def test_optimisers_are_capturable_while_they_are_recorded_only(buffer, name):
    """Torch refuses to record others, and warns of such at steps that are not recorded."""
    made = algorithm(name)
    groups = [g for each in made.optimizers.values() for g in each.param_groups]
    seen = []

    def capture(step):
        seen.append([group["capturable"] for group in groups])
        return step, {}

    update = GraphedUpdate(made, ResidentData(buffer, CPU), capture)
    source = sampler(buffer)
    for _ in range(WARM_UP + 1):
        update(source.draw())
        assert not any(group["capturable"] for group in groups)
    assert seen == [[True] * len(groups)] and all(group["fused"] for group in groups)


def test_the_graphs_of_a_run_share_their_memory(monkeypatch):
    used = []

    @contextlib.contextmanager
    def graph(made, pool):
        used.append(pool)
        yield

    class Graph:
        def replay(self):
            used.append("replay")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: object())
    capture = CudaGraphs()
    replay, metrics = capture(lambda: {"loss": 1})
    capture(lambda: {})
    replay()
    assert metrics == {"loss": 1} and used[0] is used[1] and used[2] == "replay"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", list(HYPER))
def test_on_a_card_the_graph_is_what_its_steps_are(buffer, name):
    device = torch.device("cuda")
    data = ResidentData(buffer, device)
    results = []
    for graph in (False, True):
        torch.manual_seed(0)
        nets = NetConfig(latent=8, hidden=(16,))
        made = make_algorithm(HYPER[name], Build(nets, SHAPES, ACTION, device))
        update = GraphedUpdate(made, data)
        if not graph:
            update._capture = None
        source = sampler(buffer)
        for _ in range(14):
            metrics = update(source.draw())
        assert made.step == 14 and bool(update._recorded) == graph
        results.append({**made.state_dict(), **metrics})
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-5, msg=key)
