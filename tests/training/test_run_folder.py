"""The run folder: made at one stroke, wound back to a step."""

from __future__ import annotations

import pytest

from ofrl_robot.errors import ConfigError, OutputError
from ofrl_robot.training import run_folder


@pytest.fixture
def run(tmp_path):
    """A run killed amid its row of step 9, its state that of step 4."""
    folder = tmp_path / "run"
    run_folder.create_run(folder, {"train": {"steps": 12}})
    for step in (2, 4, 6, 8):
        run_folder.checkpoint_path(folder, step).write_bytes(b"weights")
    (folder / "checkpoints" / "step_0000010.tmp").write_bytes(b"half of them")
    (folder / "state.safetensors.tmp").write_bytes(b"half of it")
    for name in ("metrics.csv", "train.csv"):
        rows = "".join(f"{step},0.{step}\r\n" for step in (2, 4, 6, 8))
        (folder / name).write_bytes(f"step,x\r\n{rows}1".encode())
    return folder


@pytest.mark.parametrize(("step", "kept"), [(0, []), (4, [2, 4]), (5, [2, 4]), (8, [2, 4, 6, 8])])
def test_what_came_after_a_step_is_dropped_and_nothing_else(run, step, kept):
    run_folder.rewind(run, step)
    assert run_folder.checkpoint_steps(run) == kept
    assert not list(run.rglob("*.tmp"))
    for name in ("metrics.csv", "train.csv"):
        rows = "".join(f"{k},0.{k}\r\n" for k in kept)
        assert (run / name).read_bytes() == f"step,x\r\n{rows}".encode()


def test_a_run_without_rows_is_wound_back_too(tmp_path):
    run_folder.create_run(tmp_path / "run", {})
    (tmp_path / "run" / "metrics.csv").write_bytes(b"step,d")  # killed in the header
    run_folder.rewind(tmp_path / "run", 0)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == b""


def test_a_run_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_config", dies)
        with pytest.raises(KeyboardInterrupt):
            run_folder.create_run(tmp_path / "runs" / "run", {})
    assert not (tmp_path / "runs" / "run").exists()
    run_folder.create_run(tmp_path / "runs" / "run", {})
    assert run_folder.read_config(tmp_path / "runs" / "run") == {}
    with pytest.raises(ConfigError, match="exists already"):
        run_folder.create_run(tmp_path / "runs" / "run", {})


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OutputError, match="cannot make the run folder.*--out"):
        run_folder.create_run(tmp_path / "runs" / "run", {})
