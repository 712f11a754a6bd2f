"""Recording in several processes: the same files as in one, and what is left when one breaks."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import episode_paths
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.recording.parallel import record_parallel
from ofrl_robot.recording.session import episode_meta
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import make_rig
from ofrl_robot.sim.options import SimOptions
from ofrl_robot.teleop.scripted import ScriptedDevice

TASK = "Widow250SingleObjGrasp-v0"
COLLECT = ["collect", "--task", TASK, "--image-size", "8"]


class Faulty(ScriptedDevice):
    """Breaks in the middle of the episode with seed 3, if it has a ``fault``."""

    def __init__(self, fault):
        super().__init__(TASK)
        self.fault = fault

    def reset(self, seed):
        super().reset(seed)
        self.seed, self.acts = seed, 0

    def act(self, tick):
        self.acts += 1
        if self.fault and self.seed == 3 and self.acts == 5:
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ConfigError("no", "use yes", "it") if self.fault == "error" else ValueError("bug")
        return super().act(tick)


def sim_rig():
    return make_rig(ArmConfig("sim", TASK, load_arm_file("sim"), settings={"image_size": 8}))


def make(fault=""):
    return sim_rig(), Faulty(fault)


def make_nothing():
    raise ConfigError("cannot be built")


def record(folder, workers, count, maker=make, **more):
    meta = episode_meta(sim_rig(), actor="test")
    record_parallel(maker, workers, folder, count, 0, meta, **more)


def content(path):
    """Every dataset and attribute of a file, the time of writing apart."""
    found = {}

    def take(name, item):
        found.update({(name, key): value for key, value in item.attrs.items() if key != "created"})
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item.shape, item[:].tobytes())

    with h5py.File(str(path), "r") as file:
        file.visititems(take)
    return found


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_files(tmp_path, capsys):
    # harsh: its noise must depend on the seed alone, too
    more = ["--episodes", "5", "--seed", "7", "--realism", "harsh", "--policy", "grasp"]
    for workers in ("1", "3"):
        out = str(tmp_path / workers)
        assert main(COLLECT + more + ["--workers", workers, "--out", out]) == 0
        line = f"recorded now: {open_dataset(Path(out)).successes} of 5 succeeded"
        assert line in capsys.readouterr().out
    one, three = (episode_paths(tmp_path / name) for name in ("1", "3"))
    assert [p.name for p in one] == [p.name for p in three] and len(one) == 5
    for a, b in zip(one, three):
        assert content(a) == content(b), a.name
    meta = open_dataset(tmp_path / "3").metas[0]
    expected = dict(SimOptions(image_size=8, realism="harsh").to_dict(), policy="grasp", noise=0.1)
    assert meta.environment == expected and meta.seed == 7


@pytest.mark.slow
def test_adding_goes_on_above_a_hole_that_an_interrupt_left(tmp_path):
    record(tmp_path, 2, 4)
    (tmp_path / "episode_000002.h5").unlink()
    counts = []
    record(tmp_path, 2, 3, on_episode=lambda done, label: counts.append(done))
    dataset = open_dataset(tmp_path)
    assert counts == [1, 2, 3]
    assert [int(p.stem.split("_")[1]) for p in dataset.paths] == [0, 1, 3, 4, 5, 6]
    assert [m.seed for m in dataset.metas] == [0, 1, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("error", ConfigError, "it: no; use yes"),
        ("bug", RobotError, "episode 3: ValueError: bug; finished episodes are kept"),
        ("killed", RobotError, r"episode 3: the process that recorded it died \(SIGKILL\)"),
    ],
)
def test_a_process_that_breaks_ends_all_and_names_the_episode(tmp_path, fault, error, text):
    with pytest.raises(error, match=text):
        record(tmp_path, 2, 100, functools.partial(make, fault))
    kept = sorted(p.name for p in tmp_path.iterdir())
    # number 3 is given out when two are finished; the other process was at 1, 2, 4 or later
    assert len(kept) >= 2 and "episode_000003.h5" not in kept
    for path in tmp_path.iterdir():
        assert path.suffix == ".h5" and len(read_episode(path)) == 25
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_what_cannot_be_built_in_a_process_is_its_own_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be built"):
        record(tmp_path, 2, 2, make_nothing)
    assert not multiprocessing.active_children() and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--workers", "-1"], "workers -1 is below 0"),
        (["--policy", "juggle"], "scripted policy 'juggle' is unknown"),
        (["--policy", "pick_place", "--workers", "2"], "needs container_position"),
    ],
)
def test_what_the_user_can_mend_is_one_line(tmp_path, capsys, words, text):
    assert main(COLLECT + ["--episodes", "2", "--out", str(tmp_path / "out")] + words) == 2
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1
    assert not list(tmp_path.rglob("*.h5*"))


def members(session):
    """Processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_ctrl_c_keeps_whole_episodes_and_leaves_no_process(tmp_path):
    out = tmp_path / "out"
    words = COLLECT + ["--episodes", "10000", "--workers", "2", "--out", str(out)]
    running = subprocess.Popen(
        [sys.executable, "-m", "ofrl_robot.cli"] + words,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        universal_newlines=True,
    )  # fmt: skip
    while running.poll() is None and not (out.is_dir() and episode_paths(out)):
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)  # to all of them, as a terminal does
    _, err = running.communicate()
    assert running.returncode == 130 and err.count("\n") == 1 and "interrupted" in err
    assert not list(out.glob("*.partial"))
    assert all(np.any(read_episode(path).images["image"]) for path in episode_paths(out))
    while members(running.pid):  # the timeout of the test is the assertion
        time.sleep(0.02)
    kept = episode_paths(out)
    time.sleep(0.3)
    assert kept and episode_paths(out) == kept, "something goes on recording"
