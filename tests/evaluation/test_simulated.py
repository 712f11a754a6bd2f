"""The rig that a policy is tried on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ofrl_robot.errors import SpecMismatchError
from ofrl_robot.evaluation import simulated
from ofrl_robot.sim.options import SimOptions
from tests.run_factory import TASK


@pytest.fixture
def policy():
    camera = SimpleNamespace(height=20)
    header = SimpleNamespace(task=TASK, observation_spec=SimpleNamespace(cameras=[camera]))
    return SimpleNamespace(header=header, require_specs=lambda *args: None)


def test_the_policy_names_task_and_picture_unless_the_user_does(policy):
    rig = simulated.rig_for(policy, SimOptions(image_size=0))
    assert rig.task.name == TASK and rig.observation_spec.cameras[0].height == 20
    rig.close()
    rig = simulated.rig_for(policy, SimOptions(image_size=8), "Widow250PickTray-v0", True)
    assert rig.task.name == "Widow250PickTray-v0"
    assert rig.observation_spec.cameras[0].height == 8
    rig.close()


def test_a_rig_that_does_not_fit_is_closed(policy, monkeypatch):
    closed = []

    def refuse(*args):
        raise SpecMismatchError("another arm")

    policy.require_specs = refuse
    make = simulated.sim_rig

    def spied(*args):
        rig = make(*args)
        close = rig.close
        monkeypatch.setattr(rig, "close", lambda: (closed.append(True), close()))
        return rig

    monkeypatch.setattr(simulated, "sim_rig", spied)
    with pytest.raises(SpecMismatchError, match="another arm"):
        simulated.rig_for(policy, SimOptions(image_size=8))
    assert closed == [True]


def test_one_thread_is_used():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        simulated.use_one_thread()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
