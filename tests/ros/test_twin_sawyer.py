"""The Sawyer behind the twin: its kinematics, its controller, its scene. No ROS, no vendor code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("rospy", reason="ROS 1 is not installed")

from ofrl_robot.sim.engine import pybullet
from ofrl_robot.sim.world import TIME_STEP_S
from ofrl_ros.twin.sawyer_model import (
    HAND,
    JOINTS,
    MAX_OPENING,
    NEUTRAL,
    POSITION,
    TIP,
    TORQUE,
    VELOCITY,
    Kinematics,
    SawyerController,
)
from ofrl_ros.twin.sawyer_scene import LIFTED, SawyerScene

ARM = Kinematics()


@pytest.fixture(scope="module")
def scene():
    scene = SawyerScene(image_size=16)
    yield scene
    scene.close()


@pytest.fixture
def resting(scene):
    """The scene with the arm at its neutral pose, at rest."""
    for joint, angle in zip(range(7), NEUTRAL):
        scene._world.set_joint(scene.body.body, joint, angle)
    scene.controller.hold(np.array(NEUTRAL))
    scene.controller.ratio, scene.gripper_target, scene.stuck = 0.5, MAX_OPENING, False
    scene.advance(24)
    return scene


# -- kinematics


def test_the_neutral_pose_is_the_robots():
    """The vendor's neutral pose has the hand at (0.4496, 0.1603, 0.2158), pointing down."""
    place, turn = ARM.forward(np.array(NEUTRAL))
    assert np.abs(place - [0.4496, 0.1603, 0.2158]).max() < 1e-3
    assert np.abs(turn.apply([0.0, 0.0, 1.0]) - [0.0, 0.0, -1.0]).max() < 1e-3
    tip, _ = ARM.forward(np.array(NEUTRAL), TIP)
    assert np.abs(place - tip - [0.0, 0.0, 0.15]).max() < 1e-3


def test_kinematics_and_physics_agree(scene):
    rng = np.random.default_rng(0)
    for _ in range(5):
        joints = rng.uniform(ARM.low, ARM.high)
        for joint, angle in enumerate(joints):
            scene._world.set_joint(scene.body.body, joint, angle)
        for tip, link in scene.body._tips.items():
            state = pybullet.getLinkState(
                scene.body.body, link, computeForwardKinematics=1,
                physicsClientId=scene._world.client,
            )  # fmt: skip
            place, turn = ARM.forward(joints, tip)
            assert np.abs(place - state[4]).max() < 1e-5
            assert (turn * Rotation.from_quat(state[5]).inv()).magnitude() < 1e-5


def test_inverse_kinematics_finds_poses_near_its_seed_and_refuses_those_out_of_reach():
    rng, seed = np.random.default_rng(0), np.array(NEUTRAL)
    place, turn = ARM.forward(seed)
    for _ in range(20):
        goal = place + rng.uniform(-0.03, 0.03, 3)
        turned = Rotation.from_rotvec(rng.uniform(-0.2, 0.2, 3)) * turn
        joints = ARM.solve(goal, turned, seed)
        found, found_turn = ARM.forward(joints)
        assert np.abs(found - goal).max() < 2e-4
        assert (found_turn * turned.inv()).magnitude() < 2e-4
        assert np.abs(joints - seed).max() < 0.8
        assert ((joints >= ARM.low) & (joints <= ARM.high)).all()
    assert ARM.solve(place + [1.0, 0.0, 0.0], turn, seed) is None


# -- controller


def run(controller, seconds):
    for _ in range(int(round(seconds / TIME_STEP_S))):
        target, _ = controller.targets(TIME_STEP_S)
    return target


def test_a_position_command_goes_on_after_the_time_out():
    controller = SawyerController(ARM, NEUTRAL)
    goal = np.array(NEUTRAL) + 0.3
    controller.command(POSITION, JOINTS, goal)
    assert np.array_equal(run(controller, 1.0), goal)
    assert controller.timeouts == 0


def test_a_velocity_command_stops_after_the_time_out():
    controller = SawyerController(ARM, NEUTRAL)
    controller.command(VELOCITY, JOINTS[:1], [0.3])
    assert run(controller, 1.0)[0] == pytest.approx(0.3 * 0.2, abs=0.3 * 0.01)
    assert controller.timeouts == 1
    controller.timeout = 1.0
    controller.command(VELOCITY, JOINTS[:1], [0.3])
    assert run(controller, 0.5)[0] == pytest.approx(0.06 + 0.15, abs=0.005)
    assert controller.timeouts == 1


def test_names_order_the_values_and_nonsense_is_ignored():
    controller = SawyerController(ARM, NEUTRAL)
    controller.command(POSITION, ["right_j2", "right_j0", "head_pan"], [0.2, 0.1])
    assert run(controller, 0.01)[[0, 2]] == pytest.approx([0.1, 0.2])
    controller.command(POSITION, JOINTS, [0.0])
    controller.command(TORQUE, JOINTS, [1.0] * 7)
    assert run(controller, 0.01)[[0, 2]] == pytest.approx([0.1, 0.2])


def test_a_robot_that_is_not_enabled_ignores_commands():
    controller = SawyerController(ARM, NEUTRAL)
    controller.enabled = False
    controller.command(POSITION, JOINTS, np.zeros(7))
    assert np.array_equal(run(controller, 0.1), NEUTRAL)


def test_targets_stay_within_the_joint_limits():
    controller = SawyerController(ARM, NEUTRAL)
    controller.command(POSITION, JOINTS, [9.0] * 7)
    assert np.array_equal(run(controller, 0.01), ARM.high)


# -- scene


def test_the_arm_goes_where_it_is_told_at_the_speed_of_the_ratio(resting):
    goal = np.array(NEUTRAL)
    goal[0] += 0.4
    resting.controller.command(POSITION, JOINTS, goal)
    resting.advance(48)  # 0.2 s
    moved = resting.snapshot().positions[0]
    assert 0.5 * 0.2 * 1.74 * 0.5 < moved <= 0.2 * 1.74 * 0.5 + 0.01
    resting.advance(240)
    assert np.abs(resting.snapshot().positions - goal).max() < 1e-3


def test_motors_that_are_stuck_do_not_follow(resting):
    resting.stuck = True
    resting.controller.command(POSITION, JOINTS, np.array(NEUTRAL) + 0.3)
    resting.advance(120)
    assert np.abs(resting.snapshot().positions - NEUTRAL).max() < 0.01


def test_a_seed_places_the_same_object_and_the_arm_stays(resting):
    before, places = resting.snapshot().positions, []
    for seed in (1, 1, 2):
        resting.arrange(seed)
        places.append(resting.ground_truth()["object_position"])
    assert np.abs(places[0] - places[1]).max() < 1e-6
    assert np.abs(places[0] - places[2]).max() > 1e-3
    assert np.abs(resting.snapshot().positions - before).max() < 1e-3
    assert not resting.success()


@pytest.mark.slow
def test_an_object_can_be_grasped_and_lifted(resting):
    resting.arrange(3)

    def go(place, opening):
        resting.gripper_target = opening
        joints = resting.snapshot().positions
        place_now, turn = ARM.forward(joints, TIP)
        for share in np.linspace(0.1, 1.0, 10):
            joints = ARM.solve(place_now + share * (place - place_now), turn, joints, TIP)
            resting.controller.command(POSITION, JOINTS, joints)
            resting.advance(24)
        resting.advance(60)

    item = resting.ground_truth()["object_position"]
    go(item + [0.0, 0.0, 0.08], MAX_OPENING)
    go(item, MAX_OPENING)
    go(item, 0.0)
    assert 0.005 < resting.snapshot().opening < MAX_OPENING - 0.005, "the fingers hold it"
    assert not resting.success()
    go(item + [0.0, 0.0, LIFTED + 0.05], 0.0)
    assert resting.success()


def test_the_picture_shows_another_scene_when_the_object_moves(resting):
    pictures = []
    for seed in (1, 2):
        resting.arrange(seed)
        pictures.append(resting.image())
    assert pictures[0].shape == (16, 16, 3) and pictures[0].dtype == np.uint8
    assert (pictures[0] != pictures[1]).any()


def test_the_hand_is_measured_where_the_joints_put_it(resting):
    snapshot = resting.snapshot()
    place, _ = ARM.forward(snapshot.positions)
    assert np.array_equal(snapshot.tips[HAND][0], place)
    assert snapshot.opening == pytest.approx(MAX_OPENING, abs=1e-3)
