"""The files of a transition store, and what transitions drawn from it hold."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ofrl_robot.control.signals import HUMAN, AppliedAction, Tick
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes import reader
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.data.replay import store_cache
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.data.replay.sampler import MixedSampler
from ofrl_robot.data.replay.transition_store import open_transition_store
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import STATE, WIDOWX_ACTION, CameraSpec, ObservationSpec

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
    return open_transition_store(open_dataset(folder), (), tmp_path, memory_mb=memory_mb)


def everything(store):
    return ReplayBuffer([store], [1.0]).gather([np.arange(len(store))])


def sampler_of(store, batch_size, seed):
    return MixedSampler(ReplayBuffer([store], [1.0]), batch_size, seed)


@pytest.mark.parametrize("chosen", [ALL, [0], [3], [1, 2], [0, 2, 3]], ids=str)
def test_every_transition_is_that_of_its_episode(folder, tmp_path, memory_mb, chosen):
    dataset = open_dataset(folder)
    store = open_transition_store(dataset, ("image",), tmp_path, chosen, memory_mb)
    assert store.observations["image"].mapped == (memory_mb == 64)
    assert store.resident_bytes <= memory_mb * MIB
    assert store.fingerprint == dataset.fingerprint()
    lengths = [LENGTHS[k] for k in chosen]
    episodes = [read_episode(dataset.paths[k]) for k in chosen]
    batch = everything(store)

    images, next_images = batch.observations["image"], batch.next_observations["image"]

    def joined(rows):
        return np.concatenate([rows(e) for e in episodes])

    assert len(store) == sum(lengths)
    assert store.observations["image"].shape[0] == sum(LENGTHS) + len(LENGTHS)  # each frame once
    np.testing.assert_array_equal(images, joined(lambda e: e.images["image"][:-1]))
    np.testing.assert_array_equal(next_images, joined(lambda e: e.images["image"][1:]))
    np.testing.assert_array_equal(batch.rewards, joined(lambda e: e.rewards))
    np.testing.assert_allclose(batch.actions, joined(lambda e: e.actions), atol=2e-5)
    np.testing.assert_array_equal(np.diff(store.starts), lengths)
    assert images.dtype == np.uint8 and batch.actions.dtype == np.float32
    assert images.flags.c_contiguous and next_images.flags.c_contiguous
    np.testing.assert_array_equal(batch.bootstrap, ~store.terminals)
    # the action after is that of the next row, within the episode; the last one stands for none
    index = np.arange(sum(lengths))
    last = np.cumsum(lengths) - 1
    np.testing.assert_array_equal(batch.has_next_action, ~np.isin(index, last))
    following = np.where(batch.has_next_action > 0, np.minimum(index + 1, index[-1]), index)
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
    actions = open_transition_store(open_dataset(tmp_path)).actions
    assert np.isfinite(np.arctanh(actions)).all()


def test_sampler_is_fixed_by_its_seed(store):
    def draw(seed):
        sampler = sampler_of(store, 8, seed)
        return np.array([sampler.sample().rewards.tobytes() + sampler.sample().actions.tobytes()
                         for _ in range(3)])  # fmt: skip

    assert (draw(1) == draw(1)).all() and (draw(1) != draw(2)).all()


@pytest.mark.parametrize("drawn", [0, 1, 5])
def test_a_restored_sampler_goes_on_with_the_same_batches(store, drawn):
    first, second = sampler_of(store, 8, 1), sampler_of(store, 8, 2)
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
        sampler_of(store, 8, 1).restore(state)


def test_sampler_reaches_every_transition(store):
    sampler = sampler_of(store, 4096, 0)
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
    build = store_cache._build_missing
    monkeypatch.setattr(store_cache, "_build_missing", lambda *a: (builds.append(a), build(*a)))

    for _ in range(2):
        open_transition_store(open_dataset(tmp_path))
    assert len(builds) == 1
    change(tmp_path, make)
    store = open_transition_store(open_dataset(tmp_path))
    assert len(builds) == 2
    rewards = np.concatenate([read_episode(p).rewards for p in open_dataset(tmp_path).paths])
    np.testing.assert_array_equal(store.rewards, rewards)


def test_a_failed_build_leaves_nothing(tmp_path, make, monkeypatch):
    make.episode(tmp_path / "data", seed=0)
    path, _, _ = make.episode(tmp_path / "data", seed=1)
    dataset = open_dataset(tmp_path / "data")
    path.write_bytes(b"damaged after opening")
    with pytest.raises(DatasetError, match=path.name):
        open_transition_store(dataset, ("image",), tmp_path / "cache")
    assert names_in(tmp_path / "cache") == [".lock"]


@pytest.mark.parametrize("name", ["frames", "actions", "rewards", "terminals"])
def test_a_damaged_cache_names_the_folder_to_delete(tmp_path, make, name):
    make.episode(tmp_path)
    open_transition_store(open_dataset(tmp_path))
    (damaged,) = (tmp_path / ".cache").glob(f"*/{name}")
    damaged.write_bytes(b"cut")
    with pytest.raises(DatasetError, match="delete") as caught:
        open_transition_store(open_dataset(tmp_path))
    assert str(damaged.parent) in str(caught.value)


def test_frames_cut_while_they_are_read_are_noticed(folder, tmp_path):
    store = open_transition_store(open_dataset(folder), ("image",), tmp_path, memory_mb=SMALL_MB)
    (path,) = tmp_path.glob("*/frames")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="ends early.*delete"):
        everything(store)


def test_a_bound_below_the_rows_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="79 transitions take 0.0 MiB.*--memory-mb") as caught:
        open_transition_store(open_dataset(folder), ("image",), tmp_path, memory_mb=0)
    assert str(folder) in str(caught.value)


def test_a_long_episode_is_stored_block_by_block(folder, tmp_path, monkeypatch):
    def in_blocks(path, camera):
        blocks = list(reader.iter_frames(path, camera, block_bytes=7 * 6 * 6 * 3 + 1))
        assert max(map(len, blocks)) <= 7
        return blocks

    whole = everything(open_transition_store(open_dataset(folder), ("image",), tmp_path / "a"))
    monkeypatch.setattr(store_cache, "iter_frames", in_blocks)
    blocks = everything(open_transition_store(open_dataset(folder), ("image",), tmp_path / "b"))
    for name, frames in whole.next_observations.items():
        np.testing.assert_array_equal(blocks.next_observations[name], frames)


def test_an_episode_replaced_during_the_build_is_noticed(tmp_path, make, monkeypatch):
    path, _, _ = make.episode(tmp_path / "data", 5)
    other, _, _ = make.episode(tmp_path / "other", 4)
    dataset, read = open_dataset(tmp_path / "data"), store_cache.read_episode

    def trimmed_meanwhile(*args, **kwargs):
        episode = read(*args, **kwargs)
        other.replace(path)
        return episode

    monkeypatch.setattr(store_cache, "read_episode", trimmed_meanwhile)
    with pytest.raises(DatasetError, match="changed while it was read.*run again"):
        open_transition_store(dataset)
    assert names_in(tmp_path / "data" / ".cache") == [".lock"]


RACE = """
import multiprocessing, sys
from pathlib import Path
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.replay.transition_store import open_transition_store

def work(barrier):
    dataset = open_dataset(Path(sys.argv[1]))
    for number in range(60):
        barrier.wait(60)
        try:
            open_transition_store(dataset, cache=Path(sys.argv[2]) / str(number))
        except Exception as error:
            print(error, flush=True)

fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(4)
processes = [fork.Process(target=work, args=(barrier,)) for _ in range(4)]
for process in processes:
    process.start()
for process in processes:
    process.join()
"""


@pytest.mark.slow
def test_processes_that_open_a_fresh_dataset_at_once_do_not_disturb_each_other(tmp_path, make):
    """60 times 4 processes; without a common lock a few of them failed."""
    make.episode(tmp_path / "data", 2)
    words = [sys.executable, "-c", RACE, tmp_path / "data", tmp_path / "caches"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for cache in (tmp_path / "caches").iterdir():
        assert len(names_in(cache)) == 3  # rows, the camera, the lock


def test_a_build_waits_for_the_lock_and_then_finds_the_files(tmp_path, make, monkeypatch):
    make.episode(tmp_path)
    dataset, built = open_dataset(tmp_path), []
    real = store_cache._locked

    def overtaken(root):
        monkeypatch.setattr(store_cache, "_locked", real)
        open_transition_store(dataset)  # another process has the lock first
        monkeypatch.setattr(store_cache, "_build", lambda *a: built.append(a))
        return real(root)

    monkeypatch.setattr(store_cache, "_locked", overtaken)
    assert len(open_transition_store(dataset)) == 5 and not built


def test_what_a_killed_build_left_is_removed(folder, tmp_path):
    (tmp_path / ".building-killed").mkdir()
    (tmp_path / ".building-killed" / "frames").write_bytes(b"half of it")
    open_transition_store(open_dataset(folder), (), tmp_path)
    assert not list(tmp_path.glob(".building-*"))


def test_parts_of_an_older_layout_or_dataset_are_removed(tmp_path, make):
    make.episode(tmp_path)
    cache = tmp_path / ".cache"
    for name in ("0123456789abcdef-image-2", "0123456789abcdef-camera-image-3", "my notes"):
        (cache / name).mkdir(parents=True)
    open_transition_store(open_dataset(tmp_path))
    names = [name.partition("-")[2] or name for name in names_in(cache)]
    assert sorted(names) == [".lock", "camera-image-3", "my notes", "rows-3"]


# -- several cameras and the state -------------------------------------------------------------


@pytest.fixture
def rich(tmp_path):
    """Two episodes with two cameras and a state of 3; returns their folder."""
    cameras = (CameraSpec("image", 6, 6), CameraSpec("wrist", 5, 7))
    spec = ObservationSpec(cameras, ("a", "b", "c"), ("m", "rad", "1"), "base")
    folder = tmp_path / "rich"
    folder.mkdir()
    rng = np.random.default_rng(7)
    for steps in (4, 9):
        writer = EpisodeWriter(folder, EpisodeMeta("arm", "task", WIDOWX_ACTION, spec, 5.0))
        for step in range(steps + 1):
            images = {c.name: rng.integers(0, 256, c.shape, np.uint8) for c in cameras}
            state = rng.normal(size=3)
            writer.observe(Tick(step + 1, step, images, state, truncated=step == steps))
            if step < steps:
                action = rng.uniform(-1, 1, 8)
                writer.act(AppliedAction(step + 1, action, action, HUMAN))
        writer.finish(1, "test")
    return folder


@pytest.mark.parametrize("memory_mb", [64, 3000 / MIB], ids=["mapped", "read"])
@pytest.mark.parametrize("observe", [(STATE,), ("wrist", STATE, "image")], ids=str)
def test_any_cameras_and_the_state_are_those_of_the_episode(rich, memory_mb, observe):
    dataset = open_dataset(rich)
    store = open_transition_store(dataset, observe, episodes=[1], memory_mb=memory_mb)
    assert list(store.shapes.items()) == list(dataset.observation_spec.shapes(observe).items())
    batch = everything(store)
    episode = read_episode(dataset.paths[1])
    expected = {**episode.images, STATE: episode.state.astype(np.float32)}
    assert list(batch.observations) == list(batch.next_observations) == list(observe)
    for name in observe:
        np.testing.assert_array_equal(batch.observations[name], expected[name][:-1])
        np.testing.assert_array_equal(batch.next_observations[name], expected[name][1:])
        assert batch.observations[name].dtype == expected[name].dtype
    assert store.frame_spans == [(5, 15)]


def test_another_camera_rebuilds_no_other_part(rich, monkeypatch):
    built = []
    real = store_cache._build
    monkeypatch.setattr(store_cache, "_build", lambda *a: (built.append(a[1]), real(*a)))
    for observe in (("image",), ("image", STATE), ("wrist",), ("wrist", "image")):
        open_transition_store(open_dataset(rich), observe)
    assert built == ["rows", "image", "wrist"]


def test_what_cannot_be_observed_is_refused(rich):
    with pytest.raises(ConfigError, match="observation 'ceiling' is unknown; use image"):
        open_transition_store(open_dataset(rich), ("ceiling",))
    with pytest.raises(ConfigError, match="name each of"):
        open_transition_store(open_dataset(rich), ("image", "image"))
    assert not (rich / ".cache").exists()


# -- hostile datasets ----------------------------------------------------------------------------


def test_a_cache_that_is_a_link_is_not_followed(tmp_path, make):
    make.episode(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / ".cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="symbolic link.*not followed.*--cache"):
        open_transition_store(open_dataset(tmp_path / "data"))
    assert not names_in(tmp_path / "elsewhere")
    open_transition_store(open_dataset(tmp_path / "data"), cache=tmp_path / "elsewhere")


@pytest.mark.parametrize("what", ["part", "file"])
def test_links_inside_the_cache_are_not_followed(tmp_path, make, what):
    make.episode(tmp_path / "data")
    open_transition_store(open_dataset(tmp_path / "data"))
    (part,) = (tmp_path / "data" / ".cache").glob("*-camera-image-*")
    linked = part if what == "part" else part / "frames"
    linked.rename(tmp_path / "moved")
    linked.symlink_to(tmp_path / "moved")
    with pytest.raises(DatasetError, match="symbolic link|damaged replay cache"):
        open_transition_store(open_dataset(tmp_path / "data"))


def test_a_name_of_a_camera_does_not_lead_out_of_the_cache(tmp_path, make, monkeypatch):
    make.episode(tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    monkeypatch.setattr(store_cache, "_build_missing", lambda *a: None)
    paths = store_cache.require_files(dataset, ["../../../x/y"], tmp_path / "cache")
    assert paths["../../../x/y"].parent.parent == tmp_path / "cache"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
