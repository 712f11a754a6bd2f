"""The benchmark of the control loop runs, and its figures are those of the recorded episodes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.ros.conftest import ros_environment
from tests.ros.waiting import ROOT


@pytest.mark.slow
def test_one_session_with_a_camera_and_something_busy_beside_it(tmp_path):
    words = [sys.executable, str(ROOT / "bench" / "control_loop.py"), "--episodes", "1",
             "--rate", "10", "--cameras", "1", "--busy", "1", "--json", "r.json"]  # fmt: skip
    done = subprocess.run(
        words, cwd=str(tmp_path), env=ros_environment(0, tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (session,) = json.loads((tmp_path / "r.json").read_text())["sessions"]
    assert session["asked"] == session["saved"] == 1 and session["busy"] == 1
    assert session["ticks"] == 25 and not session["aborted"]
    for name in ("answer_ms", "applied_ms", "period_ms"):
        p50, p95, p99 = session[name]
        assert 0.0 < p50 <= p95 <= p99
    assert session["applied_ms"][0] >= 20.0, "the action latency"
