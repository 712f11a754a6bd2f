"""Every example runs as a newcomer would run it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run_example(name: str, *words: object, folder: Path) -> str:
    """Run ``examples/<name>`` in ``folder`` and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_custom_camera(tmp_path):
    lines = run_example("custom_camera.py", folder=tmp_path).splitlines()
    assert len(lines) == 3
    assert all("raw (480, 640, 3), observation (48, 48, 3)" in line for line in lines)
    assert len({line.split(",")[0] for line in lines}) > 1, "the bar moves"


@pytest.mark.slow
def test_custom_arm(tmp_path):
    text = run_example("custom_arm.py", "data", folder=tmp_path)
    dataset = open_dataset(tmp_path / "data")
    assert len(dataset.paths) == 2 and dataset.metas[0].robot == "point"
    assert text.count("arrange the scene for: move down") == 2
    episode = read_episode(dataset.paths[0])
    assert episode.state[:, 2].tolist() == pytest.approx([0.2 - 0.005 * k for k in range(6)])
    assert episode.meta.success == -1, "only a person can say whether it succeeded"


@pytest.mark.slow
def test_custom_teleop(tmp_path):
    run_example("custom_teleop.py", "data", folder=tmp_path)
    episode = read_episode(open_dataset(tmp_path / "data").paths[0])
    assert episode.held[3::4].all() and episode.held.sum() == len(episode) // 4
    assert episode.meta.environment["size"] == 0.3


@pytest.mark.slow
def test_custom_algorithm(make_dataset, tmp_path):
    run_example("custom_algorithm.py", make_dataset(episodes=30), "run", folder=tmp_path)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["algo"] == "rwr" and config["algo_config"]["beta"] == 0.5
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [100, 200]
    first, last = (float(row["data_log_prob"]) for row in rows)
    assert last > first, "it imitates the data"


@pytest.mark.slow
def test_train_and_deploy(tmp_path):
    text = run_example("train_and_deploy.py", "all", 4, 8, 2, folder=tmp_path)
    assert "verdict: " in text and "/2 = " in text
    assert len(open_dataset(tmp_path / "all" / "trials").paths) == 2
