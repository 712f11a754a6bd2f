"""Every example runs as its first lines say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from ofrl_robot.data.episodes.reader import open_dataset, read_episode

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def run(monkeypatch):
    """Run an example as ``python examples/NAME WORDS...``."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def test_custom_arm(run, tmp_path, capsys):
    run("custom_arm.py", tmp_path / "point")
    dataset = open_dataset(tmp_path / "point")
    assert len(dataset.paths) == 2 and dataset.metas[0].robot == "point"
    assert capsys.readouterr().out.count("arrange the scene for: move down") == 2
    episode = read_episode(dataset.paths[0])
    assert episode.state[:, 2].tolist() == pytest.approx([0.2 - 0.005 * k for k in range(6)])
    assert episode.meta.success == -1, "only a person can say whether it succeeded"


def test_custom_teleop(run, tmp_path):
    run("custom_teleop.py", tmp_path / "circle")
    episode = read_episode(open_dataset(tmp_path / "circle").paths[0])
    assert episode.held[3::4].all() and episode.held.sum() == len(episode) // 4
    assert episode.meta.environment["size"] == 0.3
