"""Limits files: what is read, and what is refused before anything moves."""

from __future__ import annotations

import pytest
import yaml

from ofrl_robot.config import CONFIG
from ofrl_robot.errors import ConfigError
from ofrl_robot.robots.config import ArmConfig, load_arm_file, wider_limits
from ofrl_robot.robots.registry import ARMS, make_rig
from ofrl_robot.sim import arm
from ofrl_robot.specs import WIDOWX_ACTION, WORLD

SIM = yaml.safe_load((CONFIG / "robots" / "sim.yaml").read_text())


def write(tmp_path, **changes):
    values = {**SIM, **changes}
    path = tmp_path / "limits.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v != "absent"}))
    return path


def test_the_simulator_s_limits_are_its_own_bounds():
    """Simulated data is not cut: three axes at full scale, and the simulator's own box."""
    limits = load_arm_file("sim").limits
    assert limits.frame == WORLD
    assert limits.workspace_low == tuple(arm.WORKSPACE_LOW)
    assert limits.workspace_high == tuple(arm.WORKSPACE_HIGH)
    assert limits.max_translation == pytest.approx(3**0.5 * WIDOWX_ACTION.scale[0], abs=1e-15)
    assert limits.max_rotation == WIDOWX_ACTION.scale[3]


@pytest.mark.parametrize("file", sorted((CONFIG / "robots").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_file_is_read(file):
    assert load_arm_file("any", file).timing.max_silence > 0


def test_joints_and_optional_limits_are_read(tmp_path):
    path = write(tmp_path, joints={"elbow": [-1, 2]}, max_speed=0.5, max_change=0.02)
    limits = load_arm_file("any", path).limits
    assert limits.joints == {"elbow": (-1.0, 2.0)}
    assert (limits.max_speed, limits.max_change) == (0.5, 0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frame": "absent"}, "lacks frame"),
        ({"max_silence": "absent"}, "lacks max_silence"),
        ({"max_sillence": 1}, "unknown max_sillence"),
        ({"frame": "table"}, "frame is 'table'; use world or base"),
        ({"workspace_low": [0, 0]}, "workspace_low is .*list of 3 numbers"),
        ({"workspace_low": [0, 0, float("nan")]}, "workspace_low is"),
        ({"workspace_low": [0.9, -0.2, -0.34]}, "workspace is empty along x"),
        ({"max_translation": 0}, "max_translation is 0; use a number above 0"),
        ({"max_rotation": "fast"}, "max_rotation"),
        ({"max_speed": True}, "max_speed"),
        ({"joints": {"elbow": [2, -1]}}, "joint elbow .*low below high"),
        ({"joints": [1, 2]}, "joints is"),
    ],
)
def test_a_missing_or_impossible_value_is_named(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        load_arm_file("any", write(tmp_path, **changes))


def test_a_robot_without_limits_and_an_unknown_robot_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no limits for robot 'panda'.*limits:=FILE"):
        load_arm_file("panda")
    with pytest.raises(ConfigError, match="robot 'panda' is unknown; use one of: .*sim"):
        make_rig(ArmConfig("panda", "wipe", load_arm_file("sim")))


def test_an_arm_that_brings_no_cameras_or_task_needs_them(fake_robot):
    closed = []
    fake_robot.close = lambda: closed.append(True)
    ARMS.register("bare", lambda config: fake_robot)
    config = ArmConfig("bare", "wipe", load_arm_file("sim"))
    with pytest.raises(ConfigError, match="no cameras of its own; name a file: cameras:=FILE"):
        make_rig(config)
    with pytest.raises(ConfigError, match="no task of its own"):
        make_rig(config, cameras=fake_robot)
    assert closed == [True, True], "what was opened is closed again"


def test_a_file_may_narrow_the_shipped_limits_and_widen_them_only_when_told(tmp_path):
    narrow = write(tmp_path, max_translation=0.1, workspace_high=[0.7, 0.4, -0.1])
    assert load_arm_file("sim", narrow).widened == ()
    wide = write(tmp_path, max_translation=0.5, workspace_low=[0.3, -0.2, -0.34])
    with pytest.raises(ConfigError, match="workspace_low, max_translation.*widen_limits:=true"):
        load_arm_file("sim", wide)
    file = load_arm_file("sim", wide, widen=True)
    assert set(file.widened) == {"workspace_low", "max_translation"}
    rig = make_rig(ArmConfig("sim", "Widow250SingleObjGrasp-v0", file, settings={"image_size": 8}))
    assert rig.environment["limits_widened"] == ["workspace_low", "max_translation"]
    rig.close()


@pytest.mark.parametrize(
    ("shipped", "given", "wider"),
    [
        ({"max_speed": 0.5}, {"max_speed": 0.4}, ()),
        ({"max_speed": 0.5}, {}, ("max_speed",)),
        ({}, {"max_speed": 9.0}, ()),
        ({"efforts": {"elbow": 100}}, {"efforts": {"elbow": 90, "waist": 5}}, ()),
        ({"efforts": {"elbow": 100}}, {"efforts": {"waist": 5}}, ("efforts",)),
        ({"joints": {"elbow": [-1, 1]}}, {"joints": {"elbow": [-1, 2]}}, ("joints",)),
        ({"action_latency": 0.02}, {"action_latency": 0.06}, ()),
        ({"max_silence": 0.2}, {"max_silence": 0.3}, ("max_silence",)),
    ],
)
def test_what_counts_as_wider(tmp_path, shipped, given, wider):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    files = [load_arm_file("any", write(f, **v)) for f, v in zip(folders, (shipped, given))]
    assert wider_limits(files[1], files[0]) == wider


def test_one_side_of_a_rotation_box_or_a_crooked_quaternion_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="one side of the rotation box"):
        load_arm_file("any", write(tmp_path, rotation_low=[-1, -1, -1]))
    with pytest.raises(ConfigError, match="upright .*length 1"):
        load_arm_file("any", write(tmp_path, upright=[1, 1, 0, 0]))
    with pytest.raises(ConfigError, match="rotation is empty along y"):
        load_arm_file("any", write(tmp_path, rotation_low=[-1, 1, -1], rotation_high=[1, 1, 1]))
