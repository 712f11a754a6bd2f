"""The training step's benchmark runs, and compares and counts what it says."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCH = Path(__file__).resolve().parent.parent / "bench"
# As many parameters as ours have: a convolution stands for everything but the linear layers.
STAND_IN = {
    "__init__.py": "",
    "dataset.py": """
class Episode:
    def __init__(self, observations, actions, rewards, terminated):
        count, *image = observations.shape
        assert count in (5, 7) and image == [3, 40, 40] and observations.dtype == "uint8"
        assert actions.shape == (count, 8) and rewards.shape == (count, 1) and terminated is True


class Buffer:
    def sample_transition_batch(self, size):
        assert size in (5, 7)
        return "batch"


def create_infinite_replay_buffer(episodes):
    assert len(episodes) == 1
    return Buffer()
""",
    "preprocessing.py": "class PixelObservationScaler: pass",
    "models/__init__.py": "",
    "models/encoders.py": """
class PixelEncoderFactory:
    def __init__(self, filters, feature_size):
        assert filters == [[16, 3, 1], [16, 3, 2], [16, 3, 2]]
        self.size = feature_size
""",
    "algos.py": """
from types import SimpleNamespace

import torch
from torch import nn


def narrow():
    return [nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)]


def nature():
    return [nn.Conv2d(3, 32, 8), nn.Conv2d(32, 64, 4), nn.Conv2d(64, 64, 3)]


class CQLConfig:
    def __init__(self, batch_size, n_action_samples, critic_encoder_factory=None, **more):
        if critic_encoder_factory is None:
            assert (batch_size, n_action_samples) == (7, 3)
            self.size, self.flat, self.trunk = 512, 64, nature
        else:
            assert (batch_size, n_action_samples) == (5, 4)
            self.size, self.flat, self.trunk = critic_encoder_factory.size, 16 * 64, narrow

    def create(self, device):
        return self

    def build_with_dataset(self, buffer):
        trunk, size = self.trunk, self.size
        policy = nn.ModuleList(trunk() + [nn.Linear(self.flat, size), nn.Linear(size, 16)])
        q = [trunk() + [nn.Linear(self.flat + 8, size), nn.Linear(size, 1)] for _ in "12"]
        q = nn.ModuleList(q[0] + q[1])
        self.impl = SimpleNamespace(modules=SimpleNamespace(policy=policy, q_funcs=q))

    def update(self, batch):
        assert batch == "batch" and torch.get_num_threads() == 1
        print("noise on stdout")
""",
}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("train_step"), importlib.import_module("reference_style")


def median(values):
    return float(np.median(values))


@pytest.mark.slow
@pytest.mark.timeout(600)  # twelve processes, most of which import torch, on whatever machine
def test_a_short_run_beside_a_stand_in(tmp_path):
    for name, text in STAND_IN.items():
        path = tmp_path / "peers" / "d3rlpy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = "--batch-size 6 --d3rlpy-batch-size 5 --image-size 40 --hidden 12 8 --repeats 2"
    words += " --default-batch-size 7 --default-samples 3 --feature-size 10 --clock cpu"
    words += " --seconds 0.01 --threads 1 --json r.json --peers-python "
    done = subprocess.run(
        [sys.executable, str(BENCH / "train_step.py")] + (words + sys.executable).split(),
        cwd=str(tmp_path), env=dict(os.environ, PYTHONPATH=str(tmp_path / "peers")),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    turns, medians, used = result["turns"], result["medians"], result["precision"]
    measured = ("ours_fp32", "small_fp32", "default_fp32", "reference", "d3rlpy", "d3rlpy_default")
    for side in measured:
        assert medians[side]["step_s"] == median([turn["step_s"] for turn in turns[side]])
        assert len(turns[side]) == 2 and medians[side]["step_s"] > 0
    step, small, default = (medians[f"{name}_{used}"] for name in ("ours", "small", "default"))
    step = step["step_s"]
    assert result["vs_reference"] == medians["reference"]["step_s"] / step
    assert result["vs_d3rlpy"] == medians["d3rlpy"]["step_s"] / small["step_s"]
    peer = medians["d3rlpy_default"]
    assert result["vs_d3rlpy_default"] == peer["step_s"] / default["step_s"]
    assert medians["d3rlpy"]["parameters"] == small["parameters"]
    assert peer["parameters"] == default["parameters"]
    fp32 = result["needed_gflop"] / medians["ours_fp32"]["step_s"] / medians["matmul"]["fp32"]
    assert result["of_ceiling_fp32"] == pytest.approx(fp32)
    assert len(set(result["allocator"].values())) == 1  # no side has an advantage
    assert set(measured) < set(result["allocator"])
    rate = result["needed_gflop"] / step
    assert result["of_ceiling"] == pytest.approx(rate / medians["matmul"][used])
    assert "x the reference style, " in done.stdout and "x d3rlpy" in done.stdout
    if not torch.cuda.is_available():
        assert "not measured: no CUDA device" in done.stdout and medians["cuda"] is None


@pytest.fixture
def medians():
    step = {"parameters": 7.0}
    return {
        "ours_fp32": {"step_s": 0.5, **step}, "ours_bf16": None,
        "reference": {"step_s": 20.0, **step}, "d3rlpy": None, "cuda": None,
        "small_fp32": {"step_s": 0.1, "parameters": 5.0}, "small_bf16": None,
        "d3rlpy_default": {"step_s": 9.0, "parameters": 3.0},
        "default_fp32": {"step_s": 0.3, "parameters": 3.0}, "default_bf16": None,
        "matmul": {"fp32": 200.0, "bf16": 300.0},
    }  # fmt: skip


def test_what_is_missing_has_no_ratio_and_is_said(bench, medians):
    module, _ = bench
    ratios = module.ratios(medians, 25e9)
    assert ratios["bf16"] is None
    assert ratios["fp32"] == {
        "vs_reference": 40.0, "vs_d3rlpy": None, "of_ceiling": 0.25,
        "vs_d3rlpy_default": pytest.approx(30.0),
    }  # fmt: skip
    missing = ("ours_bf16", "small_bf16", "default_bf16", "cuda")
    errors = dict.fromkeys(missing, "no such arithmetic")
    text = module.report({
        "medians": medians, "errors": {"d3rlpy": "not here", **errors}, "needed_gflop": 25.0,
        "by_precision": ratios, "allocator": {"ours_fp32": "kept", "reference": "the system's"},
    })  # fmt: skip
    assert "d3rlpy         not here" in text and text.count("no such arithmetic") == 4
    assert (
        "fp32: 40.0x the reference style, d3rlpy not measured, 30.0x d3rlpy as it comes, "
        "25 % of the ceiling" in text
    )
    assert "allocator, kept: ours_fp32\nallocator, the system's: reference" in text


@pytest.mark.parametrize(
    ("side", "against"),
    [("reference", "ours"), ("d3rlpy", "small"), ("d3rlpy_default", "default")],
)
def test_other_networks_are_refused(bench, medians, side, against):
    module, _ = bench
    medians["d3rlpy"] = {"step_s": 1.0, "parameters": 5.0}
    module.require_same_networks(medians)
    medians[side]["parameters"] += 1
    with pytest.raises(SystemExit, match=against):
        module.require_same_networks(medians)


def test_needed_flops_by_hand(bench):
    """Batch 1, one action of each kind, 4x4 pixels, two hidden units each."""
    module, _ = bench
    trunk1, trunk2 = 27 * 16 * 16, 9 * 16 * 16 * (4 + 1)
    encode, policy = trunk1 + trunk2 + 16 * 2, trunk1 + trunk2 + 16 * 2 + 2 * 2 + 2 * 16
    join, head = 8 * 2, 2 * 2 + 2
    forward = 2 * policy + 4 * encode + 2 * (4 + 1 + 1) * (join + head)
    weights = policy + 2 * encode + 2 * 4 * (join + head)
    inputs = policy - trunk1 + 2 * (encode - trunk1) + 2 * 4 * head + 2 * (join + head)
    assert module.needed_flops(1, 1, 4, [2, 2]) == 2 * (forward + weights + inputs)
    assert module.needed_flops(256, 4, 48, [1024, 512, 256]) == pytest.approx(59.3e9, rel=0.01)


def linear_layers(modules):
    return [module for module in modules if hasattr(module, "weight")]


def test_the_reference_style_is_the_same_algorithm(bench, monkeypatch):
    """Its losses are those of the library from the same weights, without crops and sampling."""
    from ofrl_robot.algos.build import Build, make_algorithm
    from ofrl_robot.algos.configs.cql import CQLConfig
    from ofrl_robot.nets.config import NetConfig
    from ofrl_robot.specs import WIDOWX_ACTION

    module, style_module = bench
    monkeypatch.setattr(style_module, "crop", lambda images: images - 0.5)  # as ours are
    monkeypatch.setattr(torch, "randn", lambda *size, **_: torch.zeros(*size))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, 0.3))
    torch.manual_seed(0)
    style = style_module.ReferenceStyle(16, 8, (12, 8), 2)
    style.alpha_optimizer.param_groups[0]["lr"] = 0.0  # it steps before alpha is used
    nets = NetConfig(encoder="cog", latent=0, hidden=(12, 8), critic_encoders="separate")
    config = CQLConfig(
        warm_start_steps=0, shift=0, cql_samples=(2, 2, 2), clip_targets=False, initial_alpha=1.0
    )
    build = Build(nets, {"image": (16, 16, 3)}, WIDOWX_ACTION, torch.device("cpu"))
    ours = make_algorithm(config, build)
    heads = ours.critic.heads
    with torch.no_grad():
        networks = [style.policy, *style.critics]
        for network, encoder in zip(networks, [ours.actor.encoder, *ours.critic.encoders]):
            for mine, theirs in zip(network.convolutions.parameters(), encoder.parameters()):
                theirs.copy_(mine)
        for mine, theirs in zip(linear_layers(style.policy.head), linear_layers(ours.actor.head)):
            theirs.load_state_dict(mine.state_dict())
        for number, network in enumerate(style.critics):
            first, *rest = linear_layers(network.head)
            inputs = heads.code_layer.weight.shape[1]
            heads.code_layer.weight[number] = first.weight.T[:inputs]
            heads.code_layer.bias[number] = first.bias
            heads.action_layer.weight[number] = first.weight.T[inputs:]
            for mine, theirs in zip(rest, linear_layers(heads.output)):
                theirs.weight[number] = mine.weight.T
                theirs.bias[number] = mine.bias
        for target, critic in zip(style.targets, style.critics):
            target.load_state_dict(critic.state_dict())
        ours.target_critic.load_state_dict(ours.critic.state_dict())
    sides = importlib.import_module("step_sides")
    columns = sides.random_batch(6, 16)
    losses = ours.losses(ours.load(sides.our_batch(columns, config.discount)))
    first, second, policy_loss, alpha_loss = style.update(**columns)
    # ours is the log of a mean over the 3N samples, theirs of their sum
    critics = first + second - 2 * np.log(6)
    assert losses.parts["critic"].item() == pytest.approx(critics, rel=1e-5)
    assert losses.parts["actor"].item() == pytest.approx(policy_loss, rel=1e-5)
    assert losses.parts["temperature"].item() == pytest.approx(alpha_loss, abs=1e-6)
