"""The camera node's promises, with folders of images in the place of cameras."""

from __future__ import annotations

import os
import signal

import cv2
import h5py
import numpy as np
import pytest
import rospy
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image

from ofrl_robot.cameras.config import load_cameras
from ofrl_robot.control.signals import POLICY, AppliedAction, Tick
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import SUCCESS, EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.images import prepare
from ofrl_robot.specs import WIDOWX_ACTION, ObservationSpec
from ofrl_ros import messages
from ofrl_ros.assembler import TickAssembler
from ofrl_ros.events import Events
from tests.ros.waiting import wait_for

HEIGHT, WIDTH = 24, 32
CALIBRATION = """
image_width: 32
image_height: 24
distortion_model: plumb_bob
camera_matrix: {data: [30.0, 0, 16, 0, 30, 12, 0, 0, 1]}
distortion_coefficients: {data: [0.1, 0, 0, 0, 0]}
rectification_matrix: {data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {data: [30.0, 0, 16, 0, 0, 30, 12, 0, 0, 0, 1, 0]}
"""


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def rig(tmp_path):
    """Function that writes a rig file of image folders; entries are (name, images, settings)."""

    def write(*cameras):
        entries = []
        for name, count, settings in cameras:
            (tmp_path / name).mkdir(exist_ok=True)
            for i in range(count):
                bgr = cv2.cvtColor(pixels(i), cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(tmp_path / name / f"im_{i}.png"), bgr)
            entry = {"name": name, "source": "images", "path": name, "width": WIDTH}
            # on a busy machine nothing may look stale that is only late
            entry.update({"height": HEIGHT, "fps": 50, "stale_after": 500, **settings})
            entries.append(entry)
        (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"cameras": entries}))
        (tmp_path / "calibration.yaml").write_text(CALIBRATION)
        return tmp_path / "rig.yaml"

    return write


class Heard:
    """What a camera of the node in ``namespace`` says, from its first message on."""

    def __init__(self, namespace: str, camera: str) -> None:
        self.images, self.infos, self.statuses, self.diagnostics = [], [], [], []
        topic = f"{namespace}/camera/{camera}/"
        rospy.Subscriber(f"{topic}image_raw", Image, self.images.append)
        rospy.Subscriber(f"{topic}camera_info", CameraInfo, self.infos.append)
        self.status = rospy.Subscriber(f"{topic}status", DiagnosticStatus, self.statuses.append)
        rospy.Subscriber("/diagnostics", DiagnosticArray, self._on_diagnostics)
        self._name = f"ofrl/camera/{camera}"

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [s for s in message.status if s.name == self._name]

    def reasons(self):
        return [values(status)["reason"] for status in self.statuses]


def values(status: DiagnosticStatus) -> dict:
    return {pair.key: pair.value for pair in status.values}


def test_frames_their_stamps_and_camera_info(node, rig):
    file = rig(("front", 12, {"calibration": "calibration.yaml"}), ("wrist", 5, {"fps": 20}))
    front, wrist = (Heard(node.namespace, name) for name in ("front", "wrist"))
    process, log = node("camera_node.py", cameras=file)
    wait_for(lambda: len(front.images) > 20 and len(wrist.images) > 10, "frames of both")
    shown = [messages.image_pixels(image) for image in front.images]
    first = next(i for i in range(12) if np.array_equal(shown[0], pixels(i)))
    assert front.images[0].encoding == "rgb8" and front.images[0].header.frame_id == "front"
    assert np.array_equal(shown[1], pixels((first + 1) % 12)), "in RGB, one after the other"
    stamps = [image.header.stamp for image in front.images]
    assert all(a < b for a, b in zip(stamps, stamps[1:]))
    assert abs((rospy.Time.now() - stamps[-1]).to_sec()) < 10.0
    infos = {info.header.stamp: info for info in list(front.infos)}
    assert infos[stamps[5]].K[0] == 30.0 and infos[stamps[5]].distortion_model == "plumb_bob"
    assert wrist.infos[0].K == (0.0,) * 9 and wrist.infos[0].width == WIDTH
    assert log.read_text().count("wrist has no calibration") == 1
    last = wait_for(lambda: len(front.diagnostics) > 1 and front.diagnostics[-1], "diagnostics")
    told = values(last)
    assert told["stamp"] == "arrival" and told["nominal_hz"] == "50" and told["reason"] == ""
    assert float(told["rate_hz"]) > 0 and float(told["age_s"]) >= 0
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: process.poll() is not None, "the node to end", timeout=5.0)
    assert "Traceback" not in log.read_text()


def test_a_camera_that_goes_and_comes_back_says_so(node, rig, tmp_path):
    heard = Heard(node.namespace, "front")
    node("camera_node.py", cameras=rig(("front", 12, {})))
    wait_for(lambda: len(heard.images) > 3 and heard.reasons()[-1:] == [""], "frames")
    (tmp_path / "front").rename(tmp_path / "away")
    wait_for(lambda: heard.reasons()[-1] == "disconnected", "the loss")
    assert heard.statuses[-1].level == DiagnosticStatus.ERROR
    late = Heard(node.namespace, "front")
    wait_for(lambda: late.reasons() == ["disconnected"], "the latched status")
    assert "front" in late.statuses[0].message
    assert not late.images, "an old frame must not look like a new one"
    (tmp_path / "away").rename(tmp_path / "front")
    wait_for(lambda: late.images and late.reasons()[-1] == "", "frames again")
    told = wait_for(
        lambda: [d for d in late.diagnostics if values(d)["reconnects"] == "1"], "diagnostics"
    )
    assert told[-1].level != DiagnosticStatus.ERROR


def test_a_frozen_camera_sends_its_frame_once(node, rig):
    frozen, other = (Heard(node.namespace, name) for name in ("frozen", "allowed"))
    node("camera_node.py", cameras=rig(("frozen", 1, {}), ("allowed", 1, {"frozen_after": 0})))
    wait_for(lambda: frozen.reasons()[-1:] == ["frozen"], "frozen")
    wait_for(lambda: len(other.images) > 10, "frames of a camera that may repeat")
    assert len(frozen.images) <= 1 and other.reasons()[-1] == ""
    assert wait_for(lambda: frozen.diagnostics, "diagnostics")[-1].level == DiagnosticStatus.ERROR


def test_wrong_settings_are_one_line_and_exit_code_2(node, rig, monkeypatch):
    for params, words in (
        ({}, ["no cameras given", "cameras:=<YAML file>"]),
        ({"cameras": "none.yaml"}, ["none.yaml", "does not exist"]),
        ({"cameras": rig(("front", 1, {"fps": -1}))}, ["camera front", "fps is -1"]),
    ):
        process, log = node("camera_node.py", **params)
        assert process.wait(30) == 2
        text = log.read_text()
        assert all(word in text for word in words) and len(text.strip().splitlines()) == 1, text


def test_launch_in_the_namespace_of_the_robot(launch, rig, tmp_path):
    rig(("front", 12, {}))
    running = launch("cameras.launch", cameras="rig.yaml", robot="widowx")

    wait_for(lambda: "/widowx/camera/front/image_raw: ok" in running.output, "frames")
    os.kill(running.process.pid, signal.SIGINT)
    text = running.wait(30)
    assert "camera front has no calibration" in text and "Traceback" not in text


def test_from_the_camera_to_the_episode(node, rig, tmp_path):
    """Recorded: the small frame, its capture stamp, and the raw frame as JPEG. A robot by hand."""
    small = {"crop": [0, 4, 24, 24], "height": 8, "width": 8}
    (camera,) = load_cameras(rig(("front", 12, {"observation": small})))
    spec = ObservationSpec((camera.observation,), ("x",), ("m",), "base")
    heard = Heard(node.namespace, "front")
    node("camera_node.py", cameras=tmp_path / "rig.yaml")
    wait_for(lambda: len(heard.images) > 6, "frames")
    events = Events()
    assembler = TickAssembler(spec, events)
    for image in heard.images[:6]:
        assembler.take(image, "front")
    meta = EpisodeMeta("fake", "nothing", WIDOWX_ACTION, spec, 25.0)
    writer = EpisodeWriter(tmp_path, meta, jpeg_quality=90)
    shown = heard.images[1:6:2]  # a robot at half the rate of the camera
    for step, image in enumerate(shown):
        captured = image.header.stamp.to_nsec()
        tick = Tick(captured + 15_000_000, step, {}, np.zeros(1), truncated=image is shown[-1],
                    image_stamps_ns={"front": captured})  # fmt: skip
        assembler.take(messages.tick_message(tick, spec, messages.TickInfo(0, 1)), "tick")
        tick, _ = assembler.assemble(events.get(5.0)[1])
        writer.observe(tick)
        if not tick.last:
            writer.act(AppliedAction(tick.stamp_ns, np.zeros(8), np.zeros(8), POLICY))
    path = writer.finish(SUCCESS, "test")
    episode = read_episode(path)
    raw = [messages.image_pixels(image) for image in shown]
    expected = [prepare(frame, camera.observation) for frame in raw]
    assert np.array_equal(episode.images["front"], expected) and expected[0].shape == (8, 8, 3)
    captured = [image.header.stamp.to_nsec() for image in shown]
    assert episode.timestamps["front"].tolist() == captured
    with h5py.File(str(path), "r") as file:
        rows = file["data/demo_0/obs_jpeg/front"][:]
    kept = [cv2.imdecode(row, cv2.IMREAD_COLOR) for row in rows]
    assert [frame.shape for frame in kept] == [(HEIGHT, WIDTH, 3)] * 3
