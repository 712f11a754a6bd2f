"""`ofrl info`: one block for a bug report, whatever is broken on the computer."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ofrl_robot import __version__
from ofrl_robot.cli import info, main
from ofrl_robot.robots import rehearsed

SETUP = Path(__file__).resolve().parent.parent / "setup.py"


@pytest.mark.slow
def test_every_line_of_the_block(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = dict(line.split(None, 1) for line in lines)
    assert list(rows) == [
        "ofrl_robot", "python", "os", "cpu", "memory", "gpu", "ros", "packages", "optional",
        "arms", "rehearsed", "cameras", "disk",
    ]  # fmt: skip
    assert rows["ofrl_robot"].startswith(__version__)
    assert sys.version.split()[0] in rows["python"] and "cores" in rows["cpu"]
    assert "torch " in rows["packages"] and "MISSING" not in rows["packages"]
    assert "GiB" in rows["memory"] and "GiB free" in rows["disk"]


def test_a_probe_that_fails_costs_its_own_line_only(monkeypatch, capsys):
    def fail():
        raise PermissionError("not for you")

    monkeypatch.setattr(info, "_cameras", fail)
    monkeypatch.setattr(info, "LIMIT_S", 0.0)  # every other program takes too long
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "cameras     unknown (PermissionError: not for you)\n" in out
    assert "python      3." in out and len(out.splitlines()) == 13


def test_vendor_packages_and_rehearsals_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(info, "ARM_PACKAGES", {"one": ("json",), "two": ("json", "no_such_module")})
    assert info._arms() == "one: packages found; two: lacks no_such_module"
    assert info._rehearsed() == "nothing (ofrl rehearse)"
    rehearsed.remember("widowx", dict(code="old", kept=1, results=[1], when="in May"))
    assert info._rehearsed().startswith("widowx: the code has changed")


def test_it_names_every_dependency_of_the_package():
    for node in ast.walk(ast.parse(SETUP.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            required = [re.match(r"[\w-]+", text).group() for text in ast.literal_eval(node.value)]
    assert list(info.DEPENDENCIES) == required


def test_cameras_are_named(monkeypatch, tmp_path):
    (tmp_path / "video0").mkdir()
    (tmp_path / "video0" / "name").write_text("HD Pro Webcam C920\n")
    monkeypatch.setattr(info, "VIDEO_DEVICES", tmp_path)
    assert info._cameras() == "/dev/video0 (HD Pro Webcam C920)"


@pytest.mark.slow
def test_it_imports_nothing_heavy():
    code = (
        "import sys; from ofrl_robot.cli.info import describe; describe(); "
        "print(sorted({'torch', 'h5py', 'pybullet', 'cv2', 'rospy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.stdout == "[]\n"
