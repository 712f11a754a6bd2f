"""The comparison with d3rlpy's CQL: its problem, its test, and tiny runs without and beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ofrl_robot.algos.build import Build, make_algorithm
from ofrl_robot.algos.configs.cql import CQLConfig
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.specs import STATE, ActionSpec

BENCH = Path(__file__).resolve().parent.parent / "bench"
BROKEN = {"d3rlpy.py": "raise ImportError('not here')"}
STAND_IN = {
    "d3rlpy/__init__.py": "def seed(number):\n    assert number in (0, 1)",
    "d3rlpy/models/__init__.py": "",
    "d3rlpy/models/encoders.py": "def VectorEncoderFactory(hidden_units):\n    return hidden_units",
    "d3rlpy/dataset.py": "from types import SimpleNamespace as TransitionMiniBatch",
    "d3rlpy/algos.py": """
import numpy as np

print("noise on stdout")


class CQLConfig:
    def __init__(self, **settings):
        assert settings["n_action_samples"] == 2 and settings["critic_encoder_factory"] == [8, 8]

    def create(self, device):
        assert device == "cpu:0"
        return self

    def create_impl(self, shape, size):
        assert shape == (8,) and size == 2

    def update(self, batch):
        assert batch.observations.shape == batch.next_observations.shape == (4, 8)
        assert batch.actions.shape == (4, 2) and batch.rewards.shape == (4, 1)

    def predict(self, observations):
        velocity, goal = 0.2 * observations[:, 2:4], observations[:, 4:6]
        return 2.0 * goal - 4.0 * velocity

    def predict_value(self, observations, actions):
        return np.full(len(observations), 0.25)
""",
}


@pytest.fixture
def agreement(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    import agreement

    return agreement


@pytest.fixture
def bench(tmp_path):
    """Function (files of a stand-in for d3rlpy, words) -> (stdout, report) of a very short run."""

    def run(files, more=""):
        for name, text in files.items():
            path = tmp_path / "peers" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        words = "--episodes 3 --seeds 2 --steps 2 --batch-size 4 --samples 2 --hidden 8 8"
        words += f" --trials 5 --json r.json --peers-python {sys.executable} {more}"
        done = subprocess.run(
            [sys.executable, str(BENCH / "agreement.py")] + words.split(), cwd=str(tmp_path),
            env=dict(os.environ, PYTHONPATH=str(tmp_path / "peers")),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads((tmp_path / "r.json").read_text())

    return run


def to_goal(observations):
    return 2.0 * observations[:, 4:6] - 4.0 * 0.2 * observations[:, 2:4]


def test_who_heads_for_the_goal_gets_there_and_who_stands_still_does_not(agreement):
    assert agreement.evaluate(to_goal, 20)[0] == 20
    assert agreement.evaluate(lambda o: np.zeros((len(o), 2)), 20) == (0, 0.0)


def test_passing_the_goal_at_speed_is_not_reaching_it(agreement):
    points = agreement.Points([0])
    points.goal = points.position.copy()
    points.velocity = np.full((1, 2), 0.09)
    assert not points.advance(np.zeros((1, 2)))[0]
    points.position, points.velocity = points.goal, np.zeros((1, 2))
    assert points.advance(np.zeros((1, 2)))[0]


def test_the_wall_stops_a_point(agreement):
    points = agreement.Points([0])
    for _ in range(40):
        points.advance(np.array([[1.0, 0.0]]))
    assert points.position[0, 0] == 1.0 and points.velocity[0, 0] == 0.0


def test_an_episode_ends_at_the_goal_or_after_its_steps(agreement):
    steps, data = agreement.collect(20)
    assert 0 < (steps > 0).sum() < 20
    assert data.reached.sum() == (steps > 0).sum()
    assert len(data.reached) == np.where(steps > 0, steps, agreement.EPISODE_STEPS).sum()
    # what is next in one row is the observation of a later row, or an end
    later = {row.tobytes() for row in data.observations}
    assert sum(row.tobytes() not in later for row in data.next_observations) == 20
    again = agreement.collect(20)[1]
    assert all((a == b).all() for a, b in zip(data, again))


def test_the_permutation_test_counts_divisions(agreement):
    assert agreement.permutation_p([1, 2], [8, 9]) == pytest.approx(2 / 6)
    assert agreement.permutation_p([1, 2, 3, 4, 5], [11, 12, 13, 14, 15]) == pytest.approx(2 / 252)
    assert agreement.permutation_p([3, 3], [3, 3]) == 1.0


@pytest.mark.slow
def test_without_d3rlpy_only_ours_is_measured(bench):
    # a stand-in that cannot be imported: the real one may be installed here
    text, result = bench(BROKEN)
    assert "d3rlpy was not measured: ImportError: not here" in text
    assert set(result["runs"]) == {"ours plain", "ours max", "ours bc", "ours shipped"}
    assert result["tests"] == {}
    assert all(len(runs) == 2 for runs in result["runs"].values())
    first, second = result["runs"]["ours plain"]
    assert np.isfinite(first["data_q"]) and first["data_q"] != second["data_q"]


@pytest.mark.slow
def test_beside_d3rlpy_the_runs_are_compared(bench):
    text, result = bench(STAND_IN, "--first-weights torch")
    assert [run["successes"] for run in result["runs"]["d3rlpy plain"]] == [5, 5]
    assert "10/10 = 100 %" in text
    ours = [run["successes"] for run in result["runs"]["ours plain"]]
    assert "plain: intervals do not overlap" in text and max(ours) < 5
    assert set(result["tests"]) == {"plain", "max"}
    assert result["tests"]["plain"]["successes"] == pytest.approx(2 / 6)


@pytest.mark.slow
def test_first_weights_of_torch_are_larger_and_the_target_takes_them(agreement):
    spec = ActionSpec(("x", "y"), ("1", "1"), (1.0, 1.0), "world")
    nets = NetConfig(hidden=(16, 16))
    algorithm = make_algorithm(
        CQLConfig(shift=0), Build(nets, {STATE: (8,)}, spec, torch.device("cpu"))
    )
    heads = algorithm.critic.heads
    last = [algorithm.actor.head[-1].weight, heads.output[-1].weight]
    assert all(weight.abs().max() < 0.004 for weight in last)
    agreement.start_as_torch(algorithm)
    assert all(0.1 < weight.abs().max() <= 0.25 for weight in last)  # 1 / sqrt(16)
    first = heads.code_layer.weight[0], heads.action_layer.weight[0]
    assert all(weight.abs().max() <= 10**-0.5 for weight in first)
    pairs = zip(algorithm.critic.parameters(), algorithm.target_critic.parameters())
    assert all(torch.equal(one, other) for one, other in pairs)
