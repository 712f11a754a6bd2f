"""The demo's bookkeeping: counts and time of each part. What it starts is replaced by factories."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tests.run_factory import metric_rows, record_episodes, write_run

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "demo.py"


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A demo of 4 episodes and 2 trials that records and trains nothing real."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("demo_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Demo("try", episodes=4, trials=2, noise=0.1)

    def roslaunch(launch, **args):
        if launch == "collect.launch":
            record_episodes(args["out"], [1, 1, 1, 0])
        else:
            record_episodes(args["out"], [1, 0], actor="policy")

    monkeypatch.setattr(made, "roslaunch", roslaunch)
    monkeypatch.setattr(
        made, "train", lambda run, config: write_run(run, metric_rows(np.linspace(0, 1, 8)))
    )
    monkeypatch.setattr(module, "write_report", lambda run, folders: _page(run))
    return made


def _page(run):
    (run / "report").mkdir()
    return run / "report" / "report.html"


@pytest.mark.slow
def test_the_result_has_counts_and_the_seconds_of_each_part(demo, capsys):
    demo.go()
    out = capsys.readouterr().out
    result = json.loads(Path("runs/try/report/demo.json").read_text())
    assert list(result["seconds_by_part"]) == ["collect", "train", "diagnose", "deploy", "report"]
    total = sum(result["seconds_by_part"].values())
    assert result["seconds"] == pytest.approx(total, abs=0.3)  # rounding of the parts
    assert result["behaviour"] == {"successes": 3, "trials": 4}
    assert result["cql"] == result["bc_sampled"] == {"successes": 1, "trials": 2}
    assert "seconds     collect " in out and "verdict: good" in out


def test_a_part_that_fails_is_timed_too(demo):
    with pytest.raises(KeyError), demo.timed("collect"):
        raise KeyError
    assert list(demo.seconds) == ["collect"]
