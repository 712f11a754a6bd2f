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
from ofrl_robot.evaluation.trials import report_trials
from tests.ros.waiting import ROOT, wait_for

TASK = "Widow250SingleObjGrasp-v0"
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch"))


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda p: p.name)
def test_every_argument_is_documented(file):
    for line in re.findall(r"<arg [^>]*>", file.read_text()):
        assert " value=" in line or ' doc="' in line, line


@pytest.mark.parametrize("realism", ["off", "harsh,gripper_delay=1"])
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
        assert np.array_equal(*ages) and ages[0].any() == (realism != "off")
        assert not a.held.any()
        for e in (a, b):  # in simulated time nothing takes any
            assert np.array_equal(e.timestamps["state"], e.timestamps["obs"])
            assert np.array_equal(e.timestamps["applied"], e.timestamps["action"])


def test_collect_train_deploy(launch, tmp_path):
    """The whole path: 12 scripted episodes, a few steps of CQL, two trials of the result."""
    data, trials = tmp_path / "data", tmp_path / "trials"
    launch("collect.launch", episodes=12, out=data).wait()
    # as many as a summary of the pictures needs; quicker in one process
    assert main(["collect", "--task", TASK, "--episodes", "12", "--out", str(data)]) == 0
    assert main(["train", str(data), "--out", str(tmp_path / "runs"), "--name", "tiny",
                 "--steps", "12", "--warm-start-steps", "4", "--checkpoint-every", "6",
                 "--probe-size", "64", "--batch-size", "16", "--threads", "1"]) == 0  # fmt: skip
    text = launch("deploy.launch", ckpt="runs/tiny", trials=2, out=trials, realism="mild",
                  action_choice="max_q").wait()  # fmt: skip
    assert "/2 = " in text and "Traceback" not in text
    report = json.loads((trials / "trials.json").read_text())
    assert report["trials"] == 2 and report["policy"]["algo"] == "cql"
    assert report["policy"]["action_choice"] == "max_q"
    place = {"backend": "embedded", "realism": "mild", "action_choice": "max_q",
             "control_rate_hz": 24.0}  # fmt: skip
    assert {name: report["conditions"][name] for name in place} == place
    assert report["seeds"] == "seeds 1000000-1000001" and "embedded, realism mild, 24 Hz" in text
    assert "policy: trained on realism off; this is realism mild" in text
    scores = [row["pictures"]["score"] for row in report["rows"]]
    assert len(scores) == 2 and min(scores) > 0 and "\npictures: " in text
    dataset = open_dataset(trials)  # every deployment is a dataset too
    assert [m.seed for m in dataset.metas] == [1000000, 1000001]
    assert [m.environment["realism"] for m in dataset.metas] == ["mild", "mild"]
    assert all(m.policy["sha256"] == report["policy"]["sha256"] for m in dataset.metas)
    again = launch("deploy", ckpt="runs/tiny", trials=2, out=trials)
    text = again.wait()
    assert len(episode_paths(trials)) == 2
    assert again.process.returncode == 2 and "holds episodes already" in text.splitlines()[-1]
    # the policy dies in lockstep: the trial is not lost in silence, and not counted
    killed = launch("deploy", ckpt="runs/tiny", trials=200, out=tmp_path / "more")
    wait_for(lambda: len(episode_paths(tmp_path / "more")) >= 2, "two trials")
    os.kill(killed.pids("policy_node")[0], signal.SIGKILL)
    text = killed.wait(30)
    assert killed.process.returncode == 2 and "the policy node ended" in text
    report = report_trials(tmp_path / "more")
    assert report.aborted <= 1 and report.trials == len(report.rows) - report.aborted
    assert report.line() in text


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


def test_ctrl_c_saves_the_running_episode_as_aborted(launch, tmp_path):
    out = tmp_path / "data"
    running = launch("collect", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 3, "three episodes")
    os.kill(running.process.pid, signal.SIGINT)
    text = running.wait(20)
    assert running.process.returncode == 130 and "Traceback" not in text
    *whole, last = (read_episode(path) for path in episode_paths(out))
    assert len(whole) >= 2 and all(len(e) == 25 and not e.meta.abort_reason for e in whole)
    assert last.meta.abort_reason in ("session_ended", ""), "it may come between two episodes"
    assert not list(out.glob("*.partial"))
    assert report_trials(out).line() in text, "the count on disk is printed"


@pytest.mark.parametrize("victim", ["episode_node", "robot_node"])
def test_kill_9_of_any_node_loses_at_most_one_episode_and_is_exit_code_2(launch, tmp_path, victim):
    out = tmp_path / "data"
    running = launch("collect", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 2, "two episodes")
    for pid in wait_for(lambda: running.pids(victim), victim):
        os.kill(pid, signal.SIGKILL)
    text = running.wait(30)  # every node is required: roslaunch ends the session
    saved = [not m.abort_reason for m in open_dataset(out).metas]
    reason = "the recorder was killed" if victim == "episode_node" else "robot node"
    assert running.process.returncode == 2 and reason in text.splitlines()[-1]
    assert sum(saved) >= 2 and all(saved[:-1]) and "Traceback" not in text
    time.sleep(0.2)
    assert len(episode_paths(out)) == len(saved), "nothing goes on recording"


@pytest.mark.parametrize(
    "args, words",
    [
        ({"teleop": "spacenav"}, "'spacenav' is unknown; use one of: "),
        ({"policy": "juggle"}, "scripted policy 'juggle' is unknown; use grasp or"),
        ({"episodes": 0}, "/sim/episode/episodes is 0"),
        ({"episode": 3}, "collect.launch has no argument 'episode'; did you mean episodes:="),
        ({"seed": -1}, "use a whole number of 0 or more"),
        ({"out": "/proc/nothing"}, "choose another"),
    ],
    ids=["teleop", "policy", "episodes", "misspelt", "seed", "out"],
)
def test_bad_input_is_one_line(launch, args, words):
    text = launch("collect.launch", **args).wait()
    assert words in text and "Traceback" not in text


def test_relative_out_is_taken_from_where_roslaunch_ran(launch, tmp_path):
    running = launch("collect", episodes=1, out="here/data")
    text = running.wait()
    assert len(episode_paths(Path(tmp_path) / "here" / "data")) == 1
    assert running.process.returncode == 0
    assert len(text.splitlines()) == 2, "progress and the count, nothing of roslaunch"
