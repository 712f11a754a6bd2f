"""`ofrl train` as it is typed: resuming by the run alone, names, help."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ofrl_robot.cli import main
from ofrl_robot.cli.train_words import prepare_train
from ofrl_robot.training import run_folder
from tests.training.small_run import config, stopped


@pytest.fixture
def run(make_dataset, tmp_path):
    """A run of BC, interrupted at step 3 of 7."""
    return stopped(config(make_dataset(), "bc"), tmp_path / "runs" / "run")


def test_a_run_is_resumed_by_its_name_alone(run, capsys, monkeypatch):
    monkeypatch.chdir(run.parent)
    assert main(["train", "--resume", "run"]) == 0
    out = capsys.readouterr().out
    assert "resumed after step 3" in out and "run: run" in out
    assert run_folder.checkpoint_steps(run) == [3, 6, 7]
    monkeypatch.chdir(run)
    assert main(["train", "--resume", ".", "--steps", "9", "--seed", "0"]) == 0
    assert run_folder.checkpoint_steps(run) == [3, 6, 7, 9]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "4"], "batch_size 8 != 4"),
        (["--algo", "cql"], "trained with --algo bc, not cql"),
        (["--name", "other"], "--name cannot be used with --resume"),
        (["--out=elsewhere"], "--out cannot be used with --resume"),
        (["--config", "x.yaml"], "--config cannot be used with --resume"),
    ],
)
def test_flags_that_differ_from_the_run_are_refused(run, capsys, flags, message):
    assert main(["train", "--resume", str(run), *flags]) == 2
    assert message in capsys.readouterr().err
    assert run_folder.checkpoint_steps(run) == [3]


def test_a_run_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path / "runs" / "typo")]) == 2
    assert "runs/typo: no such run to resume; check the path" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_data_may_be_in_another_place(run, make_dataset, tmp_path, capsys):
    os.symlink(tmp_path / "data", tmp_path / "link")
    assert main(["train", str(tmp_path / "link"), "--resume", str(run)]) == 0
    shutil.move(tmp_path / "data", tmp_path / "moved")
    (tmp_path / "link").unlink()
    words = ["train", str(tmp_path / "moved"), "--resume", str(run), "--steps", "8"]
    assert main(words) == 0, capsys.readouterr().err
    assert json.loads((run / "config.json").read_text())["dataset"] == str(tmp_path / "moved")
    other = make_dataset("other", episodes=7)
    assert main(["train", str(other), "--resume", str(run), "--steps", "9"]) == 2
    assert "data changed since the run began" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "."])
def test_a_name_is_one_folder(make_dataset, tmp_path, capsys, name):
    out = tmp_path / "a" / "b" / "runs"
    assert main(["train", str(make_dataset()), "--out", str(out), "--name", name]) == 2
    assert f"name '{name}' is not the name of a folder" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_help_shows_first_what_people_change_first(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and len(out.splitlines()) < 35
    for flag in ("--steps", "--seed", "--observe", "--resume", "--help-all"):
        assert flag in out
    assert "--cql-weight" not in out
    with pytest.raises(SystemExit) as ended:
        main(["train", "--algo", "cql", "--help-all"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "--cql-weight" in out and "--log-std-min" in out


def test_words_of_other_verbs_stay_as_they_are():
    for line in ("sweep x --help", "data info x", "", "train data --seed 1"):
        words = line.split()
        assert prepare_train(words) == words
