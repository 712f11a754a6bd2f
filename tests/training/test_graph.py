"""Steps on resident data, recorded or not, are the algorithm's own to the bit (on the CPU)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ofrl_robot.algos.build import Build, make_algorithm
from ofrl_robot.algos.configs.bc import BCConfig
from ofrl_robot.algos.configs.brac import BRACConfig
from ofrl_robot.algos.configs.cql import CQLConfig
from ofrl_robot.data.replay.array_file import ArrayFile
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.data.replay.sampler import MixedSampler
from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.specs import STATE, ActionSpec
from ofrl_robot.training import resident
from ofrl_robot.training.graph import WARM_UP, GraphedUpdate
from ofrl_robot.training.resident import ResidentData, fits, resident_bytes

CPU = torch.device("cpu")
SIZE, ACTION = 12, ActionSpec(("x", "gripper"), ("m", "1"), (0.1, 1.0), "base")
SHAPES = {"image": (SIZE, SIZE, 3), STATE: (3,)}
DISCOUNT, N = 0.9, 3
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


def make_store(path, lengths, seed, mapped):
    rng = np.random.default_rng(seed)
    count, frames = sum(lengths), sum(lengths) + len(lengths)
    images = rng.integers(0, 256, (frames, SIZE, SIZE, 3), np.uint8)
    path.write_bytes(images.tobytes())
    state = rng.normal(size=(frames, 3)).astype(np.float32)
    path.with_suffix(".state").write_bytes(state.tobytes())
    starts = np.concatenate([[0], np.cumsum(lengths)])
    terminals = np.zeros(count, bool)
    terminals[starts[1::2] - 1] = True  # every other episode; the others ran out of time
    return TransitionStore(
        observations={
            "image": ArrayFile(path, images.shape, mapped),
            STATE: ArrayFile(path.with_suffix(".state"), state.shape, mapped, np.float32),
        },
        actions=rng.uniform(-0.9, 0.9, (count, ACTION.size)).astype(np.float32),
        rewards=rng.random(count).astype(np.float32),
        terminals=terminals,
        starts=starts,
        first_frames=starts[:-1] + np.arange(len(lengths)),
        fingerprint="",
    )


@pytest.fixture(params=[True, False], ids=["mapped", "read"])
def buffer(request, tmp_path):
    stores = [
        make_store(tmp_path / "a", (5, 1, 7), 0, request.param),
        make_store(tmp_path / "b", (4, 6), 1, request.param),
    ]
    return ReplayBuffer(stores, [0.75, 0.25], N, DISCOUNT)


def sampler(buffer):
    return MixedSampler(buffer, 8, seed=3)


@pytest.mark.parametrize("block", [2, 6, 4096])
def test_batches_are_those_of_the_sampler(buffer, block, monkeypatch):
    monkeypatch.setattr(resident, "_BLOCK", block)
    data = ResidentData(buffer, CPU)
    draws = [np.arange(len(store))[::-1].copy() for store in buffer.stores]
    batch = data.batch(torch.from_numpy(data.number(draws)))
    expected = buffer.gather(draws).map(torch.from_numpy)
    for field in dataclasses.fields(Batch):
        got, wanted = getattr(batch, field.name), getattr(expected, field.name)
        if not isinstance(got, dict):
            got, wanted = {field.name: got}, {field.name: wanted}
        assert list(got) == list(wanted)
        for name in got:
            assert got[name].dtype == wanted[name].dtype and torch.equal(got[name], wanted[name])


def test_the_memory_is_what_is_said(buffer):
    data = ResidentData(buffer, CPU)
    tensors = [*data._observations.values(), *data._columns.values()]
    assert resident_bytes(buffer) == sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize(("free", "enough"), [(2, True), (1.9, False)])
def test_half_of_the_free_memory_may_be_taken(buffer, free, enough, monkeypatch):
    said = int(free * resident_bytes(buffer)), 10**12
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: said)
    assert fits(buffer, torch.device("cuda")) == enough


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
def test_steps_are_those_of_update_to_the_bit(buffer, name, recording):
    steps = 14
    plain, source = algorithm(name), sampler(buffer)
    torch.manual_seed(1)
    expected = [plain.update(source.sample()) for _ in range(steps)]

    graphed, source, recorder = algorithm(name), sampler(buffer), Recorder()
    recorder.algorithm = graphed
    data = ResidentData(buffer, CPU)
    update = GraphedUpdate(graphed, data, 8, recorder if recording else None)
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
    update = GraphedUpdate(graphed, data, 8, refuse)
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
        update = GraphedUpdate(made, data, 8)
        if not graph:
            update._capture = None
        source = sampler(buffer)
        for _ in range(14):
            metrics = update(source.draw())
        assert made.step == 14 and (update._replay is not None) == graph
        results.append({**made.state_dict(), **metrics})
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-5, msg=key)
