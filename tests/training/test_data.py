"""Task and prior data together: rewards, shares, held-out split; what is refused."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.splits import split
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.errors import ConfigError, DatasetError, SpecMismatchError
from ofrl_robot.training import run_folder
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.loop import train
from ofrl_robot.training.probe import Probe
from tests.training.small_run import HYPER, config


@pytest.fixture
def both(make_dataset):
    """Task data of 6 episodes of 5 steps and prior data of 12, with successes and rewards."""
    return make_dataset(), make_dataset("prior", episodes=12)


def make_all_ones(folder):
    """Reward 1 at every step."""
    for path in open_dataset(folder).paths:
        with h5py.File(str(path), "r+") as file:
            file["data/demo_0/rewards"][:] = 1.0
    return folder


def test_prior_rewards_count_as_zero_and_get_the_bias(both):
    task, prior = both
    data = Learner(config(task, prior=prior, reward_scale=10.0, reward_bias=-2.0)).data
    np.testing.assert_array_equal(data.stores[0].rewards, [-2, -2, -2, -2, 8] * 6)
    np.testing.assert_array_equal(data.stores[1].rewards, [-2] * 60)
    assert data.reward_range == (-2.0, 8.0)


def test_the_range_of_rewards_covers_the_prior_too(both):
    task, prior = both
    learner = Learner(config(make_all_ones(task), prior=prior))
    assert learner.data.reward_range == (0.0, 1.0)
    assert learner.algorithm.value_limits == pytest.approx((0.0, 10.0))


@pytest.fixture
def labelled(make_dataset):
    """Function (successes) -> dataset of 6 episodes of 5 steps, of which so many succeeded.

    Their rewards are on the last step only, whatever the label."""

    def make(successes):
        folder = make_dataset(f"labelled{successes}")
        for k, path in enumerate(open_dataset(folder).paths):
            with h5py.File(str(path), "r+") as file:
                file["data/demo_0"].attrs["success"] = int(k < successes)
                file["data/demo_0/terminals"][-1] = False  # an operator's stop
                file["data/demo_0/timeouts"][-1] = True
        return folder

    return make


def test_a_success_can_be_a_terminal_and_its_last_steps_rewarded(labelled):
    """Without rewriting data whose rewards are on the last step only; the prior is left alone."""
    folder = labelled(2)
    plain = Learner(config(folder)).data.stores[0]
    assert not plain.terminals.any()
    options = {"terminal_on_success": True, "reward_last": 3, "reward_bias": -1.0}
    store = Learner(config(folder, **options)).data.stores[0]
    succeeded = [[-1, -1, 0, 0, 0]] * 2
    np.testing.assert_array_equal(store.rewards.reshape(6, 5), succeeded + [[-1] * 5] * 4)
    ends = [[False] * 4 + [True]] * 2
    np.testing.assert_array_equal(store.terminals.reshape(6, 5), ends + [[False] * 5] * 4)
    longer = Learner(config(folder, reward_last=9)).data.stores[0]
    np.testing.assert_array_equal(longer.rewards.reshape(6, 5), [[1] * 5] * 2 + [[0] * 5] * 4)
    fingerprints = {
        Learner(config(folder, **chosen)).data.fingerprint
        for chosen in ({}, {"reward_last": 3}, {"terminal_on_success": True})
    }
    assert len(fingerprints) == 3  # a run is not resumed on other rewards


def test_a_terminal_success_ends_the_backup(labelled):
    """Without it the value of the last observation, which no transition starts from, counts."""
    folder = labelled(6)
    for terminal, expected in ((False, 0.9), (True, 0.0)):
        buffer = Learner(config(folder, terminal_on_success=terminal)).data.buffer
        assert buffer.gather([np.array([4])]).bootstrap.tolist() == pytest.approx([expected])


def test_filtered_cloning_trains_on_successes_only(labelled):
    folder = labelled(2)
    data = Learner(config(folder, "bc", successes_only=True)).data
    assert len(data.stores[0]) == 10 and data.dataset.successes == 2
    with pytest.raises(DatasetError, match="not one of 6 episodes is labelled a success.*label"):
        Learner(config(labelled(0), "bc", successes_only=True))


@pytest.mark.slow
def test_a_fitted_behaviour_policy_holds_out_every_20th_episode(make_dataset):
    """Also of the chosen ones; fewer than 20 are too few, and a split valid is held out instead."""
    folder = make_dataset(episodes=41)
    whole = Learner(config(folder, "brac")).data
    assert [len(whole.stores[0]), len(whole.valid)] == [39 * 5, 2 * 5]
    paths = open_dataset(folder).paths
    assert whole.dataset.paths == [p for k, p in enumerate(paths) if k not in (19, 39)]
    first = Learner(config(folder, "brac", num_traj=20)).data
    assert [len(first.stores[0]), len(first.valid)] == [19 * 5, 5]
    assert Learner(config(folder, "brac", num_traj=19)).data.valid is None
    assert Learner(config(folder)).data.valid is None
    split(folder, 0.2)
    with_split = Learner(config(folder, "brac", split="train")).data
    assert len(with_split.stores[0]) + len(with_split.valid) == 41 * 5
    assert len(with_split.valid) > 2 * 5


@pytest.mark.slow
def test_the_behaviour_policy_is_validated_while_it_is_fitted(make_dataset, tmp_path):
    algo = dataclasses.replace(HYPER["brac"], warm_start_steps=4)
    learner = Learner(config(make_dataset(episodes=20), "brac", algo))
    seen, real = [], learner.algorithm.validated

    def note(metrics):
        seen.append((learner.step, metrics["behavior_loss"]))
        real(metrics)

    learner.algorithm.validated = note
    while learner.step < 6:
        learner.update()
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    best = min(loss for _, loss in seen)
    assert learner.measure()["valid_behavior_loss"] == pytest.approx(best, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("fraction", "share"), [(None, 6 / 9), (0.25, 2 / 8)])
def test_batches_and_probe_hold_the_same_share_of_the_prior(both, monkeypatch, fraction, share):
    task, prior = make_all_ones(both[0]), both[1]  # a reward of 0 is one of the prior's
    settings = {"prior_fraction": fraction, "batch_size": 8 if fraction else 9, "probe_size": 24}
    learner = Learner(config(task, prior=prior, **settings))
    for _ in range(3):
        assert np.mean(learner.sampler.sample().rewards == 0) == pytest.approx(share)
    real, seen = learner.algorithm.probe, []
    monkeypatch.setattr(learner.algorithm, "probe", lambda b: (seen.append(b.rewards), real(b))[1])
    learner.measure()
    rewards = np.concatenate(seen)
    assert len(rewards) == 24 and np.mean(rewards == 0) == pytest.approx(share, abs=1 / 24)


def test_a_probe_keeps_the_mix_where_one_dataset_is_small(both):
    task, prior = both
    stores = Learner(config(task, prior=prior)).data.stores  # 30 and 60 transitions
    probe = Probe(ReplayBuffer(stores, [0.75, 0.25]), 4096, 0)
    assert [sum(len(chunk[k]) for chunk in probe._chunks) for k in range(2)] == [30, 10]


def test_num_traj_takes_the_first_of_both(both):
    task, prior = both
    data = Learner(config(task, prior=prior, num_traj=2)).data
    assert [len(store) for store in data.stores] == [10, 10]
    assert data.buffer.fractions == [0.5, 0.5]


@pytest.mark.slow
def test_the_config_names_both_folders(both, tmp_path):
    task, prior = both
    folder = train(config(task, prior=prior), tmp_path / "run")
    stored = run_folder.read_config(folder)
    assert (stored["dataset"], stored["prior"]) == (str(task), str(prior))
    assert f"prior: {prior}\n" in (folder / "config.yaml").read_text()


@pytest.mark.slow
def test_the_held_out_split_is_measured_too(make_dataset, tmp_path):
    data = make_dataset()
    names = [path.name for path in open_dataset(data).paths]
    splits = {"train": names[:4], "valid": names[4:], "seed": 0}
    (data / "splits.json").write_text(json.dumps(splits))
    folder = train(config(data, split="train"), tmp_path / "run")
    rows = run_folder.read_metrics(folder)
    held_out = {"valid_data_q", "valid_td_error", "valid_cql_term", "valid_data_log_prob"}
    assert {name for name in rows[0] if name.startswith("valid")} == held_out
    assert all(np.isfinite(row["valid_data_q"]) for row in rows)
    learner = Learner(config(data, split="train"))
    assert len(learner.data.stores) == 1 and len(learner.data.stores[0]) == 20
    assert len(learner.data.valid) == 10  # and is not trained on
    assert Learner(config(data)).data.valid is None
    assert Learner(config(data, split="valid")).data.valid is None


def no_number(folder):
    with h5py.File(str(open_dataset(folder).paths[2]), "r+") as file:
        file["data/demo_0/rewards"][:2] = [np.nan, np.inf]


@pytest.mark.parametrize("bad", [0, 1])
def test_rewards_that_are_no_numbers_are_refused_with_their_dataset(both, tmp_path, bad):
    no_number(both[bad])
    with pytest.raises(DatasetError, match="rewards are not finite") as caught:
        train(config(both[0], prior=both[1]), tmp_path / "run")
    assert str(caught.value).startswith(str(both[bad]))
    assert not (tmp_path / "run").exists()


def test_rewards_that_are_scaled_out_of_range_are_refused(both, tmp_path):
    with pytest.raises(ConfigError, match="beyond float32; lower --reward-scale"):
        train(config(both[0], prior=both[1], reward_scale=1e39), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "changes", "error", "message"),
    [
        ({"reward": 0.0}, {}, DatasetError, "task: every reward is zero"),
        ({"success": 0}, {}, DatasetError, "task: not one of 6 episodes"),
        ({}, {"batch_size": 91}, DatasetError, "90 transitions, fewer than one batch of 91"),
        ({"size": 20}, {}, SpecMismatchError, "prior.*task.*differ"),
        ({}, {"prior_fraction": 0.01}, ConfigError, "a batch of 8 has no transition"),
    ],
)
def test_the_task_must_teach_something(make_dataset, tmp_path, task, changes, error, message):
    folders = make_dataset("task", **task), make_dataset("prior", episodes=12)
    with pytest.raises(error, match=message):
        train(config(folders[0], prior=folders[1], **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_that_exclude_each_other_are_refused(both):
    task, prior = both
    with pytest.raises(ConfigError, match="prior_fraction does nothing without prior data"):
        config(task, prior_fraction=0.5)
    with pytest.raises(ConfigError, match="prior and task data are the same folder"):
        config(task, prior=task.parent / "prior" / ".." / task.name)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="prior_fraction .* is not in"):
            config(task, prior=prior, prior_fraction=fraction)
