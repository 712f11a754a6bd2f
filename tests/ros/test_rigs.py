"""Rigs that are not the simulator alone: an arm and a device of somebody else, camera nodes."""

from __future__ import annotations

import os
import shutil
import threading

import cv2
import numpy as np
import pytest
import rospy
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ofrl_robot.config import CONFIG
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import CameraStoppedError, ConfigError
from ofrl_robot.specs import CameraSpec
from ofrl_ros.diagnostics import status_message
from ofrl_ros.topic_cameras import TopicCameras
from tests.ros.waiting import ROOT, wait_for

TASK = "Widow250SingleObjGrasp-v0"


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Install the example arm and device as somebody's package would be, for node processes."""
    site = tmp_path / "site"
    info = site / "somebody-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ofrl_robot.arms]\npoint = custom_arm:PointArm\n"
        "[ofrl_robot.teleop]\ncircle = custom_teleop:CircleDevice\n"
    )
    for name in ("custom_arm.py", "custom_teleop.py"):
        shutil.copy(ROOT / "examples" / name, site)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path}


@pytest.fixture
def cameras(tmp_path):
    """A cameras file; its camera plays pictures at 20 Hz, frame k has the grey level 40 + k."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for k in range(100):
        cv2.imwrite(str(frames / f"{k:03d}.png"), np.full((24, 32, 3), 40 + k, np.uint8))
    file = tmp_path / "cameras.yaml"
    camera = {"name": "front", "source": "images", "path": "frames", "fps": 20,
              "height": 24, "width": 32, "observation": {"height": 12, "width": 12}}  # fmt: skip
    file.write_text(yaml.safe_dump({"cameras": [camera]}))
    return file


@pytest.fixture
def limits(tmp_path):
    values = yaml.safe_load((CONFIG / "robots" / "sim.yaml").read_text())
    values.update(frame="base", workspace_low=[0, -0.4, 0], workspace_high=[0.5, 0.4, 0.5])
    values["max_silence"] = 2.0  # s: on a busy computer an answer may be as late
    file = tmp_path / "limits.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture
def published(node):
    """Grey level of every frame that the camera node publishes, by its stamp (ns)."""
    frames = {}

    def take(message):
        frames[message.header.stamp.to_nsec()] = message.data[0]

    rospy.Subscriber(
        f"{node.namespace}/camera/front/image_raw", Image, take, buff_size=2**20, tcp_nodelay=True
    )
    return frames


def assert_shown(episode, published):
    """Assert that every recorded frame is the one that was captured at its stamp."""
    grey, captured = episode.images["front"][:, 0, 0, 0].tolist(), episode.timestamps["front"]
    assert episode.images["front"].shape[1:] == (12, 12, 3)
    assert grey == [published[stamp] for stamp in captured.tolist()]
    assert (np.diff(captured) >= 0).all()


def test_an_arm_and_a_device_of_another_package_collect_with_camera_nodes(
    node, plugins, cameras, limits, published, tmp_path
):
    """Nothing of this package names them, no frame is rendered, and a person arranges the scene."""
    node.environment.update(plugins)
    node("camera_node.py", cameras=cameras)
    node("robot_node.py", robot="point", task="circle-the-table", horizon=6,
         limits=limits, cameras=cameras, lockstep=False, settings="{rate: 10}",
         instruction="wipe it")  # fmt: skip
    node("teleop_node.py", device="circle", device_settings="{rests: 3}")
    statuses = []
    rospy.Subscriber(f"{node.namespace}/robot/status", DiagnosticStatus, statuses.append)
    out = tmp_path / "data"
    recorder, text = node("episode_node.py", actor="teleop", device="circle", episodes=2, out=out)
    for _ in range(2):
        wait_for(lambda: statuses and "arrange the scene for: wipe it" in statuses[-1].message,
                 "the robot to ask for the scene", timeout=60)  # fmt: skip
        assert rospy.ServiceProxy(f"{node.namespace}/scene_ready", Trigger)().success
        wait_for(lambda: statuses[-1].message == "armed", "the episode to start")
    assert recorder.wait(60) == 0, text.read_text()
    dataset = open_dataset(out)
    assert dataset.observation_spec.state_frame == dataset.action_spec.frame == "base"
    meta = dataset.metas[0]
    assert (meta.robot, meta.task, meta.actor) == ("point", "circle-the-table", "circle")
    assert meta.environment == {"rate": 10, "instruction": "wipe it", "size": 0.2, "rests": 3}
    assert [m.success for m in dataset.metas] == [-1, -1], "nobody has labelled them"
    for path in dataset.paths:
        episode = read_episode(path)
        assert len(episode) == 6
        assert episode.held[2] and episode.held[5], "the device was not touched there"
        assert_shown(episode, published)
        assert (episode.timestamps["obs"] > episode.timestamps["front"]).all()


def test_the_simulator_with_frames_of_camera_nodes(node, cameras, published, tmp_path):
    node("camera_node.py", cameras=cameras)
    node("robot_node.py", task=TASK, cameras=cameras)
    node("teleop_node.py", device="scripted")
    out = tmp_path / "data"
    recorder, text = node("episode_node.py", actor="teleop", device="scripted", episodes=1, out=out)
    assert recorder.wait(60) == 0, text.read_text()
    dataset = open_dataset(out)
    assert [c.name for c in dataset.observation_spec.cameras] == ["front"]
    episode = read_episode(dataset.paths[0])
    assert_shown(episode, published)
    assert episode.meta.success in (0, 1), "the simulated task still labels"


def test_scripted_teleoperation_needs_ground_truth(node, plugins, cameras, limits):
    node.environment.update(plugins)
    node("camera_node.py", cameras=cameras)
    node("robot_node.py", robot="point", task=TASK, horizon=6, limits=limits, cameras=cameras)
    process, log = node("teleop_node.py", device="scripted", device_settings="{noise: 0.1}")
    assert process.wait(60) == 2
    text = log.read_text()
    assert "needs ground truth, and robot point has none" in text
    assert len(text.strip().splitlines()) == 1, text


def test_a_camera_that_sends_nothing_is_named(master):
    with pytest.raises(ConfigError, match="camera front sent nothing on /camera/front/camera_info"):
        TopicCameras([CameraSpec("front", 8, 8)], timeout=0.2)


def test_a_camera_that_says_it_is_stale_stops_the_episode(master):
    status = rospy.Publisher("/camera/side/status", DiagnosticStatus, queue_size=1, latch=True)
    infos = rospy.Publisher("/camera/side/camera_info", CameraInfo, queue_size=1, latch=True)
    info = CameraInfo()
    info.header.stamp = rospy.Time(5, 7)
    infos.publish(info)
    status.publish(status_message("camera/side", 0, "no frame yet", {"reason": "starting"}))
    cameras = TopicCameras([CameraSpec("side", 8, 8)])
    assert cameras.newest()["side"].stamp_ns == 5_000_000_007
    status.publish(status_message("camera/side", 2, "no new frame", {"reason": "stale"}))

    def stopped():
        try:
            cameras.newest()
        except CameraStoppedError as error:
            return str(error)

    assert "camera side stopped" in wait_for(stopped, "the status")
    cameras.close()


def test_a_reset_that_waits_for_the_scene_can_be_stopped_or_replaced(
    node, plugins, cameras, limits
):
    node.environment.update(plugins)
    node("camera_node.py", cameras=cameras)
    node("robot_node.py", robot="point", task="t", horizon=6, limits=limits, cameras=cameras)
    rospy.wait_for_service(f"{node.namespace}/reset", 60)
    statuses, answers = [], []
    rospy.Subscriber(f"{node.namespace}/robot/status", DiagnosticStatus, statuses.append)

    def call(name):
        return rospy.ServiceProxy(f"{node.namespace}/{name}", Trigger)()

    def reset():
        thread = threading.Thread(target=lambda: answers.append(call("reset")), daemon=True)
        thread.start()
        wait_for(lambda: statuses and "arrange the scene" in statuses[-1].message, "the request")

    assert not call("scene_ready").success, "nothing waits for it"
    reset()
    reset()  # of a new session, say: the one before is gone
    wait_for(lambda: len(answers) == 1, "the first answer")
    assert not answers[0].success
    assert call("stop").success
    wait_for(lambda: len(answers) == 2, "the second answer")
    assert not answers[1].success and "operator" in answers[1].message
    assert not call("reset").success
    assert call("rearm").success


def test_where_the_base_stands_in_the_world_is_published(node):
    received = []
    rospy.Subscriber("/tf_static", TFMessage, received.append)
    node("robot_node.py", task=TASK)
    (transform,) = wait_for(lambda: received, "the static transform")[0].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("world", "base")
    position = transform.transform.translation
    assert (position.x, position.y, position.z) == (0.6, 0.0, -0.4)
