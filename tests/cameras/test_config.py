"""The YAML file of a rig: what it means, and one line for each thing that can be wrong."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

from ofrl_robot.cameras.config import load_cameras
from ofrl_robot.cameras.intrinsics import read_intrinsics
from ofrl_robot.cameras.registry import CAMERAS, make_camera
from ofrl_robot.cameras.settings import CameraKind, Setting, is_text, text, whole
from ofrl_robot.errors import ConfigError
from ofrl_robot.images import prepare
from ofrl_robot.specs import CameraSpec

EXAMPLES = sorted((Path(__file__).parents[2] / "config" / "cameras").glob("*.yaml"))
CALIBRATION = {
    "image_width": 640,
    "image_height": 480,
    "camera_name": "front",
    "distortion_model": "plumb_bob",
    "camera_matrix": {"rows": 3, "cols": 3, "data": [600.0, 0, 320, 0, 600, 240, 0, 0, 1]},
    "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, -0.2, 0, 0, 0]},
    "rectification_matrix": {"rows": 3, "cols": 3, "data": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
    "projection_matrix": {
        "rows": 3,
        "cols": 4,
        "data": [600.0, 0, 320, 0, 0, 600, 240, 0, 0, 0, 1, 0],
    },
}


@pytest.fixture
def load(tmp_path):
    def load(*entries):
        file = tmp_path / "rig.yaml"
        file.write_text(yaml.safe_dump({"cameras": list(entries)}))
        return load_cameras(file)

    return load


def front(**fields):
    """A good entry, changed; None removes a field."""
    entry = {"name": "front", "source": "v4l2", "serial": "A1", **fields}
    return {k: v for k, v in entry.items() if v is not None}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda p: p.name)
def test_examples_load(file):
    assert [c.name for c in load_cameras(file)] == ["front", "wrist"]


def test_defaults_and_the_observation(load):
    (camera,) = load(front())
    assert (camera.width, camera.height, camera.fps) == (640, 480, 30.0)
    assert camera.observation == CameraSpec("front", 128, 128)
    (camera,) = load(front(observation={"crop": [0, 80, 480, 480], "height": 64, "width": 64}))
    raw = np.zeros((480, 640, 3), np.uint8)
    raw[:, 80:560] = 200
    small = prepare(raw, camera.observation)
    assert small.shape == (64, 64, 3) and (small == 200).all(), "the crop and nothing else"


def test_paths_are_taken_from_the_folder_of_the_file(load, tmp_path):
    (tmp_path / "cal.yaml").write_text(yaml.safe_dump(CALIBRATION))
    video, _ = load(
        {"name": "a", "source": "video", "path": "clips/x.avi", "calibration": "cal.yaml"},
        front(name="b"),
    )
    assert video.options["path"] == str(tmp_path / "clips" / "x.avi")
    assert video.calibration.camera_matrix[0] == 600.0
    assert make_camera(video).binding == video.options["path"]


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"name": None}, "name is None; use letters"),
        ({"name": "state"}, "name is 'state'; use letters, digits and _; not state"),
        ({"name": "../x"}, "use letters"),
        ({"source": "webcam"}, "source is 'webcam'; use images, realsense, v4l2, video"),
        ({"source": ["v4l2"]}, "source is"),
        ({"serial": 12345}, "serial is 12345; give text, in quotes"),
        ({"serial": None}, "is bound by nothing; give one of serial, path, index"),
        ({"path": "p"}, "is bound by serial and path"),
        (
            {"serial": None, "path": "/dev/video2"},
            "path is '/dev/video2'; use a name in /dev/v4l/by-path",
        ),
        ({"serial": None, "index": -1}, "index is -1; use a whole number of 0 or more"),
        ({"widthh": 640}, "source v4l2 has no setting 'widthh'; use calibration, fourcc"),
        ({"loop": True}, "source v4l2 has no setting 'loop'"),
        ({"source": "realsense", "fourcc": "MJPG"}, "source realsense has no setting 'fourcc'"),
        ({"width": 640.5}, "width is 640.5; use a whole number"),
        ({"height": True}, "height is True"),
        ({"fps": 0}, "fps is 0; use a number from 1"),
        ({"fps": "30"}, "fps is '30'"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fourcc": "JPEG2"}, "use four letters"),
        ({"stale_after": 0}, "stale_after is 0"),
        ({"frozen_after": -1}, "frozen_after is -1; use a whole number of 0 or more"),
        ({"observation": 128}, "observation is 128; give height, width and crop"),
        ({"observation": {"size": 128}}, "observation is {'size': 128}"),
        ({"observation": {"height": 0}}, "height and width in pixels"),
        ({"observation": {"crop": [0, 200, 480, 480]}}, "crop is .* within 480x640"),
        ({"observation": {"crop": [0, 0, 480]}}, "crop is"),
        ({"observation": {"crop": "middle"}}, "crop is 'middle'|crop is middle"),
        ({"calibration": "none.yaml"}, "none.yaml: does not exist"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
def test_what_is_wrong_is_named_on_one_line(load, fields, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load(front(**fields))
    text = str(caught.value)
    assert "rig.yaml" in text or "none.yaml" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "text",
    ["", "cameras: []", "cameras: {front: {}}", "- a", "cameras: [1]", "cameras: [", "a: 1", "\0"],
)
def test_files_that_list_no_camera(tmp_path, text):
    file = tmp_path / "rig.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="rig.yaml") as caught:
        load_cameras(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist"):
        load_cameras(tmp_path / "none.yaml")


def test_two_cameras_of_one_name(load):
    with pytest.raises(ConfigError, match="two cameras are called front"):
        load(front(), front(serial="B2"))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"image_width": 1280}, "is for 1280x480 images, the camera gives 640x480"),
        ({"camera_matrix": {"data": [1.0, 2.0]}}, "camera_matrix has 2 numbers"),
        ({"projection_matrix": None}, "is not a camera calibration"),
        ({"distortion_coefficients": {"data": ["x"]}}, "is not a camera calibration"),
        ({"distortion_coefficients": {"data": [float("nan")]}}, "number that is not finite"),
    ],
    ids=["size", "short", "missing", "text", "nan"],
)
def test_calibrations_that_cannot_be_used(load, tmp_path, change, words):
    (tmp_path / "cal.yaml").write_text(yaml.safe_dump({**CALIBRATION, **change}))
    with pytest.raises(ConfigError, match=words):
        load(front(calibration="cal.yaml"))


def test_a_kind_from_another_package_brings_its_own_settings(load, monkeypatch, tmp_path):
    made = []
    kind = CameraKind(
        make=lambda config: made.append(config) or config.options,
        bindings={"address": text()},
        settings={
            "gain": whole(0, default=3),
            "table": Setting(is_text, "give text", is_path=True),
        },
    )
    module = types.ModuleType("their_camera")
    module.KIND = kind
    monkeypatch.setitem(sys.modules, "their_camera", module)
    monkeypatch.setattr(CAMERAS, "_plugins", lambda: {"gige": "their_camera:KIND"})
    entry = {"name": "top", "source": "gige", "address": "10.0.0.2"}
    (camera,) = load(entry)
    assert make_camera(camera) == {"address": "10.0.0.2", "gain": 3, "table": None}
    assert made == [camera]
    (camera,) = load({**entry, "table": "lens.csv"})
    assert camera.options["table"] == str(tmp_path / "lens.csv")
    with pytest.raises(ConfigError, match="gain is -1; use a whole number of 0 or more"):
        load({**entry, "gain": -1})
    with pytest.raises(ConfigError, match="is bound by nothing; give one of address"):
        load({"name": "top", "source": "gige"})
    with pytest.raises(ConfigError, match="source gige has no setting 'serial'"):
        load({**entry, "serial": "A"})
    module.KIND = "no kind"
    with pytest.raises(ConfigError, match="camera 'gige' is a str, not a CameraKind"):
        load(entry)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 20000, "a: &a [1]\nb: *a\n", "x" * (2 << 20)])
def test_a_hostile_file_is_refused_at_once(tmp_path, text):
    file = tmp_path / "rig.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="rig.yaml"):
        load_cameras(file)
    with pytest.raises(ConfigError, match="rig.yaml"):
        read_intrinsics(file)
