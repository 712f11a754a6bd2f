"""Recovery of a recording that was killed at any instant."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes import numbering, writer
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.numbering import partial_path
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.recover import ABORT_REASON, recover, unfinished_line
from ofrl_robot.data.episodes.schema import SUCCESS, UNKNOWN
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import DatasetError

STEPS = 7
COMMITTED = (2, 5)  # steps after which the recorder commits


class WriteLog:
    """Every write to the disk, with the number of steps that are safe by then."""

    def __init__(self, monkeypatch):
        self.safe, self.entries = 0, []
        real_write, real_truncate = os.pwrite, os.ftruncate

        def is_episode(handle):  # the lock of the folder is written as well
            return not os.readlink(f"/proc/self/fd/{handle}").endswith(".lock")

        def pwrite(handle, data, start):
            if is_episode(handle):
                self.entries.append((self.safe, start, bytes(data)))
            return real_write(handle, data, start)

        def ftruncate(handle, size):
            if is_episode(handle):
                self.entries.append((self.safe, size, None))
            return real_truncate(handle, size)

        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(os, "ftruncate", ftruncate)

    def states(self):
        """Yield (safe steps, content) after every write and in the middle of it."""
        content = bytearray()
        for safe, start, data in self.entries:
            if data is None:
                del content[start:]
                content.extend(bytes(start - len(content)))
            else:
                for part in (len(data) // 2, len(data)):
                    content.extend(bytes(max(0, start + part - len(content))))
                    content[start : start + part] = data[:part]
                    yield safe, bytes(content)
                continue
            yield safe, bytes(content)


@pytest.fixture
def write_log(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a third of the time; a kill needs none
    return WriteLog(monkeypatch)


def killed(folder, make, steps=STEPS, number=0):
    """A partial file as a killed recorder leaves it, ``steps`` steps after its start."""
    folder.mkdir(exist_ok=True)
    live = EpisodeWriter(folder, make.meta(), number)
    ticks, applied = make.ticks(steps + 1, cut=True)
    make.record(live, ticks[: steps + 1], applied)
    live._commit()
    partial = partial_path(folder, number)
    content = partial.read_bytes()
    live.discard()
    partial.write_bytes(content)
    return partial, ticks, applied


def same_start(episode, ticks, applied):
    """The episode is the first steps of what was recorded, to the bit."""
    steps = len(episode)
    images = [t.images["image"] for t in ticks[: steps + 1]]
    np.testing.assert_array_equal(episode.images["image"], images)
    np.testing.assert_array_equal(episode.state, [t.state for t in ticks[: steps + 1]])
    np.testing.assert_array_equal(episode.rewards, [t.reward for t in ticks[1 : steps + 1]])
    actions = [np.float32(a.action) for a in applied[:steps]]
    np.testing.assert_array_equal(episode.actions, actions)
    assert episode.timeouts.tolist() == [False] * (steps - 1) + [True]
    assert {len(rows) for rows in episode.timestamps.values()} == {steps, steps + 1}


@pytest.mark.slow
def test_a_death_at_any_write_costs_nothing_that_was_committed(
    tmp_path, make, write_log, monkeypatch
):
    """Every state of the file between two writes, and within one, from first to last."""
    ticks, applied = make.ticks(STEPS, cut=True)
    (tmp_path / "live").mkdir()
    live = EpisodeWriter(tmp_path / "live", make.meta())
    for k, tick in enumerate(ticks):
        commits = k in COMMITTED
        monkeypatch.setattr(writer, "COMMIT_PERIOD", 0.0 if commits else 1e9)
        live.observe(tick)
        write_log.safe = k if commits else write_log.safe
        if k < STEPS:
            live.act(applied[k])
    live.finish(SUCCESS, "test")

    folder, before, outcomes = tmp_path / "dead", 0, set()
    folder.mkdir()
    for safe, content in list(write_log.states()):
        partial_path(folder, 0).write_bytes(content)
        (found,) = recover(folder)
        assert found.steps >= max(safe, before), found
        before = found.steps
        if found.steps:
            episode = read_episode(found.path)
            assert len(episode) == found.steps
            same_start(episode, ticks, applied)
            outcomes.add((found.steps, episode.meta.success, episode.meta.abort_reason))
        found.path.unlink()
    aborted = {(k, UNKNOWN, ABORT_REASON) for k in COMMITTED}
    assert outcomes == aborted | {(STEPS, SUCCESS, "")}


@pytest.mark.slow
def test_a_death_during_recovery_costs_nothing(tmp_path, make, write_log):
    partial, ticks, applied = killed(tmp_path / "live", make)
    write_log.entries[:] = [(STEPS, 0, partial.read_bytes())]
    recover(tmp_path / "live")
    folder = tmp_path / "dead"
    folder.mkdir()
    states = list(write_log.states())[1:]  # the first is half the partial, which nobody left
    assert len(states) > 20
    for _, content in states:
        partial_path(folder, 0).write_bytes(content)
        (found,) = recover(folder)
        episode = read_episode(found.path)
        assert len(episode) == STEPS and episode.meta.abort_reason == ABORT_REASON
        same_start(episode, ticks, applied)
        found.path.unlink()


def test_what_is_unfinished_is_not_counted_until_it_is_recovered(tmp_path, make):
    make.episode(tmp_path)
    killed(tmp_path, make, number=3)
    assert [p.name for p in open_dataset(tmp_path).paths] == ["episode_000000.h5"]
    assert "1 episode is unfinished" in unfinished_line(tmp_path)
    assert numbering.next_index(tmp_path) == 4

    (found,) = recover(tmp_path)
    line = f"episode_000003.h5.partial: recovered, {STEPS} steps, now episode_000003.h5"
    assert found.line() == line
    dataset = open_dataset(tmp_path)
    assert dataset.lengths == [5, STEPS] and dataset.metas[1].success == UNKNOWN
    assert dataset.metas[1].measured_rate_hz == pytest.approx(5.0)
    assert unfinished_line(tmp_path) == "" and recover(tmp_path) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in dataset.paths]


def test_a_name_that_was_taken_meanwhile_is_not_written_over(tmp_path, make):
    killed(tmp_path, make)
    (tmp_path / "episode_000000.h5").write_bytes(b"copied in")
    (found,) = recover(tmp_path)
    assert found.path.name == "episode_000001.h5" and len(read_episode(found.path)) == STEPS
    assert (tmp_path / "episode_000000.h5").read_bytes() == b"copied in"


def test_an_episode_with_both_its_names_is_one_episode(tmp_path, make):
    """Killed between giving it the final name and taking the other away."""
    path, _, _ = make.episode(tmp_path)
    os.link(str(path), str(partial_path(tmp_path, 0)))
    (found,) = recover(tmp_path)
    assert (found.path, found.steps) == (path, 5)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert read_episode(path).meta.success == SUCCESS


def _nothing(partial, make):
    partial.write_bytes(b"")


def _garbage(partial, make):
    partial.write_bytes(b"no such format" * 100)


def _foreign(partial, make):
    with h5py.File(str(partial), "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 8))


def _one_observation(partial, make):
    killed(partial.parent, make, steps=0)


def _without_a_frame(partial, make):
    """Written out of order by a power cut: HDF5 reads a frame that is missing as black."""
    killed(partial.parent, make)
    with h5py.File(str(partial), "r+") as file:
        frames = file["data/demo_0/obs/image"]
        kept = frames[:-1]
        frames.resize(0, axis=0)
        frames.resize(len(kept) + 1, axis=0)
        frames[:-1] = kept


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (_nothing, "nothing readable in it"),
        (_garbage, "nothing readable in it"),
        (_foreign, "no format_version attribute"),
        (_one_observation, "no whole step in it"),
        (_without_a_frame, "rows of obs/image are missing"),
    ],
)
def test_what_cannot_be_recovered_is_reported_and_kept_aside(tmp_path, make, arrange, reason):
    partial = partial_path(tmp_path, 0)
    for name in ("episode_000000.h5.partial", "episode_000000.h5.partial.1"):
        arrange(partial, make)
        content = partial.read_bytes()
        (found,) = recover(tmp_path)
        assert found.steps == 0 and reason in found.reason
        assert found.line().endswith(f"moved to lost/{name}")
        assert found.path.read_bytes().startswith(content)
    assert [p.name for p in tmp_path.iterdir()] == ["lost"]


def test_a_running_recorder_is_left_alone(tmp_path, make):
    live = EpisodeWriter(tmp_path, make.meta())
    assert recover(tmp_path) == []  # its partial is held, even where it did not lock the folder
    with one_writer(tmp_path), pytest.raises(DatasetError, match="another recorder"):
        recover(tmp_path)
    make.record(live, *make.ticks(3))
    assert len(read_episode(live.finish(SUCCESS, "test"))) == 3


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no such dataset folder"):
        recover(tmp_path / "none")
    assert not list(tmp_path.iterdir())
