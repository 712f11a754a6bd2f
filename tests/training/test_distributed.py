"""Two processes that train one run are one process with their joint batch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from ofrl_robot.errors import ConfigError
from ofrl_robot.training import distributed, learner, run_folder
from ofrl_robot.training.distributed import DistributedLearner, require_shareable, share
from ofrl_robot.training.process_group import ProcessGroup
from ofrl_robot.training.staging import StreamedData
from tests.training import worker
from tests.training.small_run import HYPER, config

CPU = torch.device("cpu")
LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def start(*words):
    return subprocess.Popen(
        [sys.executable, *(str(word) for word in words)], env={**os.environ, **LOOPBACK},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(*processes):
    """Exit codes and outputs."""
    try:
        outputs = [process.communicate(timeout=250)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [process.returncode for process in processes], outputs


@pytest.mark.slow
@pytest.mark.timeout(300)  # processes that import torch, on whatever machine
def test_two_processes_are_one_with_the_joint_batch(make_dataset, tmp_path):
    data = make_dataset()
    whole = start(worker.__file__, data, tmp_path, 0, 1)
    parts = [start(worker.__file__, data, tmp_path, rank, 2) for rank in (0, 1)]
    codes, (_, first, second) = finish(whole, *parts)
    assert codes == [0, 0, 0], first + second
    check_gradients(tmp_path)
    check_runs(tmp_path, first, second)


def check_gradients(folder):
    names = ("0 of 1", "0 of 2", "1 of 2")
    whole, first, second = (safetensors.torch.load_file(str(folder / name)) for name in names)
    assert {" ".join(name.split()[:2]) for name in whole} == {
        "{} {}".format(*case) for case in worker.CASES
    }
    assert set(first) == set(second) == set(whole)  # none where one process has none
    assert not any(name.startswith("brac 5 behavior") for name in whole)
    for name, gradient in whole.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], gradient, rtol=1e-5, atol=1e-6), name


def check_runs(folder, first, second):
    """A run, resumed, and one that diverges: written by one process, ended by both."""
    assert json.loads((folder / "0 of 2.json").read_text()) == [0, 0, 2]
    assert json.loads((folder / "1 of 2.json").read_text()) == [0, 0, 0]  # the first says it
    run = folder / "run"
    assert run_folder.checkpoint_steps(run) == [2, 4, 6]
    for name in ("metrics.csv", "train.csv"):
        rows = run_folder.read_metrics(run, name)
        assert np.isfinite([list(row.values()) for row in rows]).all()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert run_folder.read_config(run)["train"]["batch_size"] == 8  # the joint one
    assert "resumed after step 4" in first and "diverged at step" in first
    assert "run:" in first and "run:" not in second and "checkpoint" not in second


@pytest.mark.slow
@pytest.mark.timeout(300)  # processes that import torch, on whatever machine
def test_torchrun_trains_one_run(make_dataset, tmp_path):
    words = ["train", make_dataset(), "--algo", "bc", "--steps", 2, "--name", "run",
             *worker.FLAGS[:-2], "--out", tmp_path]  # fmt: skip
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
                "--nproc-per-node", 2, "-m", "ofrl_robot.cli"]  # fmt: skip
    codes, (output,) = finish(start(*launcher, *words))
    if "terminate called without an active exception" in output:
        # torch's own, when a process has done all and exits: a bare script of two processes had
        # it in 1 of 3 runs. Then the run is there, and going on with it finds nothing to do.
        codes, (output,) = finish(start(*launcher, *words, "--resume"))
    assert codes == [0], output
    assert output.count("run: ") == output.count("verdict: ") == 1
    assert run_folder.checkpoint_steps(tmp_path / "run") == [2]


def test_shares_are_equal_parts_of_the_joint_batch():
    joint = [np.arange(5), np.arange(100, 107)]
    parts = [share(joint, rank, 3) for rank in range(3)]
    assert [sum(map(len, part)) for part in parts] == [4, 4, 4]
    for store, rows in enumerate(joint):
        assert sorted(np.concatenate([part[store] for part in parts])) == list(rows)
    assert [list(rows) for rows in share(joint, 0, 1)] == [list(rows) for rows in joint]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 9}, "batch_size 9 cannot be divided among 2 processes"),
        ({"device": "cuda:0"}, "device cuda:0 for all processes; use --device cuda"),
        (
            {"algo_config": dataclasses.replace(HYPER["brac"], divergence_form="dual")},
            "BRAC's dual form does not train in several processes",
        ),
    ],
)
def test_what_several_processes_cannot_train_is_refused(changes, message):
    require_shareable(config("data", "brac"), 2)
    with pytest.raises(ConfigError, match=message):
        require_shareable(config("data", "brac", **changes), 2)


def test_only_a_single_process_uploads_its_data(make_dataset, tmp_path, monkeypatch):
    """Several processes use no CUDA graph, so each took half of its GPU for nothing."""
    uploaded = []
    monkeypatch.setattr(
        learner, "device_data", lambda buffer, _: uploaded.append(1) or StreamedData(buffer, CPU)
    )
    cuda = torch.device("cuda")
    single = learner.Learner(config(make_dataset(), "bc"))
    assert single._make_graphed(cuda) is not None and uploaded == [1]
    meeting = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group("gloo", meeting, rank=0, world_size=1)
    try:
        made = DistributedLearner(config(tmp_path / "data", "bc"), ProcessGroup())
        assert made._make_graphed(cuda) is None and uploaded == [1]
    finally:
        torch.distributed.destroy_process_group()


def test_the_data_is_opened_before_the_processes_meet(make_dataset, tmp_path, monkeypatch):
    """Building the replay cache of 40 GB takes longer than nccl waits for a process."""
    done = []

    @contextlib.contextmanager
    def joined(group, device):
        assert list((tmp_path / "data" / ".cache").glob("*-camera-*"))
        done.append("met")
        yield

    def train(config, folder, resume, make_learner):
        monkeypatch.setattr(learner, "open_data", None)  # it is opened once
        data = make_learner.keywords["data"]
        done.append(learner.Learner(config, data).data is data)

    monkeypatch.setattr(distributed, "joined", joined)
    monkeypatch.setattr(distributed.loop, "train", train)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    distributed.train_distributed(config(make_dataset(), "bc"), tmp_path / "run")
    assert done == ["met", True]


def test_torchrun_says_who_is_who(monkeypatch):
    assert ProcessGroup.from_environment() == ProcessGroup(0, 1, 0)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ProcessGroup.from_environment() == ProcessGroup(rank=3, size=4, local_rank=1)
