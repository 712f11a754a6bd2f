"""Sessions that break: nothing is lost in silence, nothing false is recorded, all of it is said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest
import rospy
import yaml
from sensor_msgs.msg import Image, JointState, Joy
from std_srvs.srv import Trigger

from ofrl_robot.cli import main
from ofrl_robot.config import CONFIG
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import episode_paths
from tests.ros.session_helpers import TASK, Session, settle
from tests.ros.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def session(node, tmp_path):
    """Function that starts a session; its arguments are those of Session."""
    return lambda **kwargs: Session(node, tmp_path / "data", **kwargs)


# -- strangers on our topics -----------------------------------------------------------------


class Stranger:
    """Publishes on every topic of a session; each message answers a tick or frame at once."""

    def __init__(self, namespace: str, malformed: bool) -> None:
        self._malformed, self.sent = malformed, 0
        topics = {
            "tick": JointState, "applied_action": Joy, "camera/image/image_raw": Image,
            "policy/action": Joy, "teleop/action": Joy, "ground_truth": JointState,
        }  # fmt: skip
        self._topics = {
            name: rospy.Publisher(f"{namespace}/{name}", kind, queue_size=100, tcp_nodelay=True)
            for name, kind in topics.items()
        }
        for name, kind in (("tick", JointState), ("camera/image/image_raw", Image)):
            rospy.Subscriber(f"{namespace}/{name}", kind, self._echo, name, tcp_nodelay=True)

    def _echo(self, message, name) -> None:
        if message._connection_header["callerid"] == rospy.get_name():
            return  # our own
        self.sent += 1
        if self._malformed:
            for publisher in self._topics.values():
                publisher.publish(publisher.data_class())
            return
        if name != "tick":
            message.data = bytes(255 - v for v in message.data)
            self._topics[name].publish(message)
            return
        joy = Joy(axes=[0.5] * 8)
        joy.header.stamp = message.header.stamp
        for topic in ("policy/action", "teleop/action"):
            self._topics[topic].publish(joy)
        applied = Joy(axes=[0.5] * 16, buttons=[0, 0, 0, 0, 0])
        applied.header.stamp, applied.header.frame_id = message.header.stamp, "human"
        self._topics["applied_action"].publish(applied)
        values = dict(zip(message.name, message.position), reward=1.0)
        message.position = list(values.values())
        self._topics["tick"].publish(message)


@pytest.mark.parametrize("malformed", [False, True], ids=["plausible", "malformed"])
def test_strangers_on_our_topics_change_nothing(session, tmp_path, malformed):
    running = session(episodes=6)
    running.wait_saved(1)
    stranger = Stranger(running.namespace, malformed)
    assert running.end(60) == 0, running.text
    assert stranger.sent > 50
    assert "Traceback" not in running.text and running.text.count("ignoring node") >= 3
    assert main(["collect", "--task", TASK, "--episodes", "6", "--out", str(tmp_path / "one")]) == 0
    for a, b in zip(episode_paths(running.out), episode_paths(tmp_path / "one")):
        mine, truth = read_episode(a), read_episode(b)
        for name in ("actions", "actions_requested", "rewards", "state"):
            assert np.array_equal(getattr(mine, name), getattr(truth, name)), name
        assert np.array_equal(mine.images["image"], truth.images["image"])
        assert not mine.held.any() and mine.meta.success == truth.meta.success


# -- stops -------------------------------------------------------------------------------------


def test_a_stop_is_never_forgotten_whatever_the_recorder_does(session):
    """While it saves, between two episodes, and while it waits after another stop."""
    running = session()
    running.wait_saved(1)
    for moment, wish in (("saving", "again"), ("idle", "next"), ("resetting", "again")):
        called = threading.Event()

        def stop_and_rearm(state, moment=moment, called=called):
            if state == moment and not called.is_set():
                assert running.call("stop").success and running.call("rearm").success
                called.set()

        running.on_state = stop_and_rearm
        wait_for(called.is_set, f"a stop while {moment}")
        running.wait_state("stopped")
        count = len(episode_paths(running.out))
        settle(0.5)
        assert len(episode_paths(running.out)) == count and running.states[-1] == "stopped"
        if moment == "saving":
            assert running.call("stop").success
            assert not running.call(f"episode/{wish}").success, "the robot is stopped"
        assert running.call("rearm").success and running.call(f"episode/{wish}").success
        running.wait_saved(count + 2)
    assert set(running.reasons()) <= {"operator"}
    running.send("episode", signal.SIGINT)
    assert running.end() == 0
    assert "Traceback" not in running.text


def test_after_a_stop_the_same_episode_runs_again_or_the_next_one(session):
    running = session()
    running.wait_saved(1)

    def stop_in_an_episode() -> int:
        """Seed of the episode that was stopped."""
        count = len(running.reasons())
        running.wait_state("running")
        running.call("stop")
        running.wait_state("stopped")
        if len(running.reasons()) == count:  # it ended just before
            running.call("rearm"), running.call("episode/again")
            return stop_in_an_episode()
        return running.metas()[-1].seed

    for wish, step in (("again", 0), ("next", 1)):
        seed = stop_in_an_episode()
        saved = len(episode_paths(running.out))
        assert running.call("rearm").success and running.call(f"episode/{wish}").success
        running.wait_saved(saved + 1)
        after = running.metas()[saved]
        assert after.seed == seed + step and not after.abort_reason
    running.send("robot", signal.SIGINT)
    assert running.end() == 2
    assert all(m.success == -1 for m in running.metas() if m.abort_reason)


def test_after_stop_end_ends_the_session(session):
    running = session(recorder={"after_stop": "end"})
    running.wait_saved(1)
    running.wait_state("running")
    assert running.call("stop").success
    assert running.end() == 2
    assert "the episode ended early (operator)" in running.text
    assert "Traceback" not in running.text


def test_discard_at_100_hz_stalls_nothing_and_labels_count_for_one_episode(session):
    running = session()
    running.wait_saved(1)
    before, answers = len(episode_paths(running.out)), []
    until = time.monotonic() + 2.0
    discard = rospy.ServiceProxy(f"{running.namespace}/episode/discard", Trigger, persistent=True)
    while time.monotonic() < until:
        answers.append(discard().success)
        time.sleep(0.01)
    assert sum(answers) > 5
    running.wait_saved(before + 2, timeout=10)  # it was 15 s until a lost tick was given up
    running.wait_state("running")
    labelled = sum(running.call("episode/failure").success for _ in range(20))
    assert labelled
    running.send("episode", signal.SIGINT)
    assert running.end() == 0
    metas = running.metas()
    assert [m.seed for m in metas] == list(range(len(metas)))
    for meta, path in zip(metas, episode_paths(running.out)):
        assert meta.label_source != "operator" or len(read_episode(path)) > 0
    assert sum(m.label_source == "operator" for m in metas) <= labelled
    assert "lost" not in running.text and "Traceback" not in running.text


def test_a_pause_is_no_lost_tick(session):
    running = session(robot={"lockstep": False})
    running.wait_saved(1)
    running.wait_state("running")
    assert running.call("pause").success
    count = len(running.states)
    settle(1.5)  # longer than the recorder may be silent, and the actor
    assert len(running.states) == count, "the episode waits"
    assert running.call("resume").success
    running.wait_state("saving")
    running.send("episode", signal.SIGINT)
    assert running.end() == 0
    assert running.reasons() in ([], ["session_ended"]) and "robot stopped" not in running.text


# -- nodes that die ----------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["robot", "teleop"])
def test_kill_9_in_lockstep_loses_no_episode_and_names_the_node(session, victim):
    running = session()
    running.wait_saved(2)
    running.wait_state("running")
    running.send(victim)
    assert running.end() == 2
    assert f"the {victim} node ended" in running.text and "Traceback" not in running.text
    assert set(running.reasons()) <= {f"the {victim} node ended"}
    assert not list(running.out.glob("*.partial"))


def test_a_robot_node_that_hangs_is_noticed_and_the_episode_saved(session):
    running = session()
    running.wait_saved(1)
    running.wait_state("running")
    running.send("robot", signal.SIGSTOP)
    began = time.monotonic()
    assert running.end(10) == 2
    assert time.monotonic() - began < 4.0
    assert "no sign of the robot node for 2" in running.text and "Traceback" not in running.text
    assert not list(running.out.glob("*.partial"))
    assert all("no sign of the robot node" in reason for reason in running.reasons())


FLAKY = """
from ofrl_robot.robots.sim import SimArm

class FlakyArm(SimArm):
    commands = 0
    def command(self, setpoint):
        self.commands += 1
        if self.commands == 5:
            raise SystemExit("no connection to the arm")  # as a vendor's client gives up
        return super().command(setpoint)
"""


@pytest.fixture
def flaky(node, tmp_path):
    """Install an arm whose fifth command raises SystemExit, once; parameters of its robot node."""
    site = tmp_path / "site"
    info = site / "flaky-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flaky\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ofrl_robot.arms]\nflaky = flaky:FlakyArm\n")
    (site / "flaky.py").write_text(FLAKY)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    node.environment.update(PYTHONPATH=path)
    limits = tmp_path / "limits.yaml"
    shutil.copy(CONFIG / "robots" / "sim.yaml", limits)
    return {"robot": "flaky", "limits": limits}


def test_a_driver_that_raises_systemexit_stops_the_arm_and_the_session_waits(session, flaky):
    running = session(robot=flaky, episodes=1)
    running.wait_state("stopped")
    assert running.reasons() == ["robot_fault"]
    assert "SystemExit: no connection to the arm" in running.text
    assert running.call("rearm").success and running.call("episode/again").success
    assert running.end(30) == 0, running.text
    assert [m.abort_reason for m in running.metas()] == ["robot_fault", ""]
    assert [m.seed for m in running.metas()] == [0, 0] and "Traceback" not in running.text


def test_kill_9_of_the_camera_node_saves_what_was_recorded(session, node, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for k in range(100):
        cv2.imwrite(str(frames / f"{k:03d}.png"), np.full((24, 32, 3), k, np.uint8))
    file = tmp_path / "cameras.yaml"
    camera = {"name": "front", "source": "images", "path": "frames", "fps": 20,
              "height": 24, "width": 32, "observation": {"height": 12, "width": 12}}  # fmt: skip
    file.write_text(yaml.safe_dump({"cameras": [camera]}))
    cameras, _ = node("camera_node.py", cameras=file)
    running = session(robot={"cameras": file, "lockstep": False})
    running.wait_saved(1)
    running.wait_state("running")
    settle(0.3)  # some of the episode
    cameras.kill()
    assert running.end() == 2
    (reason,) = running.reasons()
    assert (
        reason in ("the camera node of front ended", "camera") and "Traceback" not in running.text
    )
    assert not list(running.out.glob("*.partial"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_session_in_one_line_and_keeps_whole_episodes(session, small_disk):
    running = session(actor="policy", recorder={"out": small_disk})  # it writes trials.json too
    assert running.end(60) == 2
    lines = running.logs["episode"].read_text().splitlines()
    assert "No space left" in lines[-1] and "Traceback" not in running.text, running.text
    kept = episode_paths(small_disk)
    assert kept and all(len(read_episode(path)) > 0 for path in kept)


# -- what started the nodes is gone ------------------------------------------------------------


def test_a_second_launch_is_refused_and_kill_9_of_roslaunch_leaves_no_node(launch, tmp_path):
    out = tmp_path / "data"
    first = launch("collect.launch", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 2, "two episodes")
    second = launch("collect.launch", port=first.port, episodes=1, out=tmp_path / "other")
    text = second.wait(60)
    assert "another session runs here already: node /sim/" in text and "Traceback" not in text
    count = len(episode_paths(out))
    wait_for(lambda: len(episode_paths(out)) >= count + 2, "the first session to go on")
    assert not (tmp_path / "other").exists()

    first.process.kill()
    wait_for(lambda: not first.pids("_node.py"), "the nodes to end", timeout=15)
    metas = [read_episode(path).meta for path in episode_paths(out)]
    assert {m.abort_reason for m in metas[:-1]} == {""}
    gone = "the process that started this node is gone"
    assert metas[-1].abort_reason in ("", "master_lost", gone), "the robot may say it first"
    assert not list(out.glob("*.partial")) and "Traceback" not in first.output


def test_a_master_that_dies_ends_the_session_and_saves_the_episode(launch, tmp_path):
    out = tmp_path / "data"
    running = launch("collect", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 2, "two episodes")
    os.kill(running.pids("rosmaster")[0], signal.SIGKILL)
    text = running.wait(30)
    assert running.process.returncode == 2 and "Traceback" not in text, text
    assert not list(out.glob("*.partial"))
    metas = [read_episode(path).meta for path in episode_paths(out)]
    assert {m.abort_reason for m in metas[:-1]} == {""}
    assert metas[-1].abort_reason in ("", "master_lost", "the ROS master is gone")
    assert "the ROS master is gone" in text.splitlines()[-1]


def test_kill_9_of_ofrl_launch_leaves_no_node(launch, tmp_path):
    out = tmp_path / "data"
    running = launch("collect", episodes=500, out=out)
    wait_for(lambda: len(episode_paths(out)) >= 1, "an episode")
    running.process.kill()
    wait_for(lambda: not running.pids(""), "nodes and master to end", timeout=15)
    assert not list(out.glob("*.partial"))
