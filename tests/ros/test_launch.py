"""Collect and deploy under roslaunch: whole sessions, and what is left when they break."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import episode_paths
from tests.ros.waiting import ROOT, wait_for

TASK = "Widow250SingleObjGrasp-v0"
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch"))


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda p: p.name)
def test_every_argument_is_documented(file):
    for line in re.findall(r"<arg [^>]*>", file.read_text()):
        assert " value=" in line or ' doc="' in line, line


@pytest.mark.parametrize("realism", ["off", "harsh"])
def test_collect_equals_the_loop_in_one_process(launch, tmp_path, realism):
    out = tmp_path / "ros"
    text = launch(
        "collect.launch", episodes=3, out=out, seed=5, operator="ada", realism=realism
    ).wait()
    assert "3/3 saved" in text and "Traceback" not in text
    assert main(["collect", "--task", TASK, "--episodes", "3", "--seed", "5",
                 "--realism", realism, "--out", str(tmp_path / "one")]) == 0  # fmt: skip
    pairs = list(zip(episode_paths(out), episode_paths(tmp_path / "one")))
    assert len(pairs) == 3
    for over_ros, in_process in pairs:
        a, b = read_episode(over_ros), read_episode(in_process)
        assert a.meta.seed == b.meta.seed and a.meta.success == b.meta.success
        assert a.meta.operator == "ada" and a.meta.actor == "scripted"
        assert a.meta.environment == b.meta.environment
        for name in ("actions", "actions_requested", "rewards", "state", "limited", "timeouts",
                     "held"):  # fmt: skip
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        assert np.array_equal(a.images["image"], b.images["image"])
        assert (np.diff(a.timestamps["obs"]) > 0).all()
        ages = [e.timestamps["obs"] - e.timestamps["image"] for e in (a, b)]
        assert np.array_equal(*ages) and ages[0].any() == (realism == "harsh")
        assert not a.held.any()
        for e in (a, b):  # in simulated time nothing takes any
            assert np.array_equal(e.timestamps["state"], e.timestamps["obs"])
            assert np.array_equal(e.timestamps["applied"], e.timestamps["action"])


def test_collect_train_deploy(launch, tmp_path):
    """The whole path: 12 scripted episodes, a few steps of CQL, two trials of the result."""
    data, trials = tmp_path / "data", tmp_path / "trials"
    launch("collect.launch", episodes=12, out=data).wait()
    assert main(["train", str(data), "--out", str(tmp_path / "runs"), "--name", "tiny",
                 "--steps", "12", "--warm-start-steps", "4", "--checkpoint-every", "6",
                 "--probe-size", "64", "--batch-size", "16", "--threads", "1"]) == 0  # fmt: skip
    text = launch("deploy.launch", ckpt="runs/tiny", trials=2, out=trials, realism="mild",
                  action_choice="max_q").wait()  # fmt: skip
    assert "/2 = " in text and "Traceback" not in text
    report = json.loads((trials / "trials.json").read_text())
    assert report["trials"] == 2 and report["policy"]["algo"] == "cql"
    assert report["policy"]["action_choice"] == "max_q"
    dataset = open_dataset(trials)  # every deployment is a dataset too
    assert [m.seed for m in dataset.metas] == [1000000, 1000001]
    assert [m.environment["realism"] for m in dataset.metas] == ["mild", "mild"]
    assert all(m.policy["sha256"] == report["policy"]["sha256"] for m in dataset.metas)
    again = launch("deploy.launch", ckpt="runs/tiny", trials=2, out=trials).wait()
    assert "holds episodes already" in again and len(episode_paths(trials)) == 2


def test_a_checkpoint_of_another_spec_or_without_a_critic_is_refused(launch, tmp_path):
    assert main(["collect", "--task", TASK, "--episodes", "3", "--image-size", "32",
                 "--out", str(tmp_path / "small")]) == 0  # fmt: skip
    assert main(["train", str(tmp_path / "small"), "--algo", "bc", "--steps", "2",
                 "--batch-size", "8", "--probe-size", "8", "--out", str(tmp_path / "runs"),
                 "--name", "small", "--threads", "1"]) == 0  # fmt: skip
    refusals = {
        "mode": ("ObservationSpec", "robot sim", "step_0000002"),
        "max_q": ("max_q needs a critic", "this bc checkpoint", "step_0000002"),
        "best": ("unknown action choice 'best'", "use mode or sample or max_q"),
    }
    for choice, words in refusals.items():
        text = launch("deploy.launch", ckpt="runs/small", trials=1, out=tmp_path / "none",
                      action_choice=choice).wait()  # fmt: skip
        assert all(word in text for word in words) and "Traceback" not in text
        assert not episode_paths(tmp_path / "none")


def test_ctrl_c_keeps_whole_episodes_only(launch, tmp_path):
    out = tmp_path / "data"
    running = launch("collect.launch", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 3, "three episodes")
    os.kill(running.process.pid, signal.SIGINT)
    text = running.wait(20)
    kept = episode_paths(out)
    assert len(kept) >= 3 and all(len(read_episode(path)) == 25 for path in kept)
    assert not list(out.glob("*.partial")), "the running episode is dropped"
    assert f"{open_dataset(out).successes}/" in text, "the count on disk is printed"


def test_discard_drops_the_running_episode_and_runs_it_again(launch, tmp_path):
    out = tmp_path / "data"
    running = launch("collect.launch", episodes=500, out=out)
    wait_for(lambda: episode_paths(out), "an episode")

    def discarded() -> bool:
        running.call("/sim/episode/discard")  # refused when it comes between two episodes
        # more often than an episode may lose ticks
        return running.output.count("discarded by the operator") > 3

    wait_for(discarded, "four discarded episodes")
    kept = len(episode_paths(out))
    wait_for(lambda: len(episode_paths(out)) > kept, "the episode to be run again")
    os.kill(running.process.pid, signal.SIGINT)
    running.wait(20)
    seeds = [m.seed for m in open_dataset(out).metas]
    assert seeds == list(range(len(seeds)))
    assert not list(out.glob("*.partial"))


def test_stop_ends_the_session_with_the_reason(launch, tmp_path):
    out = tmp_path / "data"
    running = launch("collect.launch", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 2, "two episodes")
    running.call("/sim/stop")
    text = running.wait(30)
    assert "robot stopped: operator" in text and "Traceback" not in text
    dataset = open_dataset(out)
    assert dataset.metas[0].abort_reason == "" and not list(out.glob("*.partial"))
    assert all(m.success == -1 for m in dataset.metas if m.abort_reason)


@pytest.mark.parametrize("victim", ["episode_node", "teleop_node", "robot_node"])
def test_kill_9_of_any_node_loses_at_most_one_episode(launch, tmp_path, victim):
    out = tmp_path / "data"
    running = launch("collect.launch", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 2, "two episodes")
    for pid in wait_for(lambda: running.pids(victim), victim):
        os.kill(pid, signal.SIGKILL)
    running.wait(30)  # every node is required: roslaunch ends the session
    before = episode_paths(out)
    assert len(before) >= 2 and all(len(read_episode(path)) == 25 for path in before)
    time.sleep(0.2)
    assert episode_paths(out) == before, "nothing goes on recording"


@pytest.mark.parametrize(
    "args, words",
    [
        ({"task": "Widow250SingleObjGrisp-v0"}, "Widow250SingleObjGrasp-v0"),
        ({"teleop": "spacenav"}, "'spacenav' is unknown; use one of: scripted"),
        ({"policy": "juggle"}, "scripted policy 'juggle' is unknown; use grasp or"),
        ({"realism": "wild"}, "use off or mild or harsh"),
        ({"episodes": 0}, "/sim/episode/episodes is 0"),
        ({"seed": -1}, "use a whole number of 0 or more"),
        ({"out": "/proc/nothing"}, "choose another"),
    ],
    ids=["task", "teleop", "policy", "realism", "episodes", "seed", "out"],
)
def test_bad_input_is_one_line(launch, args, words):
    text = launch("collect.launch", **args).wait()
    assert words in text and "Traceback" not in text


def test_relative_out_is_taken_from_where_roslaunch_ran(launch, tmp_path):
    launch("collect.launch", episodes=1, out="here/data").wait()
    assert len(episode_paths(Path(tmp_path) / "here" / "data")) == 1
