"""From a run folder to its verdict and ``selected.json``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ofrl_robot.errors import CheckpointError
from ofrl_robot.training import run_folder
from ofrl_robot.workflow.choose_checkpoint import diagnose_run, select_checkpoint
from ofrl_robot.workflow.diagnosis import GOOD, OVERFIT

PEAKED = np.interp(np.linspace(0, 1, 12), [0, 0.4, 1], [0, 1, 0.2])


def test_the_peak_is_selected_and_written_down(make_run, metrics):
    run = make_run(metrics(PEAKED))
    found = select_checkpoint(run)
    written = json.loads((run / "selected.json").read_text())
    assert found.verdict == written["verdict"] == OVERFIT
    assert written["step"] == found.selected_step == found.peak_step
    assert run / written["file"] == run_folder.checkpoint_path(run, found.selected_step)
    assert written["reasons"] == found.reasons
    assert written["thresholds"]["td_ratio"] == 0.5


def test_a_second_diagnosis_replaces_the_first(make_run, metrics):
    run = make_run(metrics(PEAKED))
    (run / "selected.json").write_text("{}")
    select_checkpoint(run)
    assert json.loads((run / "selected.json").read_text())["verdict"] == OVERFIT
    assert not list(run.glob("*.tmp"))


def test_the_warm_start_is_read_from_the_config(make_run, metrics):
    curve = [9, 8, 7, 6] + list(np.linspace(0, 1, 10))
    assert diagnose_run(make_run(metrics(curve), name="a", warm_start=2000)).verdict == GOOD
    assert diagnose_run(make_run(metrics(curve), name="b")).peak_step == 500


def test_diagnosing_writes_nothing(make_run, metrics):
    run = make_run(metrics(PEAKED))
    before = sorted(run.rglob("*"))
    diagnose_run(run)
    assert sorted(run.rglob("*")) == before


def test_a_cloning_run_selects_its_last_checkpoint(make_run):
    run = make_run([{"step": 500 * i, "data_log_prob": 1.0} for i in (1, 2)], algo="bc")
    assert select_checkpoint(run).selected_step == 1000


def test_an_interrupted_run_is_judged_by_what_it_has(make_run, metrics):
    # The trainer writes the checkpoint before its row: the last file may have no row yet.
    run = make_run(metrics(np.linspace(0, 1, 6)))
    run_folder.checkpoint_path(run, 3500).write_bytes(b"half")
    assert select_checkpoint(run).selected_step == 3000


def test_a_missing_checkpoint_is_an_error_and_nothing_is_written(make_run, metrics):
    run = make_run(metrics(PEAKED))
    run_folder.checkpoint_path(run, diagnose_run(run).selected_step).unlink()
    with pytest.raises(CheckpointError, match="selected checkpoint is missing"):
        select_checkpoint(run)
    assert not (run / "selected.json").exists()


def test_what_is_no_run_is_an_error(tmp_path, make_run, metrics):
    with pytest.raises(CheckpointError, match="not a run folder"):
        select_checkpoint(tmp_path)
    run = make_run(metrics(PEAKED))
    (run / "metrics.csv").write_text("step,data_q\n500,what\n")
    with pytest.raises(CheckpointError, match="damaged"):
        select_checkpoint(run)
    (run / "metrics.csv").unlink()
    with pytest.raises(CheckpointError, match="no metrics.csv yet"):
        select_checkpoint(run)
