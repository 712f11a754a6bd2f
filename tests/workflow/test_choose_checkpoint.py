"""From a run folder to its verdict and ``selected.json``."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest

from ofrl_robot.algos.registry import config_class
from ofrl_robot.cli.config_file import split_config
from ofrl_robot.cli.learning import Train, algorithm
from ofrl_robot.cli.parsing import parse_quietly
from ofrl_robot.errors import CheckpointError, OutputError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.policy.checkpoint import resolve_checkpoint
from ofrl_robot.training import run_folder
from ofrl_robot.training.config import RunConfig, TrainConfig
from ofrl_robot.workflow.choose_checkpoint import (
    diagnose_run,
    run_next_steps,
    select_checkpoint,
    verdict_lines,
)
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
    assert written["corrections"][0]["settings"] == {"bottleneck": True}
    assert resolve_checkpoint(run) == run / written["file"]  # what the policy server reads


def read_command(command):
    """Settings that `ofrl` reads from a printed command line."""
    typed, config = split_config(shlex.split(command)[1:])
    words = config.insert(typed) if config else typed
    form = Train[config_class(algorithm(words))]
    return parse_quietly(form, words[1:])


@pytest.fixture
def real_run(make_run, metrics, make_dataset):
    """Function ``real_run(data_q)`` -> a run whose config files hold all settings."""

    def make(data_q, algo="cql", rows=None):
        run = make_run(rows or metrics(data_q), algo=algo, name="my run")
        train = TrainConfig(steps=6000, threads=1)
        config = RunConfig(make_dataset(), algo, config_class(algo)(), NetConfig(), train)
        run_folder.write_config(run, config.to_dict())
        return run

    return make


def test_the_printed_commands_train_with_the_correction(real_run):
    run = real_run(PEAKED)
    lines = verdict_lines(run, select_checkpoint(run))
    assert lines[0].startswith("verdict: overfit   deploy: step ")
    commands = [line.strip() for line in lines if line.startswith("    ofrl train ")]
    first, second, third = (read_command(command) for command in commands)
    assert first.nets.bottleneck and first.name == "my run-bottleneck"
    assert second.nets.dropout == 0.2 and second.name == "my run-dropout-0.2"
    assert third.algo_config.regularization == "l1"
    for train in (first, second, third):
        assert train.out == run.parent and train.train.steps == 6000 and not train.resume
        assert train.config().dataset.name == "data"


def test_longer_training_is_advised_as_a_resumed_run(real_run):
    run = real_run(np.linspace(0, 1, 12))
    (step,) = run_next_steps(run, select_checkpoint(run))
    train = read_command(step.command)
    assert train.resume and train.train.steps == 12000 and train.out / train.name == run


def test_a_cloning_run_names_the_command_that_gives_a_verdict(real_run):
    run = real_run(None, "bc", [{"step": 500 * i, "data_log_prob": 1.0} for i in (1, 2)])
    (step,) = run_next_steps(run, select_checkpoint(run))
    assert read_command(step.command).algo == "cql" and "--config" not in step.command


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


def test_what_brac_s_penalty_does_to_q_as_it_comes_in_is_not_judged(make_run, metrics):
    """Warm start 1000, ramp 1000, three time constants of 200 steps; then flat: no overfit. A
    run too short for that is judged from the warm start on."""
    q = np.concatenate([np.full(2, 5.0), np.linspace(4.9, 3.0, 4), np.full(10, 3.0)])
    settings = {"warm_start_steps": 1000, "penalty_ramp_steps": 1000, "target_rate": 0.005}
    for curve, expected in ((q, GOOD), (np.linspace(5.0, 3.0, 8), OVERFIT)):
        run = make_run(metrics(curve), name=f"run{len(curve)}", algo="brac")
        config = json.loads((run / "config.json").read_text())
        config["algo_config"] = {**settings, "value_penalty": True}
        (run / "config.json").write_text(json.dumps(config))
        assert diagnose_run(run).verdict == expected, len(curve)


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
    (run / "metrics.csv").write_text("data_q\n500\n")
    with pytest.raises(CheckpointError, match=f"{run.name}: the metrics lack step"):
        select_checkpoint(run)
    (run / "metrics.csv").unlink()
    with pytest.raises(CheckpointError, match="no metrics.csv yet"):
        select_checkpoint(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 5}, r"config.json: damaged \(no train\)"),
        ({"algo_config": None, "algo": []}, r"damaged \(no algo_config, algo\)"),
        ({"algo_config": {"warm_start_steps": "x"}}, "warm_start_steps 'x' is not a number"),
        ({"train": {"reward_bias": [1]}}, r"reward_bias \[1\] is not a number"),
    ],
)
def test_a_config_that_is_none_is_refused_in_one_line(make_run, metrics, change, message):
    run = make_run(metrics(PEAKED))
    config = {**json.loads((run / "config.json").read_text()), **change}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        select_checkpoint(run)
    assert not (run / "selected.json").exists()


def test_a_choice_that_cannot_be_written_is_one_line(make_run, metrics):
    run = make_run(metrics(PEAKED))
    (run / "selected.json").mkdir()
    with pytest.raises(OutputError, match="selected.json: cannot be written"):
        select_checkpoint(run)
