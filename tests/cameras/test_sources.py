"""Sources: files for real; V4L2 and RealSense against stand-ins of their libraries."""

from __future__ import annotations

import sys
import time
import types

import cv2
import numpy as np
import pytest

from ofrl_robot.cameras import v4l2
from ofrl_robot.cameras.camera import ARRIVAL, DEVICE, CameraEnded
from ofrl_robot.cameras.files import FileCamera, image_frames, video_frames
from ofrl_robot.cameras.realsense import RealSenseCamera
from ofrl_robot.cameras.v4l2 import V4L2Camera
from ofrl_robot.errors import CameraError, ConfigError
from tests.cameras.scripted_camera import SIZE, noise


def opened(camera):
    camera.open()
    return camera


def test_images_come_in_the_order_of_their_numbers_and_again(image_folder):
    camera = opened(FileCamera(image_folder, image_frames, 1000.0, loop=True))
    for i in list(range(12)) + [0, 1]:
        frame = camera.read()
        assert np.array_equal(frame.pixels, noise(i)), i
        assert frame.clock == ARRIVAL and abs(time.time_ns() - frame.stamp_ns) < 60e9


@pytest.mark.slow
def test_frames_are_paced(image_folder):
    camera = opened(FileCamera(image_folder, image_frames, 50.0, loop=True))
    stamps = [camera.read().stamp_ns for _ in range(11)]
    assert stamps[-1] - stamps[0] >= 0.19e9, "ten periods of 20 ms"


def test_without_loop_it_ends(image_folder):
    camera = opened(FileCamera(image_folder, image_frames, 1000.0, loop=False))
    for _ in range(12):
        camera.read()
    with pytest.raises(CameraEnded, match="is over; set loop: true"):
        camera.read()


def test_a_video_is_played_in_rgb(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, SIZE[::-1])
    for value in (40, 120, 200):
        frame = np.zeros(SIZE + (3,), np.uint8)
        frame[..., 2] = value  # red, in OpenCV's order
        writer.write(frame)
    writer.release()
    camera = opened(FileCamera(path, video_frames, 1000.0, loop=True))
    red = [int(camera.read().pixels[..., 0].mean()) for _ in range(4)]
    assert np.allclose(red, [40, 120, 200, 40], atol=6)
    camera.close()


def test_files_that_are_no_source(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.avi").write_text("text")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "im_0.png").write_bytes(b"\x89PNG")
    for name, frames, words in (
        ("none", image_frames, "none does not exist"),
        ("empty", image_frames, "has no frame"),
        ("text.avi", image_frames, "is not a folder of images"),
        ("text.avi", video_frames, "is not a video"),
        ("bad", image_frames, "im_0.png cannot be read"),
    ):
        with pytest.raises(CameraError, match=words):
            opened(FileCamera(tmp_path / name, frames, 1000.0, loop=True)).read()


class FakeCapture:
    """cv2.VideoCapture as a V4L2 device: a red frame, stamped 20 ms ago by the kernel."""

    def __init__(self, node, backend):
        self.node, self.backend, self.settings = node, backend, []
        self.alive = self.opens = True
        self.broken = 0

    def isOpened(self):
        return self.opens

    def set(self, prop, value):
        self.settings.append((prop, value))

    def grab(self):
        self.grabbed = time.monotonic_ns() - 20_000_000
        return self.alive

    def retrieve(self):
        self.broken -= 1
        if self.broken >= 0:
            return False, None
        bgr = np.zeros(SIZE + (3,), np.uint8)
        bgr[..., 2] = 200
        return True, bgr

    def get(self, prop):
        assert prop == cv2.CAP_PROP_POS_MSEC
        return self.grabbed * 1e-6

    def release(self):
        self.opens = False


class Device:
    """A binding whose device moves."""

    def __init__(self):
        self.nodes = iter(["/dev/video0", "/dev/video2"])

    def resolve(self):
        return next(self.nodes)

    def __str__(self):
        return "serial A1"


@pytest.fixture
def capture(monkeypatch):
    made = []

    def make(node, backend):
        made.append(FakeCapture(node, backend))
        return made[-1]

    monkeypatch.setattr(v4l2.cv2, "VideoCapture", make)
    return made


def test_v4l2_frames_are_rgb_with_the_stamp_of_the_kernel(capture):
    camera = opened(V4L2Camera(Device(), 640, 480, 30.0, "MJPG"))
    assert capture[0].node == "/dev/video0" and capture[0].backend == cv2.CAP_V4L2
    props = [prop for prop, _ in capture[0].settings]
    assert props[0] == cv2.CAP_PROP_FOURCC, "the format decides which sizes there are"
    assert dict(capture[0].settings)[cv2.CAP_PROP_FRAME_WIDTH] == 640
    frame = camera.read()
    assert tuple(frame.pixels[0, 0]) == (200, 0, 0)
    assert frame.clock == DEVICE and time.time_ns() - frame.stamp_ns >= 20_000_000


def test_v4l2_skips_a_broken_frame_but_not_a_camera_that_gives_no_other(capture):
    camera = opened(V4L2Camera(Device(), 640, 480, 30.0, "MJPG"))
    capture[0].broken = 2
    assert camera.read().pixels.shape == SIZE + (3,)
    capture[0].broken = 1000
    with pytest.raises(CameraError, match="gave no frame"):
        camera.read()


def test_v4l2_is_found_anew_after_it_was_lost(capture):
    camera = opened(V4L2Camera(Device(), 640, 480, 30.0, ""))
    capture[0].alive = False
    with pytest.raises(CameraError, match="serial A1 gave no frame"):
        camera.read()
    camera.close()
    camera.close()
    camera.open()
    assert not capture[0].opens and capture[1].node == "/dev/video2"


def test_v4l2_that_does_not_open(capture, monkeypatch):
    monkeypatch.setattr(FakeCapture, "isOpened", lambda self: False)
    with pytest.raises(CameraError, match=r"/dev/video0 \(serial A1\) does not open; check who"):
        V4L2Camera(Device(), 640, 480, 30.0, "").open()


def test_realsense_without_its_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(ConfigError, match="needs pyrealsense2 .*; pip install pyrealsense2"):
        RealSenseCamera("1", 640, 480, 30.0)


class FakeRealSense(types.ModuleType):
    """What of pyrealsense2 is used, as its documentation has it."""

    class timestamp_domain:
        hardware_clock, system_time, global_time = range(3)

    class stream:
        color = "color"

    class format:
        rgb8 = "rgb8"

    def __init__(self):
        super().__init__("pyrealsense2")
        self.domain, self.alive, self.asked, self.stops = 2, True, [], 0

    def config(self):
        return types.SimpleNamespace(
            enable_device=lambda serial: self.asked.append(serial),
            enable_stream=lambda *mode: self.asked.append(mode),
        )

    def pipeline(self):
        def start(config):
            if not self.alive:
                raise RuntimeError("No device connected")

        def wait_for_frames(timeout_ms):
            if not self.alive:
                raise RuntimeError(f"Frame didn't arrive within {timeout_ms}")
            return types.SimpleNamespace(get_color_frame=lambda: frame)

        def stop():
            self.stops += 1
            if not self.alive:
                raise RuntimeError("stop() cannot be called before start()")

        frame = types.SimpleNamespace(
            get_data=lambda: noise(1),
            get_timestamp=lambda: 1_700_000_000_123.5,
            get_frame_timestamp_domain=lambda: self.domain,
        )
        return types.SimpleNamespace(start=start, wait_for_frames=wait_for_frames, stop=stop)


def test_realsense_by_serial_with_its_stamps(monkeypatch):
    rs = FakeRealSense()
    monkeypatch.setitem(sys.modules, "pyrealsense2", rs)
    camera = opened(RealSenseCamera("815412", 640, 480, 30.0))
    assert rs.asked == ["815412", ("color", 640, 480, "rgb8", 30)]
    frame = camera.read()
    assert frame.clock == DEVICE and frame.stamp_ns == 1_700_000_000_123_500_000
    assert np.array_equal(frame.pixels, noise(1))
    rs.domain = rs.timestamp_domain.hardware_clock
    assert camera.read().clock == ARRIVAL, "its own clock is not ours"
    rs.alive = False
    with pytest.raises(CameraError, match="815412 gave no frame"):
        camera.read()
    camera.close()
    assert rs.stops == 1
    with pytest.raises(CameraError, match="815412 does not start at 640x480"):
        camera.open()
