"""Arguments of launch files: which there are, and which names are refused."""

from __future__ import annotations

import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.sessions import launch_files

FILE = """<launch>
  <arg name="episodes" default="100" doc="how many"/>
  <arg name="out" doc="where"/>
  <arg name="hidden" value="1"/>
  <include file="x"><arg name="actors" value="teleop"/></include>
</launch>"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fly.launch"
    path.write_text(FILE)
    return path


def test_arguments_are_those_that_a_caller_may_set(file):
    assert launch_files.arguments(file) == [("episodes", "100", "how many"), ("out", None, "where")]


@pytest.mark.parametrize(
    ("name", "words"),
    [("episode", "did you mean episodes:="), ("colour", "see roslaunch ofrl_robot fly.launch")],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(file, name, words):
    launch_files.require_known(["episodes", "out"], file)
    with pytest.raises(ConfigError, match=words):
        launch_files.require_known(["out", name], file)


def test_only_words_with_a_value_are_arguments():
    words = ["collect.launch", "out:=a:=b", "__name:=x", "_p:=1", "-p", "11"]
    assert launch_files.given_names(words) == ["out"]


def test_a_file_that_is_no_launch_file_is_named(tmp_path):
    (tmp_path / "a.launch").write_text("<launch>")
    for name in ("a.launch", "missing.launch"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be read"):
            launch_files.arguments(tmp_path / name)


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("ROS_PACKAGE_PATH", "{0}/nothing:{0}/src", "src/ofrl_robot"),
        ("ROS_PACKAGE_PATH", "{0}/src/ofrl_robot", "src/ofrl_robot"),
        ("CMAKE_PREFIX_PATH", "{0}/install", "install/share/ofrl_robot"),
    ],
)
def test_without_a_clone_the_workspace_is_searched(monkeypatch, tmp_path, variable, value, place):
    monkeypatch.setattr(launch_files, "CLONE", tmp_path / "site-packages")
    (tmp_path / place / "launch").mkdir(parents=True)
    (tmp_path / place / "package.xml").write_text("<package/>")
    found = launch_files.find_package({variable: value.format(tmp_path)})
    assert found == tmp_path / place
    with pytest.raises(ConfigError, match=r"source the clone's scripts/env\.sh"):
        launch_files.find_package({})
