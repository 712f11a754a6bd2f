"""Several runs at once: the grid, what is refused before it starts, the table, and going on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ofrl_robot.algos.registry import config_class
from ofrl_robot.cli import main
from ofrl_robot.cli import sweep as cli_sweep
from ofrl_robot.cli.parsing import parse_quietly
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.training import run_folder
from ofrl_robot.workflow.flags import to_flags
from ofrl_robot.workflow.sweeps import plan, run_queue
from ofrl_robot.workflow.sweeps.executors import ending
from ofrl_robot.workflow.sweeps.grid import Point, grid
from ofrl_robot.workflow.sweeps.run_queue import Job, run_all
from ofrl_robot.workflow.sweeps.table import FAILED, Result, tabulate

FLAGS = ["--steps", "4", "--batch-size", "8", "--checkpoint-every", "2", "--probe-size", "20",
         "--log-every", "1", "--threads", "1", "--precision", "fp32", "--latent", "8",
         "--hidden", "16", "--warm-start-steps", "1"]  # fmt: skip


def ofrl_sweep(capsys, *words):
    code = main(["sweep", *(str(word) for word in words)])
    out, err = capsys.readouterr()
    return code, out, err


def table(folder):
    with open(str(folder / "sweep.csv"), newline="") as file:
        return list(csv.DictReader(file))


# -- grid --------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_and_the_last_axis_varies_fastest():
    points = grid(["cql-weight=1,5", "seed=0,1"])
    assert [point.name for point in points] == [
        "cql_weight=1,seed=0", "cql_weight=1,seed=1", "cql_weight=5,seed=0", "cql_weight=5,seed=1"
    ]  # fmt: skip
    assert to_flags(points[3].settings) == ["--cql-weight", "5", "--seed", "1"]


def test_switches_lists_and_paths_become_flags_and_safe_names():
    assert to_flags(Point({"clip_targets": "false"}).settings) == ["--no-clip-targets"]
    assert to_flags(Point({"clip_targets": "true"}).settings) == ["--clip-targets"]
    assert to_flags({"target_entropy": -1e-05}) == ["--target-entropy=-1e-05"]
    narrow, _ = grid(["hidden=16  8,32 16"])
    assert to_flags(narrow.settings) == ["--hidden", "16", "8"] and narrow.name == "hidden=16-8"
    assert Point({"prior": "../a b/c"}).name == "prior=..-a-b-c"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([], "nothing to vary"),
        (["seed"], "--vary 'seed' is not NAME=VALUE"),
        (["=1"], "--vary '=1' is not NAME=VALUE"),
        (["seed=0,,1"], "--vary 'seed=0,,1' is not NAME=VALUE"),
        (["seed=0", "seed=1"], "seed is varied twice"),
        (["seed=0,0"], "2 runs would be named seed=0"),
        (["prior=a/b,a-b"], "2 runs would be named prior=a-b"),
        ([f"prior={'x' * 200}"], "has 206 characters"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(axes, message):
    with pytest.raises(ConfigError, match=message):
        grid(axes)


# -- before the first run ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to vary"),
        (["--vary", "colour=red"], "colour=red: Unrecognized options: --colour"),
        (["--vary", "seed=0,x"], "seed=x: Error parsing --seed: invalid literal"),
        (["--vary", "encoder=cog,r9"], "encoder=r9: invalid choice 'r9'"),
        (["--vary", "algo=bc,sac"], "algo=bc: Unrecognized options: --warm-start-steps"),
        (["--vary", "discount=0.9,3"], "discount=3: discount 3.0 is not in (0, 1)"),
        (["--vary", "name=a,b"], "name cannot be varied"),
        (["--vary", "batch-size=8,99"], "30 transitions, fewer than one batch of 99"),
        (["--vary", "seed=0", "--workers", "-1"], "workers -1 is below 0"),
        (["--vary", "seed=0", "--ray", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_the_first_run(
    words, message, make_dataset, tmp_path, capsys
):
    data = make_dataset()
    code, _, err = ofrl_sweep(capsys, data, *FLAGS, "--out", tmp_path / "out", *words)
    assert code == 2 and message in err
    assert err.startswith("ofrl: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_ray_one_line_says_what_to_install(make_dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = [make_dataset(), *FLAGS, "--out", tmp_path / "out", "--vary", "seed=0"]
    code, _, err = ofrl_sweep(capsys, *words, "--ray", "local")
    assert code == 2 and "pip install 'ray>=2.9'" in err and err.count("\n") == 1


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)  # processes that import torch, on whatever machine
def test_a_sweep_makes_its_runs_goes_on_where_they_were_and_names_what_failed(
    make_dataset, tmp_path, capsys
):
    words = [make_dataset(), *FLAGS, "--out", tmp_path, "--name", "try", "--workers", 2]
    words += ["--vary", "critic-lr=1e-3,1e30"]
    code, out, err = ofrl_sweep(capsys, *words)
    folder = tmp_path / "try"
    assert code == 2 and "1 of 2 runs failed" in err
    sound, failed = table(folder)
    assert (sound["critic_lr"], failed["critic_lr"]) == ("1e-3", "1e30")
    run = folder / "critic_lr=1e-3"
    assert json.loads((run / "config.json").read_text())["algo_config"]["critic_lr"] == 1e-3
    chosen = json.loads((run / "selected.json").read_text())
    assert (sound["verdict"], int(sound["step"])) == (chosen["verdict"], chosen["step"])
    assert float(sound["data_q"]) == next(
        row["data_q"] for row in run_folder.read_metrics(run) if row["step"] == chosen["step"]
    )
    assert float(sound["steps/s"]) > 0 and not sound["error"]
    assert failed["verdict"] == FAILED and "diverged at step" in failed["error"]
    assert failed["error"] in out and failed["error"] in (folder / "sweep.md").read_text()
    assert f"| 1e-3 | {sound['verdict']} |" in (folder / "sweep.md").read_text()

    written = (run / "metrics.csv").stat().st_mtime_ns
    words[-1] = "critic-lr=1e-3"  # another grid in the same place
    code, out, _ = ofrl_sweep(capsys, *words)
    assert code == 0 and "1 of 1 runs are finished already" in out
    assert (run / "metrics.csv").stat().st_mtime_ns == written
    code, _, _ = ofrl_sweep(capsys, *words, "--steps", 6)
    assert code == 0 and run_folder.checkpoint_steps(run) == [2, 4, 6]
    assert "resumed after step 4" in (folder / "critic_lr=1e-3.log").read_text()

    code, _, err = ofrl_sweep(capsys, *words, "--steps", 6, "--seed", 5)
    assert code == 2 and "the run began with other settings" in err and "seed 0 != 5" in err


@pytest.mark.slow
@pytest.mark.timeout(300)  # processes that import torch, on whatever machine
def test_an_interrupted_sweep_leaves_no_process_and_its_runs_go_on(make_dataset, tmp_path, capsys):
    words = [make_dataset(), *FLAGS, "--out", tmp_path, "--name", "try", "--vary", "seed=0"]
    words = [str(word) for word in words]
    words[words.index("4")] = "100000"
    running = subprocess.Popen(
        [sys.executable, "-m", "ofrl_robot.cli", "sweep", *words], stderr=subprocess.PIPE, text=True
    )
    run = tmp_path / "try" / "seed=0"
    try:
        while len(run_folder.checkpoint_steps(run)) < 2 and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate()
    finally:
        running.kill()
    assert running.returncode == 130 and err == "ofrl: interrupted\n"
    done = run_folder.checkpoint_steps(run)
    with run_folder.one_trainer(run):  # nobody trains it any more
        pass
    assert plan.state(run, 100000) == plan.UNFINISHED
    words[words.index("100000")] = str(done[-1])
    code, _, err = ofrl_sweep(capsys, *words)
    assert code == 2 and f"steps 100000 != {done[-1]}" in err  # not silently shortened


class Recorded:
    """An executor whose runs end when they are asked for."""

    def __init__(self):
        self.submitted, self.most, self.closed, self._running = [], 0, False, []

    def submit(self, name, words, log):
        self.submitted.append(name)
        self._running.append(name)
        self.most = max(self.most, len(self._running))

    def ended(self):
        name = self._running.pop(0)
        return {name: "exit code 2" if name == "b" else ""}

    def close(self):
        self.closed = True


def test_jobs_run_so_many_at_a_time_and_a_failure_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(run_queue, "_POLL", 0.0)
    (tmp_path / "b").write_text(
        "$ ofrl x\nofrl: old\n\n$ ofrl x\nnoise\nofrl: no room; free some\n"
    )
    jobs = [Job(name, ("train",), tmp_path / name) for name in "abcd"]
    executor = Recorded()
    ended = list(run_all(jobs, executor, 2, lambda running: None))
    assert ended == [("a", ""), ("b", "no room; free some"), ("c", ""), ("d", "")]
    assert executor.submitted == list("abcd") and executor.most == 2 and executor.closed


def test_a_run_that_said_nothing_is_named_by_how_it_ended(tmp_path):
    log = tmp_path / "log"
    assert run_queue.error_text(log, ending(-9)) == "killed by SIGKILL"
    log.write_text("$ ofrl train\nofrl: old\n\n$ ofrl train\nSegmentation fault\n")
    assert run_queue.error_text(log, ending(3)) == "exit code 3; last line: Segmentation fault"
    assert ending(0) == ""


def test_escape_sequences_of_a_log_do_not_reach_the_terminal(tmp_path):
    log = tmp_path / "log"
    log.write_text("$ ofrl train\nofrl: \x1b[2Jno such task \x9b31m\n")
    assert run_queue.error_text(log, ending(2)) == "\\x1b[2Jno such task \\x9b31m"


def test_the_rate_comes_from_the_times_of_the_checkpoints(make_run, metrics):
    run = make_run(metrics([0.0, 0.1, 0.2, 0.3]))
    assert plan.steps_per_second(run.parent) is None
    for step, second in ((500, 100), (1000, 150), (1500, 4000), (2000, 4050)):  # resumed at 1000
        os.utime(run_folder.checkpoint_path(run, step), (second, second))
    assert plan.steps_per_second(run) == 10.0
    for step in (1000, 1500, 2000):
        run_folder.checkpoint_path(run, step).unlink()
    assert plan.steps_per_second(run) is None  # one checkpoint has no interval


def test_a_run_whose_config_names_no_threads_is_refused_in_one_line(make_run, metrics):
    run = make_run(metrics([0.0]))
    with pytest.raises(CheckpointError, match="names no number of threads"):
        plan._threads_of(run)


def test_settings_that_differ_from_their_defaults_reach_every_run(make_dataset, tmp_path, capsys):
    words = [make_dataset(), *FLAGS, "--out", tmp_path, "--name", "try", "--actor-lr=1e-05"]
    command = tyro_sweep([*words, "--bottleneck", "--vary", "seed=0,1", "--bottleneck-size", 8])
    settings = command._settings()
    assert settings["hidden"] == (16,) and settings["actor_lr"] == 1e-05
    runs = plan.plan_runs(
        grid(["seed=0,1"]), [str(words[0])], settings, tmp_path, 1, cli_sweep._read_config
    )
    assert [run.config.train.seed for run in runs] == [0, 1]
    assert all(run.config.nets.bottleneck_size == 8 for run in runs)
    assert all(run.config.algo_config.warm_start_steps == 1 for run in runs)


def tyro_sweep(words):
    form = cli_sweep.Sweep[config_class("cql")]
    return parse_quietly(form, [str(word) for word in words])


def test_the_last_step_is_that_of_the_last_whole_row(tmp_path):
    assert plan.last_step(tmp_path) == 0
    (tmp_path / "train.csv").write_text("step,loss\n50,0.1\n100,0.2\n15")
    assert plan.last_step(tmp_path) == 100


def test_the_table_has_the_columns_that_its_runs_have():
    value = {"step": 4.0, "data_q": 0.51234, "td_error": 0.1, "data_log_prob": -3.0}
    results = [
        Result(Point({"algo": "cql"}), "good", 4, {**value, "cql_term": 2.0}, 40.0),
        Result(Point({"algo": "bc"}), "no_value_function", 4, {"step": 4.0, "data_log_prob": -1.5}),
        Result(Point({"algo": "brac"}), FAILED, error="no"),
    ]
    made = tabulate(results)
    assert made.names == [
        "algo", "verdict", "step", "data_q", "td_error", "cql_term", "data_log_prob", "steps/s"
    ]  # fmt: skip
    assert made.texts()[0] == ["cql", "good", "4", "0.512", "0.1", "2", "", "40"]
    assert made.texts()[1] == ["bc", "no_value_function", "4", "", "", "", "-1.5", ""]
    assert made.errors == [("algo=brac", "no")]
