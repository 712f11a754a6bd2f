"""Replaying a recording: nothing off for our own, the right amount off for a changed one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ofrl_robot.errors import SpecMismatchError
from ofrl_robot.evaluation.fidelity.replay import Recording, replay
from ofrl_robot.sim.scripted import make_scripted
from ofrl_robot.sim.simulation import EmbeddedSimulation
from ofrl_robot.sim.tasks import find

GRASP, DRAWER = "Widow250SingleObjGrasp-v0", "Widow250DrawerOpen-v0"
PLACE, TWO_DRAWERS = "Widow250PlaceTray-v0", "Widow250DoubleDrawerOpenNeutral-v0"


def simulate(task):
    return EmbeddedSimulation(find(task)(), stale_gripper_flag=True)


def record(task, seed=0, steps=20):
    """What a replay gets to see of an episode of the task's scripted policy."""
    simulation, policy = simulate(task), make_scripted(task, noise=0.05)
    simulation.reset(np.random.default_rng(seed))
    policy.reset(seed)
    actions, infos = [], []
    positions, poses = [simulation.state()[:3]], [simulation.object_pose()]
    for _ in range(steps):
        actions.append(policy.act(simulation.ground_truth()))
        simulation.step(actions[-1])
        positions.append(simulation.state()[:3])
        poses.append(simulation.object_pose())
        infos.append(simulation.info())
    simulation.close()
    columns = {key: np.array([info[key] for info in infos], float) for key in infos[0]}
    return Recording(
        np.array(actions), np.array(positions), np.array([p for p, _ in poses]), poses[0][1],
        columns[find(task).spec.success_key], columns,
    )  # fmt: skip


def replayed(task, recording):
    simulation = simulate(task)
    try:
        return replay(simulation, recording, np.random.default_rng(99))
    finally:
        simulation.close()


@pytest.fixture(scope="module")
def grasp():
    return record(GRASP)


@pytest.mark.parametrize("task", [GRASP, DRAWER, PLACE, TWO_DRAWERS])
def test_our_own_recording_happens_again(task):
    recording = record(task)
    found = replayed(task, recording)
    assert 2 <= found.free_steps < len(recording.actions)
    # a held object is put back to where it was seen, not to how it was squeezed
    assert found.errors_mm[: found.free_steps].max() < (0.1 if task == PLACE else 0.001)
    assert found.recorded.success and found.replayed.success
    if task in (DRAWER, TWO_DRAWERS):
        # the travel was drawn anew for the replay and has to be found from the recording
        assert found.replayed.drawer_opening == pytest.approx(
            found.recorded.drawer_opening, abs=0.02
        )
        assert found.recorded.drawer_opened and found.replayed.drawer_opened
    else:
        assert found.recorded.drawer_opened is found.recorded.drawer_opening is None


def test_a_displaced_path_shows_as_that_displacement(grasp):
    path = grasp.ee_positions.copy()
    path[3:] += [0.003, 0.0, 0.004]
    found = replayed(GRASP, dataclasses.replace(grasp, ee_positions=path))
    np.testing.assert_allclose(found.errors_mm[:2], 0.0, atol=0.01)
    np.testing.assert_allclose(found.errors_mm[2 : found.free_steps], 5.0, atol=0.02)


def test_a_failed_recording_disagrees(grasp):
    found = replayed(GRASP, dataclasses.replace(grasp, rewards=np.zeros(len(grasp.rewards))))
    assert not found.recorded.success_any and found.replayed.success_any


@pytest.mark.slow
def test_whichever_moves_first_ends_the_free_steps(grasp):
    free = replayed(GRASP, grasp).free_steps
    moved = grasp.object_positions.copy()
    moved[free:] += [0.002, 0.0, 0.0]  # seen after step free - 1
    found = replayed(GRASP, dataclasses.replace(grasp, object_positions=moved))
    assert found.free_steps == free - 1
    drawer = np.full(len(grasp.rewards), 0.5)
    drawer[1:] += 0.001
    infos = dict(grasp.infos, drawer_top_x_pos=drawer)
    with pytest.raises(SpecMismatchError, match="drawer_top_x_pos"):
        replayed(GRASP, dataclasses.replace(grasp, infos=infos))
    rolling = grasp.object_positions + np.linspace(0.0, 0.1, len(grasp.object_positions))[:, None]
    found = replayed(GRASP, dataclasses.replace(grasp, object_positions=rolling))
    assert found.free_steps == free, "an object that rolls on its own was not touched"


def test_another_scene_is_refused(grasp):
    with pytest.raises(SpecMismatchError, match="infos lack drawer_x_pos"):
        replayed(DRAWER, grasp)
    with pytest.raises(SpecMismatchError, match="place_success"):
        replayed(GRASP, record("Widow250PickTray-v0", steps=2))
    with pytest.raises(SpecMismatchError, match="arm begins 30 mm from the simulator"):
        path = grasp.ee_positions + [0.0, 0.03, 0.0]
        replayed(GRASP, dataclasses.replace(grasp, ee_positions=path))
    drawer = record(DRAWER, steps=2)
    infos = dict(drawer.infos, drawer_x_pos=drawer.infos["drawer_x_pos"] + 0.1)
    with pytest.raises(SpecMismatchError, match="drawer begins"):
        replayed(DRAWER, dataclasses.replace(drawer, infos=infos))


def test_without_infos_the_arm_is_still_compared(grasp):
    found = replayed(GRASP, dataclasses.replace(grasp, infos={}))
    assert found.errors_mm[: found.free_steps].max() < 0.01
    assert found.recorded.drawer_opened is None
