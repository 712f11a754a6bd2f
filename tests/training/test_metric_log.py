"""Rows reach the CSV files, TensorBoard and, where it is installed, Weights & Biases."""

from __future__ import annotations

import json
import sys

import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.training import run_folder
from ofrl_robot.training.loop import train
from ofrl_robot.training.metric_log import MetricLog
from ofrl_robot.training.run_folder import CsvLog
from tests.training.small_run import StopAt, config, stopped

STAND_IN = """
import json, os
class Run:
    def __init__(self, path): self.path = path
    def log(self, values, step): self.write({"step": step, **values})
    def finish(self): self.write({"finished": True})
    def write(self, row):
        with open(self.path, "a") as file: file.write(json.dumps(row) + "\\n")
def init(**options):
    if os.environ.get("WANDB_MODE") == "broken": raise RuntimeError("no network\\nat all")
    run = Run(os.path.join(options["dir"], "wandb.log"))
    run.write(options)
    return run
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    sys.modules.pop("wandb", None)


@pytest.mark.slow
def test_wandb_gets_every_row_and_the_same_run_when_resumed(make_dataset, tmp_path, wandb):
    chosen = config(make_dataset(), "bc", wandb="arms")
    folder = stopped(chosen, tmp_path / "run")
    train(chosen, folder, resume=True, display=StopAt())
    log = [json.loads(line) for line in (folder / "wandb.log").read_text().splitlines()]
    starts = [row for row in log if "project" in row]
    assert [(s["project"], s["resume"], s["name"]) for s in starts] == [
        ("arms", "allow", "run")
    ] * 2
    assert starts[0]["id"] == starts[1]["id"] and starts[0]["config"]["train"]["wandb"] == "arms"
    assert log[-1] == {"finished": True}
    steps = [row["step"] for row in log if "train/actor_loss" in row]
    assert steps == [2, 4, 6, 7]
    probes = {row["step"]: row["probe/action_mse"] for row in log if "probe/action_mse" in row}
    stored = {row["step"]: row["action_mse"] for row in run_folder.read_metrics(folder)}
    assert probes == stored


@pytest.mark.parametrize("shape", ["missing", "folder"])
def test_wandb_that_is_not_installed_is_refused_before_anything_is_written(
    make_dataset, tmp_path, monkeypatch, shape
):
    if shape == "folder":  # what wandb itself leaves where it runs imports as an empty module
        (tmp_path / "wandb").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="not installed; pip install wandb"):
        train(config(make_dataset(), "bc", wandb="arms"), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()
    sys.modules.pop("wandb", None)


@pytest.mark.slow
def test_wandb_without_a_network_says_what_to_do(make_dataset, tmp_path, wandb, monkeypatch):
    chosen = config(make_dataset(), "bc", wandb="arms")
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "broken")
        with pytest.raises(ConfigError, match="no network.; .*WANDB_MODE=offline") as caught:
            train(chosen, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert run_folder.checkpoint_steps(train(chosen, tmp_path / "run", resume=True)) == [3, 6, 7]


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_when_resumed(make_dataset, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = config(make_dataset(), "bc", checkpoint_every=3, log_every=1)

    class StopLater(StopAt):
        def losses(self, step, row):
            if step == 5:  # rows 4 and 5 are written, and made again
                raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(chosen, folder, display=StopLater())
    train(chosen, folder, resume=True)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/actor_loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert [e.step for e in events.Scalars("probe/action_mse")] == [3, 6, 7]


def test_tensorboard_reads_logs_of_one_second_in_their_order(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in range(1, 13):  # the counter in the files' names gets one digit more
        log = MetricLog(tmp_path, step - 1, "", {})
        log.write("train", step, {"loss": 0.5})
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 13))


def test_a_csv_log_goes_on_below_what_it_holds(tmp_path):
    for step in (1, 2):
        log = CsvLog(tmp_path / "a.csv")
        log.write(step, {"x": 0.5, "y": 1.0 / 3})
        log.close()
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "step,x,y", "1,0.5,0.3333333333333333", "2,0.5,0.3333333333333333"
    ]  # fmt: skip
