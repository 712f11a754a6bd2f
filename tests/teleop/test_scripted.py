"""A scripted policy in the operator's seat of a robot whose actions have other entries."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import BASE, WIDOWX_ACTION, ActionSpec
from ofrl_robot.teleop.device import DeviceConfig, make_device

TASK = "Widow250SingleObjGrasp-v0"
TRUTH = {
    "ee_position": np.array([0.6, 0.15, -0.2]),
    "object_position": np.array([0.65, 0.2, -0.36]),
    "gripper_open": np.array([1.0]),
}


def act(names):
    spec = ActionSpec(names, ("m",) * len(names), (0.05,) * len(names), BASE)
    device = make_device(DeviceConfig("scripted", TASK, spec, {"noise": 0.0}))
    device.reset(0)
    return device.act(Tick(0, 0, {}, np.zeros(0), ground_truth=TRUTH))


def test_entries_that_a_robot_has_not_are_left_out_by_name():
    whole = act(WIDOWX_ACTION.names)
    assert np.abs(whole[:2]).min() > 0.1, "it moves towards the object"
    assert act(("gripper", "y", "x")) == pytest.approx(whole[[6, 1, 0]])


def test_an_entry_that_is_none_of_the_simulator_s_is_refused():
    with pytest.raises(ConfigError, match="no entry 'elbow_swivel'"):
        act(("x", "elbow_swivel"))
