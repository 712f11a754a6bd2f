"""From where an action counts: the previous target, unless the arm is elsewhere."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from ofrl_robot.control.limiter import Limits
from ofrl_robot.control.pose import Pose
from ofrl_robot.control.signals import ArmState
from ofrl_robot.control.targets import TargetMemory

LIMITS = Limits("base", (-1,) * 3, (1,) * 3, 0.1, 10.0, max_target_error=0.1, max_target_angle=30)
UPRIGHT = np.array([0, 0, 0, 1.0])


def state(position=(0, 0, 0), orientation=UPRIGHT):
    return ArmState(0, np.zeros(1), np.asarray(position, float), np.asarray(orientation, float))


def test_without_memory_an_action_counts_from_the_measured_pose():
    pose, given_up = TargetMemory().start(state((0.1, 0.2, 0.3)), LIMITS)
    assert np.allclose(pose.position, [0.1, 0.2, 0.3]) and not given_up


def test_the_target_is_kept_while_the_arm_is_near_it():
    memory = TargetMemory()
    memory.keep(Pose(np.array([0.09, 0, 0]), UPRIGHT))
    pose, given_up = memory.start(state(), LIMITS)
    assert np.allclose(pose.position, [0.09, 0, 0]) and not given_up


def test_an_arm_that_is_elsewhere_or_turned_away_is_believed():
    memory = TargetMemory()
    memory.keep(Pose(np.array([0.11, 0, 0]), UPRIGHT))
    pose, given_up = memory.start(state(), LIMITS)
    assert np.allclose(pose.position, 0) and given_up
    memory.keep(Pose(np.zeros(3), UPRIGHT))
    turned = Rotation.from_euler("z", 31, degrees=True).as_quat()
    assert memory.start(state(orientation=turned), LIMITS)[1]


def test_it_can_be_forgotten():
    memory = TargetMemory()
    memory.keep(Pose(np.array([0.05, 0, 0]), UPRIGHT))
    memory.clear()
    assert np.allclose(memory.start(state(), LIMITS)[0].position, 0)
