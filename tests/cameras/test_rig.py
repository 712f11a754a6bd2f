"""The cameras of a rig in one process: newest frames, and why there is none."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.cameras import stream as stream_module
from ofrl_robot.cameras.config import load_cameras
from ofrl_robot.cameras.registry import CAMERAS
from ofrl_robot.cameras.rig import LocalCameras
from ofrl_robot.cameras.settings import CameraKind
from ofrl_robot.errors import CameraError, CameraStoppedError
from tests.cameras.scripted_camera import SIZE, ScriptedCamera, noise, wait_for

HEIGHT, WIDTH = SIZE


@pytest.fixture
def start(tmp_path, image_folder, monkeypatch):
    """Open the cameras of a file with these entries; closed at the end of the test."""
    monkeypatch.setattr(stream_module, "FIRST_WAIT", 0.02)
    opened = []

    def run(*entries):
        file = tmp_path / "rig.yaml"
        lines = [
            f"  - {{name: {name}, width: {WIDTH}, height: {HEIGHT}, {rest}}}"
            for name, rest in entries
        ]
        file.write_text("cameras:\n" + "\n".join(lines) + "\n")
        opened.append(LocalCameras(load_cameras(file)))
        return opened[-1]

    yield run
    for cameras in opened:
        cameras.close()


@pytest.fixture
def scripted(monkeypatch):
    """A camera of kind ``script`` that the test holds in its hands."""
    camera = ScriptedCamera()
    monkeypatch.setitem(CAMERAS._entries, "script", CameraKind(make=lambda config: camera))
    return camera


def test_the_newest_frame_of_each_camera(start):
    cameras = start(
        ("front", "source: images, path: images, fps: 100, observation: {height: 8, width: 8}"),
        ("wrist", "source: images, path: images, fps: 50"),
    )
    cameras.wait_ready(30.0)
    frames = cameras.newest()
    assert [spec.name for spec in cameras.specs] == list(frames) == ["front", "wrist"]
    assert cameras.specs[0].shape == (8, 8, 3)
    for frame in frames.values():
        assert frame.pixels.shape == SIZE + (3,), "raw, not yet prepared"
        assert any(np.array_equal(frame.pixels, noise(i)) for i in range(12))
    wait_for(lambda: cameras.newest()["front"].stamp_ns > frames["front"].stamp_ns, "a newer frame")


def test_before_the_first_frame_it_is_starting(start, scripted):
    scripted.hangs.set()
    cameras = start(("front", "source: script, fps: 100"))
    with pytest.raises(CameraError, match=r"camera front is starting \(no frame yet\)"):
        cameras.newest()


def test_a_camera_that_is_not_there_is_named_with_the_reason(start, scripted):
    scripted.plugged = False
    cameras = start(("wrist", "source: script"), ("front", "source: images, path: images"))
    wait_for(lambda: len(scripted.attempts) > 1, "attempts to open it")
    with pytest.raises(CameraError, match="camera wrist is disconnected .*no camera at script"):
        cameras.wait_ready(0.0)
    with pytest.raises(CameraError, match="camera wrist is disconnected"):
        cameras.newest()
    scripted.plugged = True
    cameras.wait_ready(30.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"), [("hang", "stale"), ("freeze", "frozen"), ("unplug", "disconnected")]
)
def test_a_camera_that_stops_is_never_shown_by_an_old_frame(start, scripted, fault, reason):
    cameras = start(("front", "source: script, fps: 100, stale_after: 30"))
    cameras.wait_ready(30.0)

    def fails():
        try:
            cameras.newest()
        except CameraStoppedError as error:
            return str(error)
        return ""

    if fault == "hang":
        scripted.hangs.set()
    scripted.frozen = fault == "freeze"
    scripted.plugged = fault != "unplug"
    assert f"camera front is {reason}" in wait_for(fails, reason)


def test_a_recording_that_is_over_has_ended(start):
    cameras = start(("front", "source: images, path: images, fps: 200, loop: false"))

    def error():
        try:
            cameras.newest()
        except CameraError as error:
            return str(error) if "ended" in str(error) else ""
        return ""

    assert "set loop: true" in wait_for(error, "the end")


def test_close_releases_every_camera_and_may_be_called_again(start, scripted):
    cameras = start(("front", "source: script"), ("wrist", "source: images, path: images"))
    cameras.wait_ready(30.0)
    cameras.close()
    cameras.close()
    assert scripted.closed == scripted.opened == 1
