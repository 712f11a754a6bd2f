"""The sampler's benchmark runs: without the others, and beside stand-ins for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "sampler.py"
PEERS = ("robomimic", "robomimic_cached", "d3rlpy")
BROKEN = "raise ImportError('not here')"
STAND_IN = """
class Episode:
    def __init__(self, observations, actions, rewards, terminated):
        assert observations.shape == (3, 3, 8, 8) and observations.dtype == "uint8"
        assert actions.shape == (3, 8) and rewards.shape == (3, 1) and terminated is True


class Buffer:
    def sample_transition_batch(self, size):
        assert size == 4
        print("noise on stdout")


def create_infinite_replay_buffer(episodes):
    assert len(episodes) == 2
    return Buffer()
"""


@pytest.fixture
def bench(tmp_path):
    """Function (files of stand-ins) -> (stdout, report) of a very short run."""

    def run(files):
        for name, text in files.items():
            path = tmp_path / "peers" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        words = "--episodes 2 --steps 3 --image-size 8 --batch-size 4 --repeats 2 --seconds 0.02"
        words += f" --bound-mb 1 --json r.json --peers-python {sys.executable}"
        done = subprocess.run(
            [sys.executable, str(SCRIPT)] + words.split(), cwd=str(tmp_path),
            env=dict(os.environ, PYTHONPATH=str(tmp_path / "peers")),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads((tmp_path / "r.json").read_text())["datasets"][0]

    return run


@pytest.mark.slow
def test_without_the_others_only_ours_is_measured(bench):
    # stand-ins that cannot be imported: the real ones may be installed here
    text, result = bench({"robomimic.py": BROKEN, "d3rlpy.py": BROKEN})
    assert text.count("ImportError: not here") == 3
    for side in PEERS:
        assert result[side] is None and result[f"mapped_vs_{side}"] is None
    for side in ("mapped", "read", "gather"):
        assert result[side]["batches_per_s"] > 0 and result[side]["memory_mib"] >= 0
    assert result["mapped_vs_gather"] > 0


@pytest.mark.slow
def test_beside_another_the_ratios_are_those_of_the_medians(bench):
    _, result = bench(
        {"robomimic.py": BROKEN, "d3rlpy/__init__.py": "", "d3rlpy/dataset.py": STAND_IN}
    )
    assert list(result["errors"]) == ["robomimic", "robomimic_cached"]
    for side in ("mapped", "read"):
        ratio = result[side]["batches_per_s"] / result["d3rlpy"]["batches_per_s"]
        assert result[f"{side}_vs_d3rlpy"] == ratio
