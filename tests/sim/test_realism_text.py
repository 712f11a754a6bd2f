"""The text that names imperfections: what it means, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import episode_paths
from ofrl_robot.errors import ConfigError
from ofrl_robot.sim import make
from ofrl_robot.sim.arm import Actuators
from ofrl_robot.sim.realism import PRESETS, Realism, parse_realism

GRASP = "Widow250SingleObjGrasp-v0"
HARSH = PRESETS["harsh"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("harsh", HARSH),
        ("camera_latency=2", Realism(camera_latency=2)),
        ("off,dropped_frames=0.5", Realism(dropped_frames=0.5)),
        ("looks=harsh", Realism(looks=HARSH.looks)),
        (
            "mild, light_gradient = 30",
            dataclasses.replace(
                PRESETS["mild"], looks=dataclasses.replace(PRESETS["mild"].looks, light_gradient=30)
            ),
        ),
        ("harsh,looks=off", dataclasses.replace(HARSH, looks=Realism().looks)),
        ("lag_s=0.05,stiction_rad=1e-3", Realism(actuators=Actuators(0.05, 1e-3))),
        ("object_size=1,action_noise=0", Realism()),
    ],
    ids=str,
)
def test_a_text_names_presets_and_settings(text, expected):
    assert parse_realism(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wild", "realism 'wild' is unknown; use off or mild or harsh, or NAME=VALUE"),
        ("", "realism '' is unknown"),
        ("mild,harsh", "realism has 'harsh' after a comma; use NAME=VALUE there"),
        ("camera_latncy=2", "realism has no setting 'camera_latncy'; use camera_latency"),
        ("looks=wild", "realism 'wild' is unknown"),
        ("camera_latency=two", "camera_latency is 'two'; use a number"),
        ("camera_latency=1.5", "camera_latency 1.5 is not a whole number in 0..100"),
        ("camera_latency=nan", "camera_latency nan is not a whole number"),
        ("camera_latency=inf", "camera_latency inf is not a whole number"),
        ("light_gradient=300", "light_gradient is 300; use 0..128"),
        ("object_size=2", "object_size is 2; use 0.7..1.3"),
        ("action_noise=nan", "action_noise is nan; use 0..1"),
        ("lag_s=-1", "lag_s"),
        ("actuators=1", "realism has no setting 'actuators'"),
        ("mild,", "realism has '' after a comma"),
    ],
    ids=str,
)
def test_a_text_that_says_nothing_possible_is_refused(text, message):
    with pytest.raises(ConfigError) as refused:
        parse_realism(text)
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["looks=mild", "object_size=0.9", "light_angle=5"])
def test_the_real_roboverse_keeps_its_looks(text):
    with pytest.raises(ConfigError, match="roboverse backend has looks and objects of its own"):
        make(GRASP, sim_backend="roboverse", realism=text)


def test_the_command_line_takes_the_same_text(tmp_path, capsys):
    words = ["collect", "--task", GRASP, "--episodes", "1", "--image-size", "8"]
    realism = "off,light_gradient=30,gripper_delay=1"
    assert main([*words, "--realism", realism, "--out", str(tmp_path / "a")]) == 0
    (path,) = episode_paths(tmp_path / "a")
    assert read_episode(path).meta.environment["realism"] == realism
    capsys.readouterr()
    assert main([*words, "--realism", "light_gradient=300", "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert "light_gradient is 300; use 0..128" in error and error.count("\n") == 1
    assert not (tmp_path / "b").exists()
