"""The simulated motors of the WidowX twin: profiles, torque, gripper, registers, scene."""

from __future__ import annotations

import importlib
from xml.etree import ElementTree

import numpy as np
import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.robots.widowx_kinematics import ScrewChain
from ofrl_robot.robots.widowx_settings import START_POSES
from ofrl_robot.sim.arm import BASE_POSITION
from ofrl_robot.sim.engine import pybullet
from ofrl_robot.sim.world import World
from tests.robots.fake_interbotix import ARM, HOME, LOWER, SCREWS, UPPER

pytest.importorskip("rospy", reason="ROS 1 is not installed")

from ofrl_ros.twin import world as twin_world
from ofrl_ros.twin.dynamixel import MOTOR_FAULTS, MOTORS, Registers
from ofrl_ros.twin.widowx_arm import Profile, TwinWidowX
from ofrl_ros.twin.widowx_scene import WidowXScene

HZ = 240
START = np.array(START_POSES["roboverse"])
EE_GRIPPER_LINK = 12


@pytest.fixture
def world():
    built = World()
    built.clear()
    yield built
    built.close()


@pytest.fixture
def twin(world):
    return TwinWidowX(world)


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.setattr(twin_world.rospy, "Service", lambda *_arguments: None)
    return twin_world.TwinFaults(MOTOR_FAULTS)


def go(twin, goal, seconds, wait=0.1):
    twin.command(goal, np.full(6, seconds))
    twin.advance(int(HZ * (seconds + wait)))


def test_a_profile_arrives_in_its_time_at_rest():
    profile = Profile(np.zeros(6))
    profile.begin(np.full(6, 0.5), np.full(6, 0.25))
    places = []
    for _ in range(int(0.25 * HZ)):
        profile.advance()
        places.append(profile.at()[0][0])
    assert places[-1] == pytest.approx(0.5) and (np.diff(places) > 0).all()
    assert profile.at()[1] == pytest.approx(np.zeros(6))
    assert max(np.diff(places)) * HZ == pytest.approx(1.5 * 0.5 / 0.25, rel=0.02)


def test_a_new_target_on_the_way_makes_no_jump():
    profile = Profile(np.zeros(6))
    profile.begin(np.full(6, 0.5), np.full(6, 0.25))
    for _ in range(30):
        profile.advance()
    place, speed = profile.at()
    profile.begin(np.full(6, -0.2), np.full(6, 0.25))
    profile.advance()
    after, speed_after = profile.at()
    assert np.abs(after - place).max() < 1.1 * np.abs(speed).max() / HZ
    assert np.abs(speed_after - speed).max() < 0.5


def test_joints_have_the_vendors_names_signs_and_limits(twin, world):
    chain = ScrewChain(SCREWS, HOME)
    rng = np.random.default_rng(0)
    for _ in range(5):
        goal = np.clip(START + rng.uniform(-0.4, 0.4, 6), LOWER, UPPER)
        goal[1] = min(goal[1], -0.5)  # clear of the table
        go(twin, goal, 0.5)
        assert twin.joints() == pytest.approx(goal, abs=0.005)
        link = pybullet.getLinkState(
            twin.arm.body,
            EE_GRIPPER_LINK,
            computeForwardKinematics=True,
            physicsClientId=world.client,
        )
        expected = chain.forward(twin.joints())[:3, 3] + BASE_POSITION
        # the simulator's base is 0.4 mm lower than the vendor's model
        assert np.array(link[4]) == pytest.approx(expected - [0, 0, 4e-4], abs=5e-4)
    positions, speeds, efforts = twin.joint_state()
    assert list(positions) == list(speeds) == list(efforts)
    assert positions["elbow"] == pytest.approx(goal[2], abs=0.005)
    assert abs(efforts["elbow"]) > 50, "gravity pulls"


def test_without_torque_the_arm_falls_and_with_torque_it_holds_where_it_is(twin):
    go(twin, START, 0.3)
    twin.take_torque(np.ones(6, bool), False)
    twin.advance(HZ)
    fallen = twin.joints()
    assert np.abs(fallen - START).max() > 0.1
    twin.take_torque(np.ones(6, bool), True)
    held = twin.joints()
    twin.advance(HZ // 2)
    assert np.abs(twin.joints() - held).max() < 0.05, "and does not spring back"


def test_a_blocked_joint_stays(twin):
    twin.blocked = np.arange(6) == 0
    go(twin, START + 0.2, 0.5)
    assert abs(twin.joints()[0] - START[0]) < 0.02
    assert twin.joints()[5] == pytest.approx(START[5] + 0.2, abs=0.01)


def test_the_gripper_goes_past_both_limits_of_the_client(twin):
    twin.drive_gripper(-250.0)
    twin.advance(HZ // 5)
    assert twin.gripper_open, "closed only when the fingers have had their time"
    twin.advance(HZ)
    assert not twin.gripper_open and twin.joint_state()[0]["left_finger"] <= 0.015
    twin.drive_gripper(0.0)
    twin.advance(HZ // 2)
    assert not twin.gripper_open, "without current the gears hold"
    twin.drive_gripper(250.0)
    assert twin.gripper_open
    twin.advance(HZ)
    assert twin.joint_state()[0]["left_finger"] >= 0.037


def test_the_description_has_the_vendors_signs(monkeypatch):
    params = {}
    node = importlib.import_module("twin_widowx")
    monkeypatch.setattr(node.rospy, "set_param", params.__setitem__)
    limits = node.describe("wx250s")
    for name, low, high in zip(ARM, LOWER, UPPER):
        assert limits[name][:2] == pytest.approx((low, high), abs=1e-3), name
    assert limits["left_finger"][:2] == (0.015, 0.037)
    root = ElementTree.fromstring(params["/wx250s/robot_description"])
    axes = {j.get("name"): j.find("axis") for j in root.findall("joint")}
    assert axes["elbow"].get("xyz").split() == ["-0", "-1", "-0"]
    assert axes["shoulder"].get("xyz").split() == ["0", "1", "0"]


# -- registers -------------------------------------------------------------------------------


def test_an_overloaded_motor_needs_a_reboot_and_forgets_its_profile(twin, faults):
    registers = Registers(twin, faults)
    faults.inject("overload:shoulder")
    registers.follow()
    assert registers.read(MOTORS, "Hardware_Error_Status")[1] == 0x20
    registers.set_torque(MOTORS, True)
    assert not twin.torque[1], "it refuses torque"
    registers.reboot(MOTORS, True, smart=True)
    registers.follow()
    assert registers.read(MOTORS, "Hardware_Error_Status") == [0] * 7
    assert twin.torque.all()
    assert registers.read(MOTORS, "Profile_Velocity") == [2000, 0, 2000, 2000, 2000, 2000, 2000]
    assert registers.profile_seconds[1] == 0.0


def test_a_list_of_registers_ends_before_a_silent_motor(twin, faults):
    registers = Registers(twin, faults)
    faults.inject("motor_silent:elbow")
    assert registers.read(MOTORS, "Present_Temperature") == [31, 31]
    registers.reboot(MOTORS, True, smart=True)
    assert len(registers.read(MOTORS, "Present_Temperature")) == 7


def test_unknown_registers_and_faults(twin, faults):
    assert Registers(twin, faults).read(MOTORS, "Moving") == []
    for text in ("gremlins", "overload:nobody"):
        with pytest.raises(ConfigError, match="unknown"):
            faults.inject(text)
    faults.inject("hot:elbow")
    faults.inject("none")
    assert "hot" not in faults


# -- the scene -------------------------------------------------------------------------------


def test_a_seed_places_the_objects_again_and_the_arm_stays(twin, world):
    scene = WidowXScene(world, twin, "Widow250SingleObjGrasp-v0", 16)
    bodies, places = [], []
    go(twin, START + [0.1, 0, 0, 0, 0, 0], 0.3)
    for seed in (3, 4, 3):
        scene.arrange(seed)
        places.append(scene.ground_truth()["object_position"])
        bodies.append(pybullet.getNumBodies(physicsClientId=world.client))
        assert twin.joints()[0] == pytest.approx(START[0] + 0.1, abs=0.01)
    assert places[0] == pytest.approx(places[2], abs=1e-4)
    assert np.abs(places[0] - places[1]).max() > 0.01
    assert len(set(bodies)) == 1, "the objects of the episode before are gone"
    assert scene.image().shape == (16, 16, 3) and not scene.success()
