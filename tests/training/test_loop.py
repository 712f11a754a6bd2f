"""A whole training run on a tiny dataset: what it writes, what it refuses, what survives."""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import tracemalloc

import numpy as np
import pytest
import torch

from ofrl_robot import files
from ofrl_robot.algos.base import Algorithm
from ofrl_robot.algos.bc import BC
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.replay.sampler import MixedSampler
from ofrl_robot.errors import ConfigError, DatasetError, OutputError, TrainingError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.policy.checkpoint import load_checkpoint
from ofrl_robot.policy.policy import Policy
from ofrl_robot.training import loop, run_folder
from ofrl_robot.training.config import TrainConfig
from ofrl_robot.training.display import Display
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.loop import train
from tests.training.small_run import HYPER, config

SHARED = ["data_log_prob", "action_mse"]
Q_METRICS = ["data_q", "data_q_min", "policy_q", "mode_q", "random_q", "td_error",
             "target_variance", "td_error_average"]  # fmt: skip
COLUMNS = {
    "bc": SHARED,
    "cql": SHARED + Q_METRICS + ["cql_term"],
    "brac": SHARED + Q_METRICS + ["divergence", "conservative_q", "behavior_loss"],
}


@pytest.mark.slow
@pytest.mark.parametrize("algo", sorted(HYPER))
def test_the_run_folder_holds_config_metrics_and_deployable_checkpoints(
    algo, make_dataset, tmp_path
):
    data = make_dataset()
    folder = train(config(data, algo), tmp_path / "runs" / "one")
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "config.yaml", "metrics.csv", "train.csv", "tensorboard", "checkpoints",
        "state.safetensors", "resolved.json",
    }  # fmt: skip
    stored = run_folder.read_config(folder)
    assert stored["algo"] == algo and stored["train"]["steps"] == 7
    assert stored == json.loads(json.dumps(config(data, algo).to_dict()))
    assert json.loads((folder / "config.json").read_text())["dataset"] == str(data)
    assert any((folder / "tensorboard").iterdir())

    rows = run_folder.read_metrics(folder)
    assert [row["step"] for row in rows] == [3, 6, 7]  # the last step is always one
    assert list(rows[0]) == ["step"] + COLUMNS[algo]
    assert [row["step"] for row in run_folder.read_metrics(folder, "train.csv")] == [2, 4, 6, 7]

    assert run_folder.checkpoint_steps(folder) == [3, 6, 7]
    for row in rows:
        path = run_folder.checkpoint_path(folder, int(row["step"]))
        header, _ = load_checkpoint(path)
        assert header.probe == pytest.approx({k: v for k, v in row.items() if k != "step"})
        assert (header.step, header.algo, header.observe) == (row["step"], algo, ("front",))
        assert (header.task, header.robot, header.dataset) == ("nothing", "fake", "data")
        assert header.control_rate_hz == 5.0 and header.shapes == {"front": (24, 24, 3)}
        Policy(path).warm_up()


def test_the_averaged_actor_is_what_is_saved(make_dataset, tmp_path):
    slow = dataclasses.replace(HYPER["bc"], actor_average=1e-9, actor_lr=1e-2)
    folder = train(
        dataclasses.replace(config(make_dataset(), "bc"), algo_config=slow), tmp_path / "run"
    )
    first, last = (
        load_checkpoint(run_folder.checkpoint_path(folder, step))[1] for step in (3, 7)
    )  # the actor itself moves by 1e-2 a step
    assert all(torch.allclose(first[k], last[k], rtol=0, atol=1e-6) for k in first)


@pytest.mark.slow
def test_same_seed_same_numbers_on_the_cpu(make_dataset, tmp_path):
    data = make_dataset()

    def metrics(name, **changes):
        torch.rand(5)  # the caller's use of the generator must not matter
        folder = train(config(data, **changes), tmp_path / name)
        return (folder / "metrics.csv").read_bytes(), (folder / "train.csv").read_bytes()

    first = metrics("a")
    assert metrics("b") == first
    assert metrics("c", seed=1)[0] != first[0]
    # probing does not disturb the training: more checkpoints, the same losses
    assert metrics("d", checkpoint_every=1)[1] == first[1]


def test_an_existing_run_is_refused_and_untouched(make_dataset, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("precious")
    with pytest.raises(ConfigError, match="exists already.*--name"):
        train(config(make_dataset()), folder)
    assert (folder / "config.json").read_text() == "precious"
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoints", "config.json"]


@pytest.mark.parametrize(
    ("data", "changes", "error", "message"),
    [
        ({"success": 0}, {}, DatasetError, "not one of 6 episodes.*success"),
        ({"success": -1}, {}, DatasetError, "not one of 6 episodes.*success"),
        ({"reward": 0.0}, {}, DatasetError, "every reward is zero.*--algo bc"),
        ({}, {"batch_size": 31}, DatasetError, "30 transitions.*batch of 31.*--batch-size"),
        ({}, {"num_traj": 1}, DatasetError, "5 transitions.*batch of 8"),
        ({}, {"reward_scale": 0.0}, DatasetError, "every reward is zero.*--algo bc"),
        ({}, {"reward_scale": float("nan")}, ConfigError, "reward_scale is nan"),
        ({}, {"split": "train"}, DatasetError, "no splits.json.*ofrl data split"),
        ({}, {"observe": "wrist"}, ConfigError, "observation 'wrist' is unknown"),
        ({}, {"device": "abacus"}, ConfigError, "device 'abacus'.*--device cpu"),
        ({}, {"device": "cuda:99"}, ConfigError, "device 'cuda:99'.*--device cpu"),
        (None, {}, DatasetError, "no such dataset folder"),
        ({"episodes": 0}, {}, DatasetError, "no episode_.*ofrl collect"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_and_leaves_no_run(
    make_dataset, tmp_path, data, changes, error, message
):
    dataset = tmp_path / "nowhere" if data is None else make_dataset(**data)
    with pytest.raises(error, match=message) as caught:
        train(config(dataset, **changes), tmp_path / "runs" / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_bc_needs_no_reward(make_dataset, tmp_path):
    folder = train(config(make_dataset(reward=0.0), "bc"), tmp_path / "run")
    assert run_folder.checkpoint_steps(folder) == [3, 6, 7]


@pytest.mark.slow
def test_training_uses_the_chosen_episodes_and_their_relabelled_rewards(make_dataset, tmp_path):
    data = make_dataset(steps=8)
    names = [f"episode_{k:06d}.h5" for k in (4, 1)]
    (data / "splits.json").write_text(json.dumps({"train": names}))
    settings = {"split": "train", "num_traj": 1, "reward_scale": 2.0, "reward_bias": -1.0}
    chosen = config(data, "bc", steps=1, **settings)
    (store,) = Learner(chosen).data.stores
    folder = train(chosen, tmp_path / "run")
    np.testing.assert_array_equal(store.rewards, [-1] * 7 + [1])
    dataset = open_dataset(data)
    np.testing.assert_allclose(store.actions, read_episode(dataset.paths[1]).actions, atol=2e-5)
    header, _ = load_checkpoint(run_folder.checkpoint_path(folder, 1))
    assert header.dataset_fingerprint == dataset.fingerprint()  # the report looks for it


def test_a_batch_as_large_as_the_data_is_fine(make_dataset, tmp_path):
    assert train(
        config(make_dataset(), batch_size=30, steps=1, algo="bc"), tmp_path / "run"
    ).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["sampling", "saving"])
def test_ctrl_c_leaves_whole_checkpoints_and_their_metrics(
    make_dataset, tmp_path, monkeypatch, capsys, moment
):
    calls = []
    owner, name, last = {
        "sampling": (MixedSampler, "sample", 6),
        "saving": (files, "replace", 2),
    }[moment]
    real = getattr(owner, name)

    def interrupted(*args):
        if moment == "sampling" or "step_" in args[1].name:
            calls.append(args)
            if len(calls) == last:
                raise KeyboardInterrupt
        return real(*args)

    data = make_dataset()
    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config(data), tmp_path / "run")
    assert run_folder.checkpoint_steps(tmp_path / "run") == [3]
    Policy(run_folder.checkpoint_path(tmp_path / "run", 3)).warm_up()
    assert [row["step"] for row in run_folder.read_metrics(tmp_path / "run")] == [3]
    assert "--resume continues from step_0000003.safetensors" in capsys.readouterr().out


@pytest.mark.slow
def test_a_nan_ends_the_run_with_the_last_good_checkpoint_named(
    make_dataset, tmp_path, monkeypatch
):
    real = BC.losses

    def explode(self, batch):
        result = real(self, batch)
        if self.step >= 4:
            result.metrics["actor_loss"] = torch.tensor(float("nan"))
        return result

    monkeypatch.setattr(BC, "losses", explode)
    with pytest.raises(TrainingError, match="diverged at step 6: actor_loss is nan.*step_0000003"):
        train(config(make_dataset(), "bc"), tmp_path / "run")
    with open(str(tmp_path / "run" / "train.csv"), newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]


def test_a_q_function_that_diverges_ends_the_run(make_dataset, tmp_path):
    wild = dataclasses.replace(HYPER["cql"], critic_lr=30.0, clip_targets=False)
    with pytest.raises(TrainingError, match="diverged at step .* beyond 1e.03.*none; lower"):
        train(config(make_dataset(), algo_config=wild, log_every=1), tmp_path / "run")
    assert run_folder.checkpoint_steps(tmp_path / "run") == []


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_never_saved(make_dataset, tmp_path, monkeypatch):
    real = Algorithm.update

    def spoil(self, batch):
        values = real(self, batch)
        if self.step == 5:  # not in what is probed, and between two rows of losses
            next(self.actor.parameters()).data.view(-1)[0] = float("inf")
        return values

    monkeypatch.setattr(Algorithm, "update", spoil)
    slow = dataclasses.replace(HYPER["bc"], actor_average=1e-30)
    with pytest.raises(TrainingError, match="step 6: .*(actor.*not finite|nan).*step_0000003"):
        train(config(make_dataset(), "bc", algo_config=slow, log_every=100), tmp_path / "run")
    assert run_folder.checkpoint_steps(tmp_path / "run") == [3]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_can_go_on(make_dataset, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    data = make_dataset()
    with monkeypatch.context() as patch:
        patch.setattr("ofrl_robot.files.replace", full)
        with pytest.raises(OutputError, match="No space left.*--out") as caught:
            train(config(data, "bc"), tmp_path / "run")
        assert "\n" not in str(caught.value) and [p.name for p in tmp_path.iterdir()] == ["data"]
        patch.undo()
        patch.setattr("ofrl_robot.training.loop.save_state", full)
        with pytest.raises(TrainingError, match="step 3 .*No space left.*--resume"):
            train(config(data, "bc"), tmp_path / "run")
    train(config(data, "bc"), tmp_path / "run", resume=True)
    assert run_folder.checkpoint_steps(tmp_path / "run") == [3, 6, 7]


@pytest.mark.slow
def test_the_start_says_what_the_checkpoints_will_take(make_dataset, tmp_path, capsys):
    folder = train(config(make_dataset()), tmp_path / "run")
    out = capsys.readouterr().out
    path = run_folder.checkpoint_path(folder, 3)
    size = sum(w.nbytes for w in load_checkpoint(path)[1].values()) / 1e6
    assert f"checkpoints: 3 of {size:.2f} MB, all kept" in out
    assert "steps/s" in out and "checkpoint      6" in out


def test_checkpoints_that_cannot_fit_on_the_disk_are_refused(make_dataset, tmp_path, monkeypatch):
    data = make_dataset()
    monkeypatch.setattr(loop, "_free_mb", lambda folder: 0.05)
    with pytest.raises(OutputError, match="3 checkpoints of .* MB take .* MB, 0 MB are free"):
        train(config(data), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(OutputError, match="1000000000 checkpoints.*raise --checkpoint-every"):
        train(config(data, steps=10**9, checkpoint_every=1), tmp_path / "runs" / "run")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps(make_dataset, tmp_path):
    class Watch(Display):
        sizes = {}

        def losses(self, step, row):
            if step in (200, 600):
                gc.collect()
                self.sizes[step] = tracemalloc.get_traced_memory()[0]

    nets = NetConfig(latent=2, hidden=(2,), encoder="cog_small")
    long = config(make_dataset(size=12), "bc", nets=nets, batch_size=2, steps=600, log_every=5,
                  checkpoint_every=25)  # fmt: skip
    tracemalloc.start()
    try:
        train(long, tmp_path / "run", display=Watch())
    finally:
        tracemalloc.stop()
    assert Watch.sizes[600] - Watch.sizes[200] < 50e3  # bytes; 19e3 measured


@pytest.mark.parametrize("name", ["steps", "batch_size", "checkpoint_every", "probe_size",
                                  "log_every", "memory_mb"])  # fmt: skip
def test_a_count_below_one_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name} 0 is below 1"):
        TrainConfig(**{name: 0})


@pytest.mark.parametrize("name", ["threads", "seed", "num_traj"])
def test_a_number_below_zero_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name} -1 is below 0"):
        TrainConfig(**{name: -1})


@pytest.mark.parametrize(
    "settings",
    [{"latent": -1}, {"hidden": ()}, {"hidden": (8, 0)}, {"log_std_min": 3.0}],
)
def test_networks_that_cannot_be_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=list(settings)[0]):
        NetConfig(**settings)
