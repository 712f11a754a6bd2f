import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes import writer
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.recover import recover
from ofrl_robot.data.episodes.schema import FAILURE, FORMAT_VERSION, SUCCESS, episode_paths
from ofrl_robot.data.episodes.writer import EpisodeWriter, prepare_folder
from ofrl_robot.errors import (
    CameraStoppedError,
    ConfigError,
    DatasetError,
    OutputError,
    SpecMismatchError,
)
from ofrl_robot.specs import WIDOWX_ACTION


@pytest.mark.slow
@pytest.mark.parametrize("period", [0.0, 1e9])  # a commit at every tick, or at the end only
@pytest.mark.parametrize("steps", [1, 65, 257])
def test_round_trip(tmp_path, make, monkeypatch, steps, period):
    monkeypatch.setattr(writer, "COMMIT_PERIOD", period)
    path, ticks, applied = make.episode(tmp_path, steps, terminal=True)
    episode = read_episode(path)

    np.testing.assert_array_equal(episode.images["image"], [t.images["image"] for t in ticks])
    np.testing.assert_array_equal(episode.state, [t.state for t in ticks])
    np.testing.assert_array_equal(episode.rewards, [t.reward for t in ticks[1:]])
    np.testing.assert_allclose(episode.actions, [a.action for a in applied], rtol=1e-6)
    np.testing.assert_allclose(episode.actions_requested, [a.requested for a in applied], rtol=1e-6)
    np.testing.assert_array_equal(episode.limited, [a.limited for a in applied])
    np.testing.assert_array_equal(episode.intervention, [a.intervention for a in applied])
    np.testing.assert_array_equal(episode.terminals, [False] * (steps - 1) + [True])
    assert not episode.timeouts.any()
    np.testing.assert_array_equal(episode.timestamps["obs"], [t.stamp_ns for t in ticks])
    np.testing.assert_array_equal(episode.timestamps["action"], [a.stamp_ns for a in applied])
    assert episode.meta.success == SUCCESS
    assert episode.meta.measured_rate_hz == pytest.approx(5.0)
    assert open_dataset(tmp_path).lengths == [steps]


@pytest.mark.parametrize("steps", [1, 64, 130])
def test_next_obs_is_a_view_of_the_later_observations(tmp_path, make, steps):
    path, _, _ = make.episode(tmp_path, steps)
    with h5py.File(str(path), "r") as file:
        group = file["data/demo_0"]
        for name in ("image", "state"):
            later = group[f"next_obs/{name}"]
            assert later.is_virtual
            np.testing.assert_array_equal(later[:], group[f"obs/{name}"][1:])
            assert len(group[f"obs/{name}"]) == steps + 1


def test_numbers_come_from_the_disk_and_nothing_is_overwritten(tmp_path, make, state_of):
    first, _, _ = make.episode(tmp_path, seed=1)
    (tmp_path / "episode_000007.h5.partial").write_bytes(b"left by a killed recorder")
    before = state_of(tmp_path)
    second, _, _ = make.episode(tmp_path, seed=2)
    assert (first.name, second.name) == ("episode_000000.h5", "episode_000008.h5")
    assert set(before) <= set(state_of(tmp_path))


def test_two_writers_in_one_folder_take_two_numbers(tmp_path, make):
    writers = [EpisodeWriter(tmp_path, make.meta()) for _ in range(2)]
    taken = tmp_path / "episode_000000.h5"
    taken.write_bytes(b"copied in meanwhile")
    for one in writers:
        make.record(one, *make.ticks(3))
    names = [one.finish(FAILURE, "test").name for one in writers]
    assert len(set(names)) == 2 and taken.name not in names
    assert taken.read_bytes() == b"copied in meanwhile"


def test_a_given_number_is_that_or_an_error(tmp_path, make, state_of):
    def writer():
        return EpisodeWriter(tmp_path, make.meta(), index=3)

    running = writer()
    with pytest.raises(DatasetError, match="episode_000003.h5: its number is taken"):
        writer()  # partial
    make.record(running, *make.ticks(3))
    assert running.finish(SUCCESS, "test").name == "episode_000003.h5"
    before = state_of(tmp_path)
    with pytest.raises(DatasetError, match="its number is taken"):
        writer()  # finished
    assert state_of(tmp_path) == before


def test_a_given_number_that_is_taken_meanwhile_is_not_changed(tmp_path, make, state_of):
    writer = EpisodeWriter(tmp_path, make.meta(), index=3)
    make.record(writer, *make.ticks(3))
    (tmp_path / "episode_000003.h5").write_bytes(b"copied in meanwhile")
    with pytest.raises(DatasetError, match="its number is taken"):
        writer.finish(SUCCESS, "test")
    writer.discard()
    assert [content for _, content in state_of(tmp_path)] == [b"copied in meanwhile"]


def test_environment_is_stored(tmp_path, make):
    path, _, _ = make.episode(tmp_path, meta=make.meta(environment={"realism": "mild", "noise": 1}))
    assert read_episode(path).meta.environment == {"realism": "mild", "noise": 1}


def _skip_a_tick(writer, ticks, applied):
    writer.observe(ticks[0])
    writer.act(applied[0])
    writer.observe(ticks[2])


def _repeat_a_tick(writer, ticks, applied):
    writer.observe(ticks[0])
    writer.observe(ticks[0])


def _answer_an_old_tick(writer, ticks, applied):
    writer.observe(ticks[0])
    writer.act(applied[1])


def _image_of_another_size(writer, ticks, applied):
    writer.observe(dataclasses.replace(ticks[0], images={"image": np.zeros((4, 4, 3), np.uint8)}))


def _missing_camera(writer, ticks, applied):
    writer.observe(dataclasses.replace(ticks[0], images={}))


def _short_action(writer, ticks, applied):
    writer.observe(ticks[0])
    writer.act(dataclasses.replace(applied[0], action=np.zeros(4)))


@pytest.mark.parametrize(
    "misuse",
    [_skip_a_tick, _repeat_a_tick, _answer_an_old_tick, _image_of_another_size, _missing_camera,
     _short_action],
)  # fmt: skip
def test_an_episode_with_a_hole_is_refused(tmp_path, make, misuse):
    writer = EpisodeWriter(tmp_path, make.meta())
    with pytest.raises((DatasetError, CameraStoppedError)):
        misuse(writer, *make.ticks(3))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_buffers_may_be_reused_by_the_driver(tmp_path, make):
    ticks, applied = make.ticks(3)
    expected = [t.images["image"].copy() for t in ticks]
    buffer = np.empty_like(expected[0])
    writer = EpisodeWriter(tmp_path, make.meta())
    for k, tick in enumerate(ticks):
        buffer[:] = tick.images["image"]
        writer.observe(dataclasses.replace(tick, images={"image": buffer}))
        if k < 3:
            writer.act(applied[k])
    episode = read_episode(writer.finish(FAILURE, "test"))
    np.testing.assert_array_equal(episode.images["image"], expected)


@pytest.mark.parametrize("steps", [2, 64])
@pytest.mark.parametrize("trailing_action", [False, True])
def test_stopped_early_ends_in_a_timeout(tmp_path, make, steps, trailing_action):
    ticks, applied = make.ticks(steps + 1, cut=True)
    writer = EpisodeWriter(tmp_path, make.meta())
    make.record(writer, ticks[: steps + 1], applied[: steps + trailing_action])
    episode = read_episode(writer.finish(FAILURE, "operator", "stopped by hand"))

    assert len(episode) == steps  # an action whose outcome nobody saw is no transition
    np.testing.assert_array_equal(episode.timeouts, [False] * (steps - 1) + [True])
    assert not episode.terminals.any()
    rows = [episode.actions_requested, episode.rewards, episode.limited, episode.intervention]
    assert {len(r) for r in rows} == {steps} and len(episode.state) == steps + 1
    assert episode.meta.abort_reason == "stopped by hand"


@pytest.mark.parametrize("actions", [0, 1])
def test_without_a_transition_nothing_is_kept(tmp_path, make, actions):
    ticks, applied = make.ticks(2)
    writer = EpisodeWriter(tmp_path, make.meta())
    make.record(writer, ticks[:1], applied[:actions])
    assert writer.finish(SUCCESS, "test") is None
    assert list(tmp_path.iterdir()) == []


def _newer_format(folder, make):
    with h5py.File(folder / "episode_000000.h5", "r+") as file:
        file["data/demo_0"].attrs["format_version"] = FORMAT_VERSION + 1
    return folder, make.meta(), DatasetError, "episode_000000.h5"


def _older_format(folder, make):
    with h5py.File(folder / "episode_000000.h5", "r+") as file:
        file["data/demo_0"].attrs["format_version"] = 1
    return folder, make.meta(), DatasetError, "is in episode format 1, this version reads 3"


def _other_action(folder, make):
    action = dataclasses.replace(WIDOWX_ACTION, scale=(0.1,) * 8)
    meta = dataclasses.replace(make.meta(), action_spec=action)
    return folder, meta, SpecMismatchError, "scale"


def _other_image(folder, make):
    return folder, make.meta(12), SpecMismatchError, "cameras"


def _other_task(folder, make):
    meta = dataclasses.replace(make.meta(), task="Drawer-v0")
    return folder, meta, DatasetError, "of task 'Task-v0', the new ones are of 'Drawer-v0'"


def _other_robot(folder, make):
    meta = dataclasses.replace(make.meta(), robot="arm")
    return folder, meta, DatasetError, "of robot 'sim', the new ones are of 'arm'"


def _a_file(folder, make):
    return folder / "episode_000000.h5", make.meta(), OutputError, "episode_000000.h5"


def _below_a_file(folder, make):
    return folder / "episode_000000.h5" / "below", make.meta(), OutputError, "below"


def _read_only(folder, make):
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only for root")
    folder.chmod(0o500)
    return folder, make.meta(), OutputError, "writable"


UNSUITABLE = [
    _newer_format,
    _older_format,
    _other_action,
    _other_image,
    _other_task,
    _other_robot,
    _a_file,
    _below_a_file,
    _read_only,
]


@pytest.mark.parametrize("arrange", UNSUITABLE)
def test_a_folder_that_cannot_take_the_episodes_stays_as_it_is(tmp_path, make, state_of, arrange):
    make.episode(tmp_path / "dataset")
    folder, meta, error, text = arrange(tmp_path / "dataset", make)
    before = state_of(tmp_path)
    with pytest.raises(error, match=text):
        prepare_folder(folder, meta)
    assert state_of(tmp_path) == before


def test_a_folder_takes_episodes_of_another_task_when_that_is_asked_for(tmp_path, make):
    make.episode(tmp_path)
    meta = dataclasses.replace(make.meta(), task="Drawer-v0", robot="arm")
    assert prepare_folder(tmp_path, meta, mixed_tasks=True) == 1


BAD_TEXTS = {
    "surrogate": (os.fsdecode(b"Zo\xeb"), r"operator is 'Zo\\udceb', not valid Unicode"),
    "NUL": ("a\0b", "operator has a NUL character"),
    "too long": ("x" * 70_000, "operator has 70000 bytes"),
}


@pytest.mark.parametrize("text, message", BAD_TEXTS.values(), ids=list(BAD_TEXTS))
def test_a_text_that_cannot_be_stored_is_refused_before_there_is_a_file(
    tmp_path, make, text, message
):
    with pytest.raises(ConfigError, match=message):
        make.meta(operator=text)
    meta = make.meta()
    meta.operator = text
    with pytest.raises(ConfigError, match=message):
        EpisodeWriter(tmp_path, meta)
    assert list(tmp_path.iterdir()) == []


_CHILD = """
import sys; sys.path[:0] = {path!r}
from pathlib import Path
import conftest as make
from ofrl_robot.data.episodes import writer as module
from ofrl_robot.data.episodes.writer import EpisodeWriter
folder = Path({folder!r})
make.make_episode(folder, 5, seed=1)
ticks, applied = make.make_ticks(300, cut=True)
writer = EpisodeWriter(folder, make.make_meta())
{body}
"""


def _child(folder, body):
    here = Path(__file__).resolve()
    path = [str(here.parents[1]), str(here.parents[3])]  # conftest.py of tests/data; the package
    code = _CHILD.format(path=path, folder=str(folder), body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, universal_newlines=True
    )


@pytest.mark.slow
def test_kill_loses_only_the_running_episode(tmp_path, make):
    child = _child(
        tmp_path,
        "make.record(writer, ticks[:200], applied[:200]); print('running', flush=True); input()",
    )
    assert child.stdout.readline() == "running\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()

    assert (tmp_path / "episode_000001.h5.partial").exists()
    dataset = open_dataset(tmp_path)
    assert [p.name for p in dataset.paths] == ["episode_000000.h5"]
    assert len(read_episode(dataset.paths[0])) == 5
    after, _, _ = make.episode(tmp_path)
    assert after.name == "episode_000002.h5"


@pytest.mark.slow
@pytest.mark.parametrize("period", [0.0, 1e9])  # a commit at every tick, or at the end only
@pytest.mark.parametrize("free", [3000, 30000, 100000, 120000])
def test_a_full_disk_is_reported_and_costs_what_came_after_the_last_commit(tmp_path, free, period):
    """In a child: h5py crashes the whole process when HDF5 meets a failed write."""
    child = _child(
        tmp_path,
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({free}, {free}))\n"
        "try:\n"
        f"    module.COMMIT_PERIOD = {period}\n"
        "    make.record(writer, ticks, applied); writer.finish(1, 'test')\n"
        "except Exception as error:\n"
        "    writer.discard(); print(type(error).__name__, error)\n",
    )
    output, _ = child.communicate()
    assert child.returncode == 0
    assert output.startswith("OutputError") and os.strerror(27) in output
    assert [p.name for p in episode_paths(tmp_path)] == ["episode_000000.h5"]
    recovered = recover(tmp_path)
    assert bool(recovered) == (period == 0.0 and free >= 100000)
    for found in recovered:
        assert len(read_episode(found.path)) == found.steps > 5
    assert {p.suffix for p in tmp_path.iterdir()} == {".h5"}


@pytest.mark.slow
def test_a_disk_that_is_full_before_the_start_leaves_nothing(tmp_path):
    child = _child(
        tmp_path,
        "import resource; writer.discard(); resource.setrlimit(resource.RLIMIT_FSIZE, (999, 999))\n"
        "try:\n"
        "    EpisodeWriter(folder, make.make_meta())\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n",
    )
    output, _ = child.communicate()
    assert child.returncode == 0 and output.startswith("OutputError")
    assert [p.name for p in tmp_path.iterdir()] == ["episode_000000.h5"]


def test_an_episode_that_cannot_get_its_name_is_kept(tmp_path, make, monkeypatch):
    live = EpisodeWriter(tmp_path, make.meta())
    make.record(live, *make.ticks(3))
    with monkeypatch.context() as broken, pytest.raises(OutputError, match="verify --repair"):
        broken.setattr(os, "fsync", _refuse)
        live.finish(SUCCESS, "test")
    live.discard()
    assert episode_paths(tmp_path) == []
    (found,) = recover(tmp_path)
    assert found.steps == 3 and read_episode(found.path).meta.success == SUCCESS


def _refuse(handle):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_episodes_of_equal_size_have_different_fingerprints(tmp_path, make):
    """Two conversions within one second must not share a frame cache."""
    prints = set()
    for name in ("a", "b"):
        make.episode(tmp_path / name, seed=0)
        prints.add(open_dataset(tmp_path / name).fingerprint())
    assert len(prints) == 2
    assert episode_paths(tmp_path / "a")[0].name == episode_paths(tmp_path / "b")[0].name
