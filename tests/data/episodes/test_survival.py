"""Every known way in which a recording fails; docs/data_format.md says what is left afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.control.signals import POLICY, AppliedAction, Tick
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes import numbering, writer
from ofrl_robot.data.episodes.lock import LOCK_NAME, one_writer
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.recover import ABORT_REASON, recover
from ofrl_robot.data.episodes.schema import (
    SUCCESS,
    UNKNOWN,
    EpisodeMeta,
    episode_name,
    episode_paths,
)
from ofrl_robot.data.episodes.writer import EpisodeWriter, prepare_folder
from ofrl_robot.data.verify.episode_check import DAMAGE, check_episode
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import CameraStoppedError, OutputError
from ofrl_robot.recording.session import episode_meta, record_episodes
from ofrl_robot.specs import WIDOWX_ACTION, CameraSpec, ObservationSpec, widowx_observation

# -- kill -9 ---------------------------------------------------------------------------------

ROUNDS, RECORDERS, LOOK_EVERY = 27, 2, 3  # rounds of kills; at a time; rounds between checks
RATE_HZ = 30.0
CAMERAS = ("front", "wrist")
SPEC = ObservationSpec(
    tuple(CameraSpec(name, 480, 640) for name in CAMERAS),
    widowx_observation().state_names,
    widowx_observation().state_units,
    "world",
)
FRAMES = [np.random.default_rng(k).integers(0, 256, (480, 640, 3), np.uint8) for k in range(5)]
REPORT = struct.Struct("<QQQ")  # number of the episode, steps, finished


def frame(step, camera):
    return FRAMES[(step + camera) % len(FRAMES)]


def record_until_killed(folder, seed, pipe):
    """Record two cameras of 640x480 at 30 Hz in real time; report progress through ``pipe``."""
    rng = random.Random(seed)
    while True:
        meta = EpisodeMeta("fake", "nothing", WIDOWX_ACTION, SPEC, RATE_HZ)
        live = EpisodeWriter(folder, meta)
        number = int(live._partial.name.split("_")[1].split(".")[0])
        # half of them too short for a commit before the end, half with one or two
        steps = rng.randint(9, 18) if rng.random() < 0.5 else rng.randint(35, 70)
        for step in range(steps + 1):
            due = time.monotonic() + 1.0 / RATE_HZ
            stamp = time.time_ns()
            live.observe(Tick(
                stamp, step, {name: frame(step, k) for k, name in enumerate(CAMERAS)},
                np.full(10, step), truncated=step == steps,
            ))  # fmt: skip
            os.write(pipe, REPORT.pack(number, step, 0))
            if step < steps:
                live.act(AppliedAction(stamp, np.full(8, step / 100), np.zeros(8), POLICY))
            time.sleep(max(0.0, due - time.monotonic()))
        live.finish(SUCCESS, "test")
        os.write(pipe, REPORT.pack(number, steps, 1))


def start_recorder(folder, seed):
    """Fork a recorder; return its process id and the pipe of its reports."""
    ours, its = os.pipe()
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):  # reported by the exit code
            record_until_killed(folder, seed, its)
        os._exit(1)
    os.close(its)
    return process, ours


def reports(pipe):
    with open(pipe, "rb") as file:
        return list(REPORT.iter_unpack(file.read()))


def start_and_kill(folders, rng):
    """Kill a recorder in each folder at a random moment; return their reports by folder."""
    moments = sorted((time.monotonic() + rng.uniform(0.01, 1.8), f) for f in folders)
    recorders = {folder: start_recorder(folder, rng.random()) for folder in folders}
    reported = {}
    for moment, folder in moments:
        process, pipe = recorders[folder]
        time.sleep(max(0.0, moment - time.monotonic()))
        os.kill(process, signal.SIGKILL)
        assert os.waitpid(process, 0)[1] == signal.SIGKILL, "it ended before it was killed"
        reported[folder] = reports(pipe)
    return reported


def same_recording(path):
    """The frames, states and actions of a file are those that were recorded."""
    episode, steps = read_episode(path), range(len(read_episode(path, cameras=())) + 1)
    for k, name in enumerate(CAMERAS):
        assert all(np.array_equal(episode.images[name][s], frame(s, k)) for s in steps), path
    assert episode.state[:, 0].tolist() == list(steps)
    assert np.allclose(episode.actions[:, 0], np.array(steps[:-1]) / 100)
    assert not [f for f in check_episode(path, QualityLimits()).findings if f.level == DAMAGE]
    return episode


def check_folder(folder, reported, tally):
    """Check ``folder`` after recorders with these reports were killed in it."""
    finished = {number for number, _, done in reported if done}
    steps = {number: step for number, step, _ in reported}  # the last report
    names = {episode_name(number): number for number in steps}
    paths = episode_paths(folder)
    # some were killed after they had their name, but before the report
    assert finished <= {names[path.name] for path in paths}
    for path in paths:
        episode = same_recording(path)
        assert len(episode) == steps[names[path.name]] and episode.meta.success == SUCCESS
    unfinished = numbering.unfinished(folder)
    if paths:
        assert open_dataset(folder).paths == paths, "a partial is counted"
    for found in recover(folder):
        name = found.partial.name[: -len(".partial")]
        before = steps.get(names.get(name), 0)
        if found.steps:
            episode = same_recording(found.path)
            complete = (len(episode), episode.meta.success) == (before, SUCCESS)
            assert complete or episode.meta.abort_reason == ABORT_REASON
            tally["recovered"] += 1
        else:
            tally["lost"] += 1
        # a step may be on disk that was not reported any more
        assert -1 <= before - found.steps <= RATE_HZ * writer.COMMIT_PERIOD + 2
        tally["worst"] = max(tally["worst"], before - found.steps)
    assert len(unfinished) + len(paths) >= len(steps) and not numbering.unfinished(folder)
    tally["finished"] += len(paths)


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path):
    rng = random.Random(4)
    tally = dict.fromkeys(("kills", "finished", "recovered", "lost", "worst"), 0)
    folders = [tmp_path / str(number) for number in range(RECORDERS)]
    history = {folder: [] for folder in folders}
    for folder in folders:
        folder.mkdir()
    for k in range(1, ROUNDS + 1):
        for folder, reported in start_and_kill(folders, rng).items():
            history[folder] += reported
            tally["kills"] += 1
        if k % LOOK_EVERY == 0:
            for folder in folders:
                check_folder(folder, history[folder], tally)
                shutil.rmtree(str(folder))  # 60 MB a second
                folder.mkdir()
                history[folder] = []
    print(tally)
    assert tally["kills"] >= 50 and tally["finished"] and tally["recovered"]


# -- two recorders ---------------------------------------------------------------------------

HOLD = """
import sys, time; sys.path.insert(0, {root!r})
from pathlib import Path
from ofrl_robot.data.episodes.lock import one_writer
with one_writer(Path({folder!r})):
    print("held", flush=True)
    time.sleep(600)
"""
COLLECT = ["collect", "--task", "Widow250SingleObjGrasp-v0", "--image-size", "8"]


@pytest.fixture
def holder(tmp_path):
    """Another process that records into ``tmp_path``."""
    code = HOLD.format(root=str(Path(__file__).resolve().parents[3]), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_recorder_is_refused_and_the_dead_are_no_obstacle(
    tmp_path, holder, capsys, workers
):
    words = COLLECT + ["--episodes", "2", "--workers", workers, "--out", str(tmp_path)]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert f"another recorder is at work in it (process {holder.pid})" in err
    assert err.count("\n") == 1 and not episode_paths(tmp_path)

    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK_NAME).exists()  # the killed process could not remove it
    assert main(words) == 0
    assert len(open_dataset(tmp_path).paths) == 2 and not (tmp_path / LOCK_NAME).exists()


def test_reading_needs_no_lock(tmp_path, make):
    make.episode(tmp_path)
    with one_writer(tmp_path):
        assert main(["data", "info", str(tmp_path)]) == 0


# -- the disk --------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_refused_before_anything_moves(make):
    folder = Path(tempfile.mkdtemp())  # not tmp_path: only its owner may enter that
    try:
        make.episode(folder)
        folder.chmod(0o555)
        before = sorted(folder.iterdir())
        assert as_nobody(lambda: refused(folder)) == 0
        assert sorted(folder.iterdir()) == before
    finally:
        folder.chmod(0o755)
        shutil.rmtree(str(folder))


def refused(folder):
    meta = EpisodeMeta("sim", "Task-v0", WIDOWX_ACTION, widowx_observation(6), 5.0)
    for attempt in (one_writer(folder).__enter__, lambda: prepare_folder(folder, meta)):
        with pytest.raises(OutputError, match="not writable"):
            attempt()


def as_nobody(work):
    """Exit code of a process without root's rights that does ``work``; 0 for no exception."""
    process = os.fork()
    if process == 0:
        code = 1
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
            code = 0
        os._exit(code)
    return os.waitpid(process, 0)[1]


def test_a_folder_that_is_removed_ends_the_recording_with_one_line(fake_rig, fake_robot, tmp_path):
    folder = tmp_path / "data"

    def remove(done, label):
        shutil.rmtree(str(folder))

    with pytest.raises(OutputError, match="data: the episode cannot be written"):
        record_episodes(fake_rig, Still(), folder, 3, 0, episode_meta(fake_rig), remove)
    assert not folder.exists() and fake_robot.stops == 0

    def remove_and_look():
        if len(fake_robot.received) == fake_robot.horizon + 2 and folder.exists():
            shutil.rmtree(str(folder))
        return newest()

    newest, fake_robot.newest = fake_robot.newest, remove_and_look
    with pytest.raises(OutputError, match="cannot be written"):
        record_episodes(fake_rig, Still(), folder, 1, 0, episode_meta(fake_rig))
    assert not folder.exists() and fake_robot.stops == 1


# -- what is recorded ------------------------------------------------------------------------


class Still:
    """An actor that asks for nothing."""

    source = POLICY

    def reset(self, seed):
        pass

    def act(self, tick):
        return np.zeros(4)


@pytest.mark.parametrize("jump", [-3_600_000_000_000, 3_600_000_000_000])
def test_a_clock_that_jumps_changes_neither_the_order_nor_the_rate(
    fake_rig, fake_robot, tmp_path, jump
):
    now_ns = fake_robot.now_ns
    fake_robot.now_ns = lambda: now_ns() + jump * (fake_robot._step > 2)
    fake_robot.horizon = 8
    stamps = [(k + 1) * 200_000_000 + jump * (k > 2) for k in range(9)]
    record_episodes(fake_rig, Still(), tmp_path, 1, 0, episode_meta(fake_rig))
    episode = read_episode(episode_paths(tmp_path)[0])
    assert episode.timestamps["obs"].tolist() == stamps  # as they came
    assert episode.images["front"][:, 0, 0, 0].tolist() == list(range(9))
    assert episode.meta.measured_rate_hz == pytest.approx(fake_robot.control_rate_hz)


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_camera_that_dies_leaves_the_episode_up_to_its_last_frame(
    fake_rig, fake_robot, tmp_path, last
):
    newest = fake_robot.newest

    def without_frame():
        frames = newest()
        if fake_robot._step == last + 1 and len(fake_robot.seeds) == 2:
            return {name: frame._replace(pixels=None) for name, frame in frames.items()}
        return frames

    fake_robot.newest = without_frame
    with pytest.raises(CameraStoppedError, match="camera front stopped; the episode is kept"):
        record_episodes(fake_rig, Still(), tmp_path, 5, 0, episode_meta(fake_rig))
    assert fake_robot.stops and not numbering.unfinished(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.lengths == [4, last][: 1 + (last > 0)]  # without a step there is no episode
    if last:
        assert dataset.metas[1].abort_reason == "camera front stopped"
        assert dataset.metas[1].success == UNKNOWN and dataset.metas[1].label_source == ""
        episode = read_episode(dataset.paths[1])
        assert episode.images["front"][:, 0, 0, 0].tolist() == list(range(last + 1))
        assert episode.timeouts.tolist() == [False] * (last - 1) + [True]


@pytest.mark.slow
def test_ten_thousand_episodes(fake_rig, fake_robot, tmp_path):
    record_episodes(fake_rig, Still(), tmp_path, 1, 0, episode_meta(fake_rig))
    first = episode_paths(tmp_path)[0]
    for number in range(1, 10_000):
        os.link(str(first), str(tmp_path / episode_name(number)))
    dataset = open_dataset(tmp_path)
    assert len(dataset.paths) == 10_000 and sum(dataset.lengths) == 40_000
    record_episodes(fake_rig, Still(), tmp_path, 1, 0, episode_meta(fake_rig))
    assert fake_robot.seeds == [0, 10_000]  # the number of an episode is its seed
    assert len(episode_paths(tmp_path)) == 10_001


def test_an_unfinished_episode_is_reported_and_left_alone(tmp_path, capsys):
    left = tmp_path / "episode_000004.h5.partial"
    left.write_bytes(b"of a dead recorder")
    assert main(COLLECT + ["--episodes", "1", "--out", str(tmp_path)]) == 0
    assert "1 episode is unfinished" in capsys.readouterr().err
    assert left.read_bytes() == b"of a dead recorder"
    assert [p.name for p in episode_paths(tmp_path)] == ["episode_000005.h5"]
