"""A run that was killed goes on as if it had not been."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import signal
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from ofrl_robot.algos.configs.cql import CQLConfig
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.errors import CheckpointError, ConfigError, DatasetError
from ofrl_robot.training import run_folder
from ofrl_robot.training.loop import train
from tests.training import small_run
from tests.training.small_run import HYPER, NETS, StopAt, config, stopped


def digests(folder):
    names = ["metrics.csv", "train.csv", "config.json", "config.yaml"]
    files = sorted((folder / "checkpoints").iterdir()) + [folder / n for n in names]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
@pytest.mark.timeout(300)  # nine short runs, one after another
def test_a_run_killed_at_any_moment_goes_on_to_the_bit(make_dataset, tmp_path):
    data, unbroken, broken = make_dataset(), tmp_path / "unbroken", tmp_path / "broken"
    done = subprocess.run(
        [sys.executable, small_run.__file__, str(data), str(unbroken), str(broken)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    killed = [-signal.SIGKILL] * len(small_run.KILLS)
    assert json.loads(done.stdout.splitlines()[-1]) == [0] + killed + [0], done.stdout
    resumed = re.findall(r"resumed after step (\d+)", done.stdout)
    assert list(map(int, resumed)) == [0, 0, 0, 4, 4, 8, 8]
    assert digests(broken) == digests(unbroken)
    assert run_folder.checkpoint_steps(broken) == [4, 8, 12]
    assert not list(broken.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "changes", "nets", "precision"),
    [
        ("bc", {}, {"encoder": "cog", "bottleneck": True, "bottleneck_place": "policy"}, "fp32"),
        ("cql", {"lagrange": True, "n_step": 2}, {"critic_encoders": "separate"}, "fp32"),
        ("cql", {"dr3_feat": True, "regularization": "l2"}, {"dropout": 0.2}, "auto"),
        ("brac", {"tune_beta": True}, {"action_head": "mixture"}, "fp32"),
        ("brac", {"divergence_form": "dual"}, {}, "fp32"),
        ("brac", {"warm_start_steps": 4}, {}, "fp32"),  # the behaviour policy is half fitted
    ],
)
def test_every_algorithm_goes_on_to_the_bit(make_dataset, tmp_path, algo, changes, nets, precision):
    algo_config = dataclasses.replace(HYPER[algo], **changes)
    nets = dataclasses.replace(NETS, **nets)
    chosen = config(make_dataset(), algo, algo_config, nets, precision=precision)
    broken = stopped(chosen, tmp_path / "broken")
    torch.rand(7)  # the generator of this process must not matter
    assert train(chosen, broken, resume=True) == broken
    assert digests(broken) == digests(train(chosen, tmp_path / "unbroken"))


@pytest.mark.slow
def test_prior_data_and_splits_go_on_to_the_bit(make_dataset, tmp_path):
    task, prior = make_dataset(), make_dataset("prior", success=0)
    names = [path.name for path in open_dataset(task).paths]
    (task / "splits.json").write_text(json.dumps({"train": names[:4], "valid": names[4:]}))
    chosen = config(task, prior=prior, split="train")
    broken = stopped(chosen, tmp_path / "broken")
    train(chosen, broken, resume=True)
    assert digests(broken) == digests(train(chosen, tmp_path / "unbroken"))


@pytest.mark.slow
def test_more_steps_may_be_asked_for_and_are_written_back(make_dataset, tmp_path):
    data = make_dataset()
    folder = train(config(data, steps=6), tmp_path / "run")
    display = StopAt()
    train(config(data, steps=6), folder, resume=True, display=display)
    assert display.said[1:] == ["finished: all 6 steps are done; use --steps to train longer"]
    train(config(data, steps=12), folder, resume=True)
    assert digests(folder) == digests(train(config(data, steps=12), tmp_path / "at once"))


@pytest.mark.slow
@pytest.mark.parametrize("begun", [True, False], ids=["checkpoint", "none yet"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 4}, "batch_size 8 != 4"),
        ({"steps": 5}, "steps 7 != 5"),
        ({"algo": "bc"}, "algo cql != bc, .*discount 0.9 != \\(absent\\)"),
        ({"nets": dataclasses.replace(NETS, hidden=(8,))}, "hidden \\[16\\] != \\[8\\]"),
        ({"algo_config": CQLConfig(discount=0.8, warm_start_steps=2)}, "discount 0.9 != 0.8"),
        ({"prior_fraction": 0.5, "prior": True}, "prior None != .*prior_fraction None != 0.5"),
    ],
)
def test_other_settings_are_refused_with_what_differs(
    make_dataset, tmp_path, begun, changes, message
):
    data, folder = make_dataset(), tmp_path / "run"
    if begun:
        stopped(config(data), folder)
    else:
        run_folder.create_run(folder, config(data).to_dict())
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    if "prior" in changes:
        changes = {**changes, "prior": make_dataset("prior")}
    with pytest.raises(ConfigError, match=message) as caught:
        train(config(data, **changes), folder, resume=True)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def relabel(data):
    import h5py

    with h5py.File(str(open_dataset(data).paths[0]), "r+") as file:
        file["data/demo_0/rewards"][-1] = 0.5


def delete(data):
    open_dataset(data).paths[0].unlink()


@pytest.mark.slow
@pytest.mark.parametrize("change", [relabel, delete])
def test_data_that_changed_is_refused(make_dataset, tmp_path, change):
    data = make_dataset()
    folder = stopped(config(data), tmp_path / "run")
    change(data)
    with pytest.raises(DatasetError, match="data changed since the run began") as caught:
        train(config(data), folder, resume=True)
    assert str(data) in str(caught.value)


@pytest.mark.slow
def test_a_split_that_changed_is_refused(make_dataset, tmp_path):
    data = make_dataset()
    names = [path.name for path in open_dataset(data).paths]
    (data / "splits.json").write_text(json.dumps({"some": names[:4]}))
    folder = stopped(config(data, split="some"), tmp_path / "run")
    (data / "splits.json").write_text(json.dumps({"some": names[1:5]}))
    with pytest.raises(DatasetError, match="data changed since the run began"):
        train(config(data, split="some"), folder, resume=True)


@pytest.mark.slow
def test_a_run_that_is_not_there_or_being_trained_is_refused(make_dataset, tmp_path):
    chosen, folder = config(make_dataset()), tmp_path / "run"
    with pytest.raises(ConfigError, match="no such run to resume"):
        train(chosen, folder, resume=True)
    assert not folder.exists()
    stopped(chosen, folder)
    with run_folder.one_trainer(folder):
        with pytest.raises(ConfigError, match="another process is training this run"):
            train(chosen, folder, resume=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError, match="not a run folder"):
        train(chosen, tmp_path / "other", resume=True)


def rewrite(path, change):
    with safetensors.safe_open(str(path), "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["ofrl_state"])
    change(header, tensors)
    safetensors.torch.save_file(tensors, str(path), {"ofrl_state": json.dumps(header)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: h.update(format_version=9), "state of format version 9, this is 1"),
        (lambda h, t: h.update(software_version="0.0.1"), "state of software version 0.0.1"),
        (lambda h, t: h.update(mood="good"), "damaged .*mood"),
        (lambda h, t: h.update(sampler={"bit_generator": "dice"}), "does not fit this run"),
        (lambda h, t: t.pop("random.cpu"), "does not fit this run .*cpu"),
        (lambda h, t: t.pop("algorithm.actor.head.0.weight"), "does not fit this run .*head"),
        (lambda h, t: t.update({"optimizer.main.999.exp_avg": torch.zeros(1)}), "not fit"),
    ],
)
def test_a_state_of_other_code_or_format_is_refused(make_dataset, tmp_path, change, message):
    chosen = config(make_dataset())
    folder = stopped(chosen, tmp_path / "run")
    rewrite(folder / "state.safetensors", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        train(chosen, folder, resume=True)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_a_damaged_state_is_refused(make_dataset, tmp_path, damage):
    chosen = config(make_dataset(), "bc")
    folder = stopped(chosen, tmp_path / "run")
    path = folder / "state.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="state.safetensors: damaged"):
        train(chosen, folder, resume=True)


@pytest.mark.slow
def test_checkpoints_are_not_dropped_where_the_state_was_lost(make_dataset, tmp_path):
    chosen = config(make_dataset(), "bc")
    folder = train(chosen, tmp_path / "run")
    (folder / "state.safetensors").unlink()
    with pytest.raises(CheckpointError, match="3 checkpoints but no state"):
        train(chosen, folder, resume=True)
    assert run_folder.checkpoint_steps(folder) == [3, 6, 7]


@pytest.mark.parametrize("text", ["{}", "[1]", "{"])
def test_a_config_that_is_none_is_refused(make_dataset, tmp_path, text):
    chosen = config(make_dataset(), "bc")
    run_folder.create_run(tmp_path / "run", chosen.to_dict())
    (tmp_path / "run" / "config.json").write_text(text)
    with pytest.raises((CheckpointError, ConfigError), match="damaged|absent"):
        train(chosen, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_another_torch_is_said(make_dataset, tmp_path):
    chosen = config(make_dataset(), "bc")
    folder = stopped(chosen, tmp_path / "run")
    rewrite(folder / "state.safetensors", lambda h, t: h.update(torch_version="1.0"))
    display = StopAt()
    train(chosen, folder, resume=True, display=display)
    assert any("torch was 1.0" in line for line in display.said)
