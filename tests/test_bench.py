"""The benchmark runs: alone, and beside a stand-in for roboverse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "sim.py"
STAND_IN = """
import numpy as np

print("noise on stdout")


class Env:
    def __init__(self, observation_img_dim, task):
        assert observation_img_dim == 48 and task == "any"

    def reset(self):
        print("noise at reset")
        np.random.rand(1000)

    def step(self, action):
        assert action.shape == (8,) and not action[6:].any()


ENVIRONMENT_SPECS = [
    {"id": name, "entry_point": "roboverse.envs.registration:Env", "kwargs": {"task": "any"}}
    for name in ("Widow250SingleObjGrasp-v0", "Widow250PickTray-v0")
]
"""


@pytest.fixture
def bench(tmp_path):
    """Function (PYTHONPATH) -> (stdout, report) of a very short run."""

    def run(path):
        words = [sys.executable, str(SCRIPT), "--steps", "2", "--repeats", "1", "--json", "r.json"]
        done = subprocess.run(
            words, cwd=str(tmp_path), env=dict(os.environ, PYTHONPATH=str(path)),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads((tmp_path / "r.json").read_text())

    return run


@pytest.mark.slow
def test_without_roboverse_only_ours_is_measured(bench, tmp_path):
    # a stand-in that cannot be imported: the real one may be installed here
    (tmp_path / "roboverse.py").write_text("raise ImportError('not here')")
    text, report = bench(tmp_path)
    assert "roboverse was not measured: ImportError: not here" in text
    assert len(report["tasks"]) == 3
    for result in report["tasks"].values():
        assert result["ofrl_robot"]["steps_per_s"] > 0 and result["ofrl_robot"]["reset_ms"] > 0
        assert "roboverse" not in result


@pytest.mark.slow
def test_beside_roboverse_the_ratios_are_those_of_the_medians(bench, tmp_path):
    package = tmp_path / "roboverse" / "envs"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "registration.py").write_text(STAND_IN)
    text, report = bench(tmp_path)
    tasks = report["tasks"]
    missing = tasks.pop("Widow250DoubleDrawerOpenGraspNeutral-v0")
    assert "roboverse" not in missing and "roboverse was not measured" in text
    assert len(tasks) == 2
    for result in tasks.values():
        ours, real = result["ofrl_robot"], result["roboverse"]
        assert result["times_the_steps_per_s"] == ours["steps_per_s"] / real["steps_per_s"]
        assert result["times_faster_reset"] == real["reset_ms"] / ours["reset_ms"]
