import fcntl
import json

import h5py
import numpy as np
import pytest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes import reader
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.replay import transition_store as frames
from ofrl_robot.data.replay.sampler import UniformSampler, gather
from ofrl_robot.data.replay.transition_store import open_transition_store
from ofrl_robot.errors import ConfigError, DatasetError

LENGTHS = (3, 1, 70, 5)
ALL = list(range(len(LENGTHS)))
MIB = 1 << 20
SMALL_MB = 5000 / MIB  # holds the rows of LENGTHS (3 kB), not its frames (9 kB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make):
    folder = tmp_path_factory.mktemp("dataset")
    for seed, steps in enumerate(LENGTHS):
        make.episode(folder, steps, seed, terminal=seed % 2 == 0)
    return folder


@pytest.fixture(params=[64, SMALL_MB], ids=["mapped", "read"])
def memory_mb(request):
    return request.param


@pytest.fixture()
def store(folder, tmp_path, memory_mb):
    return open_transition_store(open_dataset(folder), "image", tmp_path, memory_mb=memory_mb)


def everything(store):
    return gather([store], [np.arange(len(store))])


@pytest.mark.parametrize("chosen", [ALL, [0], [3], [1, 2], [0, 2, 3]], ids=str)
def test_every_transition_is_that_of_its_episode(folder, tmp_path, memory_mb, chosen):
    dataset = open_dataset(folder)
    store = open_transition_store(dataset, "image", tmp_path, chosen, memory_mb)
    assert store.frames.mapped == (memory_mb == 64)
    assert store.resident_bytes <= memory_mb * MIB
    assert store.fingerprint == dataset.fingerprint()
    lengths = [LENGTHS[k] for k in chosen]
    episodes = [read_episode(dataset.paths[k]) for k in chosen]
    batch = everything(store)

    def joined(rows):
        return np.concatenate([rows(e) for e in episodes])

    assert len(store) == sum(lengths)
    assert store.frames.shape[0] == sum(LENGTHS) + len(LENGTHS)  # each frame once
    np.testing.assert_array_equal(batch.images, joined(lambda e: e.images["image"][:-1]))
    np.testing.assert_array_equal(batch.next_images, joined(lambda e: e.images["image"][1:]))
    np.testing.assert_array_equal(batch.rewards, joined(lambda e: e.rewards))
    np.testing.assert_allclose(batch.actions, joined(lambda e: e.actions), atol=2e-5)
    np.testing.assert_array_equal(np.diff(store.starts), lengths)
    assert batch.images.dtype == np.uint8 and batch.actions.dtype == np.float32
    assert batch.images.flags.c_contiguous and batch.next_images.flags.c_contiguous
    np.testing.assert_array_equal(batch.steps, 1)
    # the action after is that of the next row, within the episode; the last one stands for none
    index = np.arange(sum(lengths))
    last = np.cumsum(lengths) - 1
    np.testing.assert_array_equal(batch.has_next_action, ~np.isin(index, last))
    following = np.where(batch.has_next_action, np.minimum(index + 1, index[-1]), index)
    np.testing.assert_array_equal(batch.next_actions, batch.actions[following])


def test_only_true_terminals_stop_the_bootstrap(folder, store):
    """Episodes 0 and 2 end in a terminal; 1 and 3 only ran out of time."""
    expected = np.zeros(sum(LENGTHS), bool)
    expected[[2, 73]] = True
    np.testing.assert_array_equal(store.terminals, expected)
    assert all(read_episode(p).timeouts[-1] for p in open_dataset(folder).paths[1::2])


def test_full_scale_actions_stay_inside_the_tanh(tmp_path, make):
    path, _, _ = make.episode(tmp_path)
    with h5py.File(str(path), "r+") as file:
        file["data/demo_0/actions"][:] = np.sign(file["data/demo_0/actions"][:])
    actions = open_transition_store(open_dataset(tmp_path), "image").actions
    assert np.isfinite(np.arctanh(actions)).all()


def test_sampler_is_fixed_by_its_seed(store):
    def draw(seed):
        sampler = UniformSampler(store, 8, seed)
        return np.array([sampler.sample().rewards.tobytes() + sampler.sample().actions.tobytes()
                         for _ in range(3)])  # fmt: skip

    assert (draw(1) == draw(1)).all() and (draw(1) != draw(2)).all()


@pytest.mark.parametrize("drawn", [0, 1, 5])
def test_a_restored_sampler_goes_on_with_the_same_batches(store, drawn):
    first, second = UniformSampler(store, 8, 1), UniformSampler(store, 8, 2)
    for _ in range(drawn):
        first.sample()
    state = json.loads(json.dumps(first.state()))  # as a file would hold it
    expected = [first.sample().actions for _ in range(3)]
    second.restore(state)
    assert json.loads(json.dumps(second.state())) == state
    np.testing.assert_array_equal([second.sample().actions for _ in range(3)], expected)


@pytest.mark.parametrize("state", [{}, {"bit_generator": "dice"}, None])
def test_what_is_no_state_of_a_sampler_is_refused(store, state):
    with pytest.raises((KeyError, TypeError, ValueError)):
        UniformSampler(store, 8, 1).restore(state)


def test_sampler_reaches_every_transition(store):
    sampler = UniformSampler(store, 4096, 0)
    assert len(np.unique(sampler.sample().actions, axis=0)) == len(store)


def _relabel(folder, make):
    with h5py.File(str(open_dataset(folder).paths[0]), "r+") as file:
        file["data/demo_0/rewards"][:] = 5.0


def _add(folder, make):
    make.episode(folder, 2, seed=9)


def _remove(folder, make):
    open_dataset(folder).paths[-1].unlink()


@pytest.mark.parametrize("change", [_relabel, _add, _remove])
def test_cache_is_built_once_and_again_when_data_changes(tmp_path, make, monkeypatch, change):
    for seed in range(2):
        make.episode(tmp_path, 3, seed)
    builds = []
    build = frames._build
    monkeypatch.setattr(frames, "_build", lambda *a: (builds.append(a), build(*a)))

    for _ in range(2):
        open_transition_store(open_dataset(tmp_path), "image")
    assert len(builds) == 1
    change(tmp_path, make)
    store = open_transition_store(open_dataset(tmp_path), "image")
    assert len(builds) == 2
    rewards = np.concatenate([read_episode(p).rewards for p in open_dataset(tmp_path).paths])
    np.testing.assert_array_equal(store.rewards, rewards)


def test_a_failed_build_leaves_nothing(tmp_path, make, monkeypatch):
    make.episode(tmp_path / "data", seed=0)
    path, _, _ = make.episode(tmp_path / "data", seed=1)
    dataset = open_dataset(tmp_path / "data")
    path.write_bytes(b"damaged after opening")
    with pytest.raises(DatasetError, match=path.name):
        open_transition_store(dataset, "image", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_processes_may_build_at_the_same_time(tmp_path, make, monkeypatch):
    make.episode(tmp_path)
    dataset, read = open_dataset(tmp_path), frames.read_episode

    def overtaken(*args, **kwargs):
        monkeypatch.setattr(frames, "read_episode", read)
        open_transition_store(dataset, "image")  # the other one finishes first
        return read(*args, **kwargs)

    monkeypatch.setattr(frames, "read_episode", overtaken)
    assert len(open_transition_store(dataset, "image")) == 5
    assert len(list((tmp_path / ".cache").iterdir())) == 1


@pytest.mark.parametrize("name", ["frames.u8", "actions", "rewards", "terminals", "store.json"])
def test_a_damaged_cache_names_the_folder_to_delete(tmp_path, make, name):
    make.episode(tmp_path)
    open_transition_store(open_dataset(tmp_path), "image")
    (damaged,) = (tmp_path / ".cache").glob(f"*/{name}")
    damaged.write_bytes(b"cut")
    with pytest.raises(DatasetError, match="delete") as caught:
        open_transition_store(open_dataset(tmp_path), "image")
    assert str(damaged.parent) in str(caught.value)


def test_frames_cut_while_they_are_read_are_noticed(folder, tmp_path):
    store = open_transition_store(open_dataset(folder), "image", tmp_path, memory_mb=SMALL_MB)
    (path,) = tmp_path.glob("*/frames.u8")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="ends early.*delete"):
        everything(store)


def test_a_bound_below_the_rows_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="79 transitions take 0.0 MiB.*--memory-mb") as caught:
        open_transition_store(open_dataset(folder), "image", tmp_path, memory_mb=0)
    assert str(folder) in str(caught.value)


def test_a_long_episode_is_stored_block_by_block(folder, tmp_path, monkeypatch):
    def in_blocks(path, camera):
        blocks = list(reader.iter_frames(path, camera, block_bytes=7 * 6 * 6 * 3 + 1))
        assert max(map(len, blocks)) <= 7
        return blocks

    whole = everything(open_transition_store(open_dataset(folder), "image", tmp_path / "a"))
    monkeypatch.setattr(frames, "iter_frames", in_blocks)
    blocks = everything(open_transition_store(open_dataset(folder), "image", tmp_path / "b"))
    np.testing.assert_array_equal(blocks.next_images, whole.next_images)


def test_an_episode_replaced_during_the_build_is_noticed(tmp_path, make, monkeypatch):
    path, _, _ = make.episode(tmp_path / "data", 5)
    other, _, _ = make.episode(tmp_path / "other", 4)
    dataset, read = open_dataset(tmp_path / "data"), frames.read_episode

    def trimmed_meanwhile(*args, **kwargs):
        episode = read(*args, **kwargs)
        other.replace(path)
        return episode

    monkeypatch.setattr(frames, "read_episode", trimmed_meanwhile)
    with pytest.raises(DatasetError, match="changed while it was read.*run again"):
        open_transition_store(dataset, "image")
    assert list((tmp_path / "data" / ".cache").iterdir()) == []


def test_what_a_killed_build_left_is_removed_and_a_running_one_is_not(folder, tmp_path):
    for name in ("dead", "alive"):
        (tmp_path / (f".building-{name}")).mkdir()
        (tmp_path / (f".building-{name}") / "frames.u8").write_bytes(b"half of it")
    with open(str(tmp_path / ".building-alive" / "frames.u8"), "rb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)  # as a build holds while it runs
        open_transition_store(open_dataset(folder), "image", tmp_path)
        assert [p.name for p in tmp_path.glob(".building-*")] == [".building-alive"]


def test_a_build_holds_the_lock_that_says_it_runs(folder, tmp_path, monkeypatch):
    read, locked = frames.read_episode, []

    def look(*args, **kwargs):
        (path,) = tmp_path.glob(".building-*/frames.u8")
        with open(str(path), "rb") as file, pytest.raises(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(path)
        return read(*args, **kwargs)

    monkeypatch.setattr(frames, "read_episode", look)
    open_transition_store(open_dataset(folder), "image", tmp_path)
    assert len(locked) == len(LENGTHS)


def test_stores_of_an_older_layout_go_and_those_of_other_cameras_stay(tmp_path, make):
    make.episode(tmp_path)
    for name in ("0123456789abcdef-image-1", "0123456789abcdef-other-image-1"):
        (tmp_path / ".cache" / name).mkdir(parents=True)
    open_transition_store(open_dataset(tmp_path), "image")
    names = sorted(p.name[17:] for p in (tmp_path / ".cache").iterdir())
    assert names == ["image-2", "other-image-1"]
