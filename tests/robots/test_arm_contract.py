"""The simulated arm keeps what of the contract of an arm makes sense in lockstep."""

from __future__ import annotations

import pytest

from ofrl_robot.control.signals import Sent
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import make_rig
from tests.robots import arm_contract

TASK = "Widow250SingleObjGrasp-v0"


@pytest.fixture
def rig():
    built = make_rig(ArmConfig("sim", TASK, load_arm_file("sim"), settings={"image_size": 8}))
    built.reset(0)
    yield built
    built.close()


@pytest.mark.parametrize("promise", ["describes_itself", "measures"])
def test_the_simulated_arm_keeps_the_contract(rig, promise):
    getattr(arm_contract, promise)(rig.arm)


def test_the_simulated_arm_stays_on_hold(rig):
    """Its position loop is soft, so it sags by some mm, and it counts from the measured pose."""
    begin = arm_contract.pose_of(rig.arm)
    for _ in range(10):
        assert rig.arm.command(arm_contract.setpoint(rig.arm, arm_contract.pose_of(rig.arm))) == (
            Sent()
        )
    assert arm_contract.apart(rig.arm, begin)[0] < 2 * arm_contract.NEAR


def test_the_simulated_arm_closes_twice(rig):
    arm_contract.closes(rig.arm)
