"""The benchmark of the time to success runs with a tiny budget, stops, and goes on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ofrl_robot.cli import main

BENCH = Path(__file__).resolve().parent.parent / "bench"
TASK = "Widow250SingleObjGrasp-v0"
# d3rlpy's interface; it counts its updates, and its state holds the count
STAND_IN = {
    "__init__.py": "",
    "dataset.py": """
class Episode:
    def __init__(self, observations, actions, rewards, terminated):
        assert observations.shape == (25, 3, 16, 16) and observations.dtype == "uint8"
        assert actions.shape == (25, 8) and rewards.shape == (25, 1) and terminated is False


class Buffer:
    def sample_transition_batch(self, size):
        assert size == 256
        return "batch"


def create_infinite_replay_buffer(episodes):
    assert len(episodes) == 2
    return Buffer()
""",
    "preprocessing.py": "class PixelObservationScaler: pass",
    "algos.py": """
import numpy as np


class CQLConfig:
    batch_size = 256

    def __init__(self, observation_scaler):
        self.updates = 0

    def create(self, device):
        return self

    def build_with_dataset(self, buffer):
        pass

    def update(self, batch):
        assert batch == "batch"
        self.updates += 1
        print("update", self.updates, file=open("updates.txt", "a"))

    def predict(self, observations):
        assert observations.shape == (1, 3, 16, 16)
        return np.zeros((1, 8))

    def save_model(self, path):
        open(path, "w").write(str(self.updates))

    def load_model(self, path):
        self.updates = int(open(path).read())
""",
}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("time_to_success")


def run(folder, *more, every=2):
    words = ["data", "--work", "work", "--trials", 1, "--goal", 1, "--every", every, "--json", "r"]
    words += ["--peers-python", sys.executable, *more, "--train", "--batch-size", 4]
    words += ["--latent", 4, "--hidden", 8, "--probe-size", 4]
    done = subprocess.run(
        [sys.executable, str(BENCH / "time_to_success.py"), *map(str, words)], cwd=str(folder),
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder / "peers"), *sys.path])),
        capture_output=True, text=True,
    )  # fmt: skip
    result = json.loads((folder / "r").read_text()) if done.returncode == 0 else {}
    return done, result.get("sides")


@pytest.mark.slow
@pytest.mark.timeout(600)  # nine processes that import torch, on whatever machine
def test_a_tiny_budget_is_spent_and_a_larger_one_goes_on(tmp_path):
    for name, text in STAND_IN.items():
        path = tmp_path / "peers" / "d3rlpy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "peers" / "robomimic.py").write_text("raise ImportError('not here')")
    collect = ["collect", "--task", TASK, "--episodes", "2", "--image-size", "16"]
    assert main([*collect, "--out", str(tmp_path / "data")]) == 0
    done, first = run(tmp_path, "--budget", 1e-9)
    assert done.returncode == 0, done.stderr
    assert "robomimic  not measured: ImportError: not here" in done.stdout
    for side in ("ours", "d3rlpy"):  # one evaluation, which two random policies do not pass
        (row,) = first[side]["rows"]
        assert row["step"] == 2 and row["successes"] == 0 and first[side]["cpu_s"] is None
        assert first[side]["spent_s"] == row["cpu_s"] > 0
    done, again = run(tmp_path, "--budget", 1e-9)
    assert again["ours"] == first["ours"] and again["d3rlpy"] == first["d3rlpy"]
    budget = first["ours"]["spent_s"] + 1e-9
    done, second = run(tmp_path, "--sides", "ours", "d3rlpy", "--budget", budget)
    assert [row["step"] for row in second["ours"]["rows"]] == [2, 4]
    steps = [row["step"] for row in second["d3rlpy"]["rows"]]
    updates = [f"update {number}" for number in range(1, steps[-1] + 1)]
    assert (tmp_path / "updates.txt").read_text().splitlines() == updates  # none is done twice
    done, _ = run(tmp_path, every=3)
    assert done.returncode == 1 and "made with every 2, not 3" in done.stderr


def test_the_first_evaluation_that_reaches_the_goal_counts(bench):
    rows = [bench.Row(10, 1.0, 3), bench.Row(20, 2.0, 46), bench.Row(30, 3.0, 50)]
    assert bench.reached(rows, 45) is rows[1] and bench.reached(rows[:1], 45) is None
    measured = {"cpu_s": 2.0, "step": 20, "spent_s": 3.0, "best": 50, "error": ""}
    text = bench.report(
        {
            "ours": measured,
            "d3rlpy": {**measured, "cpu_s": None, "best": 12},
            "robomimic": {**measured, "error": "not here"},
        },
        45, 50,
    )  # fmt: skip
    assert text.splitlines() == [
        "CPU time to 45/50:",
        "ours       2.0 s, step 20",
        "d3rlpy     not after 3.0 s (at most 12/50)",
        "robomimic  not measured: not here",
    ]


class Weights:
    """A contestant whose state is one number."""

    def __init__(self, number):
        self.number = number

    def save(self, folder):
        if self.number < 0:
            raise OSError("disk full")
        (folder / "number").write_text(str(self.number))


def test_state_and_rows_are_replaced_together(bench, tmp_path):
    folder = tmp_path / "ours"
    bench.save(folder, Weights(1), [bench.Row(1, 0.5, 0)])
    with pytest.raises(OSError, match="disk full"):
        bench.save(folder, Weights(-1), [bench.Row(1, 0.5, 0), bench.Row(2, 1.0, 0)])
    assert bench.read_rows(folder) == [bench.Row(1, 0.5, 0)]
    assert (folder / "state" / "number").read_text() == "1"
    folder.rename(tmp_path / "ours.old")  # as a kill between the two renames leaves it
    assert bench.read_rows(folder) == [bench.Row(1, 0.5, 0)]
