import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.splits import select
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.replay.array_file import ArrayFile
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.data.replay.returns import monte_carlo
from ofrl_robot.data.replay.sampler import MixedSampler, batch_counts
from ofrl_robot.data.replay.sources import Source, open_sources
from ofrl_robot.errors import ConfigError, DatasetError, SpecMismatchError

PRIOR, TASK = (4, 1, 6, 3), (5, 2, 9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make):
    """Prior and task data; every episode ends with reward 1, every other one in a terminal."""
    root = tmp_path_factory.mktemp("mixing")
    seed = 0
    for name, lengths in (("prior", PRIOR), ("task", TASK)):
        for steps in lengths:
            make.episode(root / name, steps, seed, terminal=seed % 2 == 0)
            seed += 1
    names = [p.name for p in open_dataset(root / "prior").paths]
    splits = {"train": [names[3], names[0], "episode_000099.h5"], "valid": [names[2]], "none": []}
    (root / "prior" / "splits.json").write_text(json.dumps(splits))
    return root / "prior", root / "task"


@pytest.fixture()
def stores(folders):
    prior, task = folders
    sources = [Source(prior, reward_scale=0.0), Source(task, reward_scale=10.0, reward_bias=-1.0)]
    return [opened.store for opened in open_sources(sources)]


def rows_of(batch, store):
    """The transition of ``store`` that each action of the batch is, -1 where it is another's."""
    same = (batch.actions[:, None] == store.actions).all(-1)
    return np.where(same.any(1), same.argmax(1), -1)


def test_every_batch_holds_the_same_share_of_each(stores):
    sampler = MixedSampler(ReplayBuffer(stores, [0.3, 0.7]), 10, seed=0)
    seen = [set(), set()]
    for _ in range(60):
        batch = sampler.sample()
        rows = [rows_of(batch, store) for store in stores]
        assert (rows[0][:3] >= 0).all() and (rows[1][3:] >= 0).all()
        assert (rows[0][3:] == -1).all() and (rows[1][:3] == -1).all()
        for k in range(2):
            seen[k] |= set(rows[k][rows[k] >= 0])
    assert [len(s) for s in seen] == [sum(PRIOR), sum(TASK)]  # and all of each


def test_rewards_are_relabelled_per_dataset(folders, stores):
    recorded = [read_episode(p).rewards for p in open_dataset(folders[1]).paths]
    np.testing.assert_array_equal(stores[1].rewards, np.concatenate(recorded) * 10 - 1)
    np.testing.assert_array_equal(stores[0].rewards, np.zeros(sum(PRIOR)))


def test_a_mix_is_fixed_by_its_seed(stores):
    def draw(seed):
        sampler = MixedSampler(ReplayBuffer(stores, [0.5, 0.5]), 8, seed)
        return [sampler.sample().actions.tobytes() for _ in range(3)]

    assert draw(1) == draw(1) and draw(1) != draw(2)


@pytest.mark.parametrize("memory_mb", [64, 2e-3], ids=["mapped", "read"])
def test_n_step_batches_show_the_frame_that_many_steps_on(folders, memory_mb):
    """Rewards, frames and actions of each drawn transition, found again in the episode files."""
    opened = open_sources([Source(f) for f in folders], memory_mb=memory_mb)
    stores = [o.store for o in opened]
    assert stores[1].observations["image"].mapped == (memory_mb == 64)
    n, discount = 3, 0.5
    batch = MixedSampler(ReplayBuffer(stores, [0.5, 0.5], n, discount), 64, 0).sample()
    images, next_images = batch.observations["image"], batch.next_observations["image"]
    seen = set()
    known = {}
    for source in opened:
        for path in source.dataset.paths:
            episode = read_episode(path)
            frames, rewards = episode.images["image"], episode.rewards.astype(np.float32)
            ends = np.array([0, len(episode)])
            returns = monte_carlo(rewards, episode.terminals, ends, discount)
            for k in range(len(episode)):
                known[frames[k].tobytes()] = (episode, k, frames, rewards, returns)
    for i in range(64):
        episode, k, frames, rewards, returns = known[images[i].tobytes()]
        steps = min(n, len(episode) - k)
        seen.add(steps)
        np.testing.assert_array_equal(next_images[i], frames[k + steps])
        window = rewards[k : k + steps] * discount ** np.arange(steps)
        assert batch.rewards[i] == pytest.approx(window.sum())
        alive = not episode.terminals[k + steps - 1]
        assert batch.bootstrap[i] == pytest.approx(alive * discount**steps)
        assert batch.returns[i] == pytest.approx(returns[k])
        assert batch.has_next_action[i] == (k + steps < len(episode))
        following = episode.actions[min(k + steps, len(episode) - 1)]
        np.testing.assert_allclose(batch.next_actions[i], following, atol=2e-5)
    assert seen == {1, 2, 3}


def test_the_memory_bound_holds_for_all_together(folders):
    alone = [open_sources([Source(f)])[0].store.resident_bytes for f in folders]
    both = sum(alone) / (1 << 20)
    whole = [o.store for o in open_sources([Source(f) for f in folders], memory_mb=both)]
    assert [s.observations["image"].mapped for s in whole] == [True, True]
    tight = [o.store for o in open_sources([Source(f) for f in folders], memory_mb=both - 1e-3)]
    assert [s.observations["image"].mapped for s in tight] == [True, False]
    assert sum(s.resident_bytes for s in tight) < both * (1 << 20)


def test_different_specs_are_refused_and_both_folders_named(folders, tmp_path, make):
    meta = make.meta()
    narrow = dataclasses.replace(meta.action_spec, scale=(0.1,) + meta.action_spec.scale[1:])
    make.episode(tmp_path / "narrow", meta=dataclasses.replace(meta, action_spec=narrow))
    make.episode(tmp_path / "large", size=8)
    make.episode(tmp_path / "fast", meta=dataclasses.replace(meta, control_rate_hz=50.0))
    for name in ("narrow", "large", "fast"):
        with pytest.raises(SpecMismatchError) as caught:
            open_sources([Source(folders[0]), Source(tmp_path / name)])
        assert str(folders[0]) in str(caught.value) and name in str(caught.value)
    with pytest.raises(ConfigError, match="observation 'wrist' is unknown"):
        open_sources([Source(folders[0])], observe=("wrist",))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"first": 2}, [0, 1]),
        ({"first": 9}, [0, 1, 2, 3]),
        ({"split": "train"}, [0, 3]),  # in the dataset's order, without the one that is gone
        ({"split": "train", "first": 1}, [0]),
        ({"split": "valid"}, [2]),
    ],
    ids=str,
)
def test_episodes_are_chosen_by_split_and_number(folders, options, expected):
    dataset = open_dataset(folders[0])
    assert select(dataset, **options) == expected
    (opened,) = open_sources([Source(folders[0], **options)])
    assert opened.dataset.lengths == [PRIOR[k] for k in expected]
    assert len(opened.store) == sum(PRIOR[k] for k in expected)


def test_a_split_that_cannot_be_used_is_named(folders, tmp_path, make):
    prior, task = (open_dataset(f) for f in folders)
    with pytest.raises(ConfigError, match="no split 'test', there is none, train, valid"):
        select(prior, split="test")
    with pytest.raises(DatasetError, match="none of its episodes is in split 'none'"):
        select(prior, split="none")
    with pytest.raises(DatasetError, match="no splits.json.*ofrl data split"):
        select(task, split="train")
    make.episode(tmp_path)
    for text in ("{", "[]", '{"train": 3}', '{"train": [3]}', "\xff"):
        (tmp_path / "splits.json").write_text(text, encoding="latin-1")
        with pytest.raises(DatasetError, match="splits.json.*ofrl data split"):
            select(open_dataset(tmp_path), split="train")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 300))
def test_counts_of_a_batch_are_the_fractions_to_the_nearest(weights, batch_size):
    fractions = [w / sum(weights) for w in weights]
    shares = np.array(fractions) * batch_size
    try:
        counts = batch_counts(fractions, batch_size)
    except ConfigError:
        assert (shares < 1).any()
        return
    assert sum(counts) == batch_size and min(counts) > 0
    assert np.abs(counts - shares).max() < 1


@pytest.mark.parametrize("fractions", [[0.5, 0.6], [1.0, 0.0], [1.5, -0.5], [float("nan"), 0.5]])
def test_fractions_that_cannot_be_are_refused(fractions):
    with pytest.raises(ConfigError, match="fractions.*of sum 1"):
        batch_counts(fractions, 10)


def test_a_share_too_small_for_the_batch_is_refused():
    with pytest.raises(ConfigError, match="batch of 4 has no transition for a fraction of 0.01"):
        batch_counts([0.99, 0.01], 4)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda s: Source("x", first=-1), "first -1"),
        (lambda s: Source("x", reward_scale=float("nan")), "reward_scale is nan"),
        (lambda s: Source("x", reward_bias=float("inf")), "reward_bias is inf"),
        (lambda s: ReplayBuffer(s, [0.5, 0.5], 0), "0-step"),
        (lambda s: ReplayBuffer(s, [0.5, 0.5], 1, 1.5), "discount 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(stores, make_bad, message):
    with pytest.raises(ConfigError, match=message):
        make_bad(stores)


def test_sampling_fetches_the_frames_of_the_batch_after_and_drawing_none(folders, monkeypatch):
    opened = open_sources([Source(f) for f in folders], memory_mb=2e-3)
    buffer = ReplayBuffer([o.store for o in opened], [0.5, 0.5], n_step=2)
    fetched, read = [], []
    read_rows = ArrayFile.read
    monkeypatch.setattr(ArrayFile, "prefetch", lambda *a: fetched.append((a[1], a[2])))
    monkeypatch.setattr(ArrayFile, "read", lambda *a: read.append((a[1], a[2])) or read_rows(*a))
    sampler = MixedSampler(buffer, 8, seed=0)
    sampler.draw()
    assert not fetched
    sampler.sample()
    asked, fetched[:] = list(fetched), []
    read.clear()
    sampler.sample()
    assert len(asked) == len(read) == 2
    for (first, second), (a, b) in zip(asked, read):
        assert np.array_equal(first, a) and np.array_equal(second, b)
