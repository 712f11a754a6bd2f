"""Flags of `ofrl data convert` and `ofrl data export`, as a user gives them."""

import math
import os
import re
import sys

import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.convert.formats import import_dataset
from ofrl_robot.data.convert.options import D4rlImport, MinariImport, RobomimicImport
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import WORLD


def refused(capsys, words):
    """Run a command that must fail; return its one line on stderr."""
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


OUT_OF_RANGE = (
    [("action_scale", v) for v in (math.inf, math.nan, 0.0, -1.0)]
    + [("rate", v) for v in (1e-300, 0.0, math.inf, math.nan, -5.0, 1001.0)]
    + [("num_traj", -1), ("image_size", -1), ("image_size", 1000000)]
)


@pytest.mark.parametrize("options", [RobomimicImport, MinariImport, D4rlImport])
@pytest.mark.parametrize("name, value", OUT_OF_RANGE)
def test_a_number_out_of_its_range_is_refused(tmp_path, options, name, value):
    flag = "--" + name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"^{flag} is .*; pass "):
        import_dataset(tmp_path / "in", tmp_path / "out", options(**{name: value}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "format, flag, value",
    [("robomimic", "--rate", "0"), ("minari", "--action-scale", "nan")]
    + [("d4rl", "--action-scale", "inf"), ("d4rl", "--rate", "1e-300")],
)
def test_it_is_refused_in_one_line(tmp_path, capsys, format, flag, value):
    words = ["data", "convert", format, str(tmp_path / "in.npz"), str(tmp_path / "out")]
    line = refused(capsys, [*words, flag, value])
    assert line.startswith(f"ofrl: {flag} is {value}") and "; pass " in line


@pytest.mark.parametrize(
    "format, name",
    [("robomimic", "a.hdf5"), ("d4rl", "a.npz"), ("d4rl", "a.h5"), ("roboverse", "a.npy")]
    + [("minari", "main_data.hdf5"), ("bridge", "traj0/obs_dict.pkl")],
)
def test_a_file_that_never_ends_is_refused(tmp_path, capsys, format, name):
    """A FIFO: opening it would wait until another process writes to it."""
    fifo = tmp_path / "in" / name
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    source = fifo if format in ("robomimic", "d4rl", "roboverse") else tmp_path / "in"
    words = ["data", "convert", format, str(source), str(tmp_path / "out")]
    line = refused(capsys, [*words, "--task", "Widow250PickTray-v0"])
    assert str(fifo) in line and "not a regular file" in line


def test_an_unknown_frame_is_refused(tmp_path, capsys):
    words = ["data", "convert", "d4rl", "in.npz", str(tmp_path / "out"), "--frame", "table"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and "--frame" in capsys.readouterr().err


def test_a_roboverse_file_without_a_task_id_names_the_flag(tmp_path, make, capsys):
    source, out = tmp_path / "trajectories.npy", tmp_path / "converted"
    source.write_bytes(make.npy_bytes([make.trajectory()]))
    words = ["data", "convert", "roboverse", str(source), str(out)]
    line = refused(capsys, words)
    assert "trajectories.npy" in line and "for example --task Widow250PickTray-v0" in line
    assert main([*words, "--task", "Widow250PickTray-v0"]) == 0
    dataset = open_dataset(out)
    assert dataset.metas[0].task == "Widow250PickTray-v0"
    assert (dataset.action_spec.frame, dataset.observation_spec.state_frame) == (WORLD, WORLD)


@pytest.mark.parametrize(
    "words", [["convert", "rosbag", "in.bag", "out"], ["export", "rosbag", "data", "out.bag"]]
)
@pytest.mark.parametrize(
    "module, text",
    [
        ("rosbag", r"ofrl: ROS cannot be imported \(.*rosbag.*\); source it first, for example"),
        ("ofrl_ros", r"ofrl: the package ofrl_ros cannot be imported \(.*\); install ofrl_robot"),
    ],
)
def test_the_import_that_failed_is_named(tmp_path, monkeypatch, capsys, words, module, text):
    monkeypatch.chdir(tmp_path)
    for name in [n for n in sys.modules if n.startswith("ofrl_ros")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # what Python does for a missing module
    line = refused(capsys, ["data", *words])
    assert re.match(text, line), line
    assert list(tmp_path.iterdir()) == []


def test_sys_path_stays_as_it_is(tmp_path, capsys):
    before = list(sys.path)
    refused(capsys, ["data", "convert", "rosbag", str(tmp_path / "in.bag"), str(tmp_path / "out")])
    assert sys.path == before


def test_channels_first_needs_a_camera(tmp_path, make, capsys):
    make.episode(tmp_path / "data")
    words = ["data", "export", "d4rl", str(tmp_path / "data"), str(tmp_path / "out.npz")]
    line = refused(capsys, [*words, "--channels-first"])
    assert line == "ofrl: --channels-first needs images; pass --observations image"
    assert main([*words, "--channels-first", "--observations", "image"]) == 0
    with np.load(tmp_path / "out.npz") as flat:
        assert flat["observations"].shape == (5, 3, 6, 6)
