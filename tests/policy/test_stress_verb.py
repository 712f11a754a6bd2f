"""`ofrl stress` from the checkpoint to the table; what it refuses."""

from __future__ import annotations

import pytest
from PIL import Image

from ofrl_robot.cli import main
from ofrl_robot.evaluation.stress import read_stress


def test_a_policy_of_a_task_that_is_not_simulated_is_refused(save, capsys, tmp_path):
    path = save(task="fold-towel", robot="widowx")
    assert main(["stress", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "trained on 'fold-towel' of robot 'widowx', which is no simulated task" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_policy_of_another_rate_is_refused(save, capsys, tmp_path):
    words = ["stress", str(save(control_rate_hz=7.0)), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "control rate" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_checkpoint_outside_a_run_needs_a_folder(save, capsys):
    assert main(["stress", str(save(control_rate_hz=24.0))]) == 2
    assert "is in no run folder; name a folder with --out" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_are_recorded_in_processes_and_come_out_as_a_table(save, capsys, tmp_path):
    path, out = save(control_rate_hz=24.0), tmp_path / "out"
    words = [
        "stress", str(path), "--out", str(out), "--trials", "2", "--seed", "5",
        "--disturbances", "looks=harsh", "object_size=0.85",
    ]  # fmt: skip
    assert main([*words, "--workers", "2"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines() if "/2" in line][-4:-1] == [
        "undisturbed", "looks", "object_size",
    ]  # fmt: skip
    found = read_stress(out)
    assert [row.realism for row in found.rows] == ["off", "looks=harsh", "object_size=0.85"]
    assert all(row.n == 2 and row.seeds == "seeds 5-6" for row in found.rows)
    assert Image.open(out / "stress.png").size[0] > 1000
    before = (
        (out / "stress.json").stat().st_mtime_ns,
        [episode.stat().st_mtime_ns for episode in sorted(out.glob("*/*.h5"))],
    )
    assert main(words) == 0
    assert [e.stat().st_mtime_ns for e in sorted(out.glob("*/*.h5"))] == before[1]
    assert read_stress(out) == found
