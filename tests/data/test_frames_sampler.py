import h5py
import numpy as np
import pytest

from ofrl_robot.data import frames
from ofrl_robot.data.frames import frame_store
from ofrl_robot.data.reader import open_dataset, read_episode
from ofrl_robot.data.sampler import UniformSampler, gather
from ofrl_robot.errors import DatasetError

LENGTHS = (3, 1, 70, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make):
    folder = tmp_path_factory.mktemp("dataset")
    for seed, steps in enumerate(LENGTHS):
        make.episode(folder, steps, seed, terminal=seed % 2 == 0)
    return folder


@pytest.fixture()
def store(folder, tmp_path):
    return frame_store(open_dataset(folder), "image", tmp_path)


def test_every_transition_is_that_of_its_episode(folder, store):
    episodes = [read_episode(path) for path in open_dataset(folder).paths]
    batch = gather(store, np.arange(len(store)))

    def joined(rows):
        return np.concatenate([rows(e) for e in episodes])

    assert len(store) == sum(LENGTHS)
    assert len(store.frames) == sum(LENGTHS) + len(LENGTHS)  # each frame once
    np.testing.assert_array_equal(batch.images, joined(lambda e: e.images["image"][:-1]))
    np.testing.assert_array_equal(batch.next_images, joined(lambda e: e.images["image"][1:]))
    np.testing.assert_array_equal(batch.rewards, joined(lambda e: e.rewards))
    np.testing.assert_allclose(batch.actions, joined(lambda e: e.actions), atol=2e-5)
    np.testing.assert_array_equal(store.episode, np.repeat(np.arange(len(LENGTHS)), LENGTHS))
    assert batch.images.dtype == np.uint8 and batch.actions.dtype == np.float32


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
    actions = frame_store(open_dataset(tmp_path), "image").actions
    assert np.isfinite(np.arctanh(actions)).all()


def test_sampler_is_fixed_by_its_seed(store):
    def draw(seed):
        sampler = UniformSampler(store, 8, seed)
        return np.array([sampler.sample().rewards.tobytes() + sampler.sample().actions.tobytes()
                         for _ in range(3)])  # fmt: skip

    assert (draw(1) == draw(1)).all() and (draw(1) != draw(2)).all()


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
        frame_store(open_dataset(tmp_path), "image")
    assert len(builds) == 1
    change(tmp_path, make)
    store = frame_store(open_dataset(tmp_path), "image")
    assert len(builds) == 2
    rewards = np.concatenate([read_episode(p).rewards for p in open_dataset(tmp_path).paths])
    np.testing.assert_array_equal(store.rewards, rewards)


def test_a_failed_build_leaves_nothing(tmp_path, make, monkeypatch):
    make.episode(tmp_path / "data", seed=0)
    path, _, _ = make.episode(tmp_path / "data", seed=1)
    dataset = open_dataset(tmp_path / "data")
    path.write_bytes(b"damaged after opening")
    with pytest.raises(DatasetError, match=path.name):
        frame_store(dataset, "image", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_processes_may_build_at_the_same_time(tmp_path, make, monkeypatch):
    make.episode(tmp_path)
    dataset, read = open_dataset(tmp_path), frames.read_episode

    def overtaken(*args):
        monkeypatch.setattr(frames, "read_episode", read)
        frame_store(dataset, "image")  # the other one finishes first
        return read(*args)

    monkeypatch.setattr(frames, "read_episode", overtaken)
    assert len(frame_store(dataset, "image")) == 5
    assert len(list((tmp_path / ".cache").iterdir())) == 1


@pytest.mark.parametrize("name", ["frames.u8", "transitions.npz", "store.json"])
def test_a_damaged_cache_names_the_folder_to_delete(tmp_path, make, name):
    make.episode(tmp_path)
    frame_store(open_dataset(tmp_path), "image")
    (damaged,) = (tmp_path / ".cache").glob("*/" + name)
    damaged.write_bytes(b"cut")
    with pytest.raises(DatasetError, match="delete") as caught:
        frame_store(open_dataset(tmp_path), "image")
    assert str(damaged.parent) in str(caught.value)
