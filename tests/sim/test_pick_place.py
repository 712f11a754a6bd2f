"""Pick-and-place tasks: where things start, what counts as placed, what prior data is made of."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot import specs
from ofrl_robot.errors import ConfigError
from ofrl_robot.sim import make
from ofrl_robot.sim.scripted import make_scripted
from ofrl_robot.sim.tasks import find
from ofrl_robot.sim.tasks.pick_place import TASKS

TRAY, PLACE = "Widow250PickTray-v0", "Widow250PlaceTray-v0"
TRAY_MANY, PLACE_MANY = "Widow250PickTrayMult-v0", "Widow250PlaceTrayMult-v0"
FROM_TABLE = [task.spec.id for task in TASKS if not task.in_gripper]
UPSIDE = np.array([0.0, 0.0, 1.0, 0.0])


@pytest.fixture
def env(request):
    env = make(request.param, image_size=8)
    yield env
    env.close()


def act(**entries: float) -> np.ndarray:
    """An action vector by entry name."""
    action = np.zeros(specs.WIDOWX_ACTION.size)
    for name, value in entries.items():
        action[specs.WIDOWX_ACTION.names.index(name)] = value
    return action


def put(env, position) -> dict:
    """Info with the object put at ``position`` by hand."""
    env.simulation.restore({"object_position": np.array(position), "object_orientation": UPSIDE})
    return env.simulation.info()


@pytest.mark.parametrize("env", FROM_TABLE, indirect=True)
def test_objects_and_containers_start_within_their_boxes_and_apart(env):
    task = find(env.task.id)
    box = task.container
    spots = []
    for seed in range(15):
        env.reset(seed=seed)
        truth = env.ground_truth()
        item, container = truth["object_position"], truth["container_position"]
        spots.append(np.concatenate([item[:2], container[:2]]))
        assert np.linalg.norm(item[:2] - container[:2]) > box.clearance - 0.003
        assert -0.368 < item[2] < -0.345, "at rest on the table"
    spots = np.array(spots)
    low, high = (*task.spawn_low, *box.low), (*task.spawn_high, *box.high)
    assert (spots > np.array(low) - 0.005).all() and (spots < np.array(high) + 0.005).all()
    moved = spots.std(axis=0) > 1e-3
    assert moved[:2].all(), "the object's place varies"
    assert (moved[2:] == (np.array(box.high) > np.array(box.low))).all()


@pytest.mark.parametrize(
    "task_id, height, radius",
    [
        (TRAY, -0.32, 0.04),
        ("Widow250SinglePutInBowl-v0", -0.32, 0.04),
        ("Widow250PutInBox-v0", -0.32, 0.04),
        ("Widow250PlaceOnCube-v0", -0.23, 0.03),
    ],
)
def test_placed_means_low_and_near_the_centre(task_id, height, radius):
    env = make(task_id, image_size=8)
    _, info = env.reset(seed=0)
    assert info["place_success"] is False and info["place_success_target"] is False
    centre = env.ground_truth()["container_position"] * [1, 1, 0]
    inside = put(env, centre + [0.9 * radius, 0, height - 0.001])
    assert inside["place_success"] is True and inside["place_success_target"] is True
    assert put(env, centre + [1.1 * radius, 0, height - 0.001])["place_success"] is False
    assert put(env, centre + [0, 0, height + 0.001])["place_success"] is False
    # and an object let go over the middle comes to rest as placed
    put(env, centre + [0, 0, env.ground_truth()["container_top"][0] + 0.02])
    rewards = [env.step(act())[1] for _ in range(10)]
    assert rewards[-3:] == [1.0] * 3
    env.close()


@pytest.mark.parametrize("env", [PLACE], indirect=True)
def test_place_tray_starts_as_measured_always_the_same(env):
    first, info = env.reset(seed=0)
    assert info["grasp_success"] is True and info["place_success"] is False
    documented = [0.601, 0.1593, -0.1848, -0.0003, 0.7069, 0.7073, -0.0007, 0.0242, -0.0226, 0]
    np.testing.assert_allclose(first["state"], documented, atol=2e-3)
    np.testing.assert_allclose(first["object_position"], [0.600, 0.1527, -0.2316], atol=1e-3)
    again = env.reset(seed=7)[0]
    assert all(np.array_equal(first[key], again[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize("env", [PLACE_MANY], indirect=True)
def test_whatever_starts_in_the_gripper_stays_there_until_it_opens(env):
    for seed in range(12):
        before, _ = env.reset(seed=seed)
        for _ in range(10):
            after, _, _, _, info = env.step(act())
        assert info["grasp_success"] is True
        slip = np.subtract(
            after["object_position"] - after["state"][:3],
            before["object_position"] - before["state"][:3],
        )
        assert np.abs(slip).max() < 0.01
        info = env.step(act(gripper=1.0))[4]
        assert info["grasp_success"] is False


@pytest.mark.parametrize("env", [PLACE], indirect=True)
def test_neutral_does_not_let_go(env):
    env.reset(seed=0)
    for _ in range(3):
        info = env.step(act(x=0.5, neutral=1.0))[4]
    assert info["grasp_success"] is True


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5])
def test_many_object_tasks_draw_from_the_first_num_objects(count):
    env = make(PLACE_MANY, image_size=8, num_objects=count)
    drawn = [env.reset(seed=seed)[1]["object_index"] for seed in range(30)]
    assert all(type(index) is int for index in drawn)
    assert set(drawn) == set(range(count))
    assert env.step(act())[4]["object_index"] == drawn[-1]
    env.close()


@pytest.mark.parametrize("task_id, count", [(TRAY_MANY, 36), (TRAY_MANY, -1), (TRAY, 2)])
def test_num_objects_out_of_range_is_refused(task_id, count):
    with pytest.raises(ConfigError, match="num_objects"):
        make(task_id, num_objects=count)


def test_no_room_beside_the_container_is_an_error_and_not_a_hang(monkeypatch):
    env = make(TRAY, image_size=8)
    monkeypatch.setattr(find(TRAY), "spawn_high", find(TRAY).spawn_low)
    with pytest.raises(ConfigError, match="tries"):
        env.reset(seed=0)
    monkeypatch.undo()
    env.reset(seed=0)
    env.close()


@pytest.mark.slow
def test_prior_data_is_grasps_that_end_at_neutral_and_half_of_the_suboptimal_ones_miss():
    def grasps(name: str, episodes: int) -> int:
        policy = make_scripted(TRAY, 0.1, name)
        count = 0
        for seed in range(episodes):
            env.reset(seed=seed)
            policy.reset(seed)
            for _ in range(25):
                observation, _, _, _, info = env.step(policy.act(env.ground_truth()))
            assert np.linalg.norm(observation["state"][:3] - home) < 0.10
            count += info["grasp_success"]
        return count

    env = make(TRAY, image_size=8)
    home = env.reset(seed=0)[0]["state"][:3]
    assert grasps("grasp_transfer", 8) >= 6
    assert 1 <= grasps("grasp_transfer_suboptimal", 12) <= 9
    env.close()
