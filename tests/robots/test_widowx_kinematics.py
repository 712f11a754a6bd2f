"""Forward and inverse kinematics by screw axes, against the vendor's published poses."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.robots.widowx_kinematics import ScrewChain
from tests.robots.fake_interbotix import HOME, NEUTRAL, SCREWS, SLEEP

CHAIN = ScrewChain(SCREWS, HOME)


@pytest.mark.parametrize(
    "joints, position",
    [
        (np.zeros(6), (0.4583, 0.0, 0.3607)),
        (SLEEP, (0.1227, 0.0, 0.0813)),
        (NEUTRAL, (0.1202, -0.0191, 0.2467)),
    ],
)
def test_known_poses(joints, position):
    assert CHAIN.forward(joints)[:3, 3] == pytest.approx(position, abs=1e-4)


def test_what_is_inverted_comes_back():
    rng = np.random.default_rng(0)
    for _ in range(50):
        joints = NEUTRAL + rng.uniform(-0.4, 0.4, 6)
        target = CHAIN.forward(joints)
        found = CHAIN.inverse(target, joints + rng.uniform(-0.15, 0.15, 6))
        assert found is not None
        assert np.abs(CHAIN.forward(found) - target).max() < 1.1e-3
        assert CHAIN.forward(found)[:3, 3] == pytest.approx(target[:3, 3], abs=1e-4)


def test_the_nearest_solution_is_found():
    target = CHAIN.forward(np.array(NEUTRAL) + 0.02)
    found = CHAIN.inverse(target, np.array(NEUTRAL))
    assert np.abs(found - NEUTRAL).max() < 0.05, "no turn of a joint by a whole revolution"


@pytest.mark.parametrize("place", [(2.0, 0.0, 0.3), (np.nan, 0.0, 0.3)])
def test_a_pose_that_cannot_be_reached_has_no_solution(place):
    target = CHAIN.forward(NEUTRAL)
    target[:3, 3] = place
    assert CHAIN.inverse(target, np.array(NEUTRAL)) is None
