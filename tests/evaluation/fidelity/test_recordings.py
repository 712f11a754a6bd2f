"""Reading recorded trajectories: whatever sequences they come in, and what is refused."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from ofrl_robot.errors import DatasetError
from ofrl_robot.evaluation.fidelity.recordings import load_trajectories, parse_recording

STEPS = 3


@pytest.fixture
def raw():
    rng = np.random.default_rng(0)
    observations = [
        {
            "state": rng.normal(size=10),
            "object_position": rng.normal(size=3),
            "object_orientation": rng.normal(size=4),
        }
        for _ in range(STEPS + 1)
    ]
    return {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": [rng.uniform(-1, 1, 8) for _ in range(STEPS)],
        "rewards": [0.0, 0.0, 1.0],
        "terminals": [False] * STEPS,
        "agent_infos": [{}] * STEPS,
        "env_infos": [
            {"grasp_success": np.bool_(t == 2), "drawer_x_pos": np.float64(t), "name": "x"}
            for t in range(STEPS)
        ],
    }


def test_what_a_replay_compares(raw):
    found = parse_recording(raw)
    np.testing.assert_array_equal(found.actions, raw["actions"])
    observed = raw["observations"] + raw["next_observations"][-1:]
    np.testing.assert_array_equal(found.ee_positions, [o["state"][:3] for o in observed])
    np.testing.assert_array_equal(found.object_positions, [o["object_position"] for o in observed])
    np.testing.assert_array_equal(found.object_orientation, observed[0]["object_orientation"])
    assert found.rewards.tolist() == [0.0, 0.0, 1.0]
    assert {k: v.tolist() for k, v in found.infos.items()} == {
        "grasp_success": [0.0, 0.0, 1.0], "drawer_x_pos": [0.0, 1.0, 2.0],
    }  # fmt: skip


def test_other_containers_and_types_read_the_same(raw):
    other = copy.deepcopy(raw)
    other["actions"] = np.array(raw["actions"])
    other["rewards"] = np.array([[False], [False], [True]])
    for key in ("observations", "next_observations"):
        other[key] = tuple({k: v.tolist() for k, v in o.items()} for o in raw[key])
    found, expected = parse_recording(other), parse_recording(raw)
    for name in ("actions", "ee_positions", "object_positions", "rewards"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_seven_entries_are_padded_and_all_are_clipped(raw):
    full = np.array(raw["actions"])
    full[1, 0] = -3.0
    raw["actions"] = list(full[:, :7])
    found = parse_recording(raw).actions
    assert found.shape == (STEPS, 8) and not found[:, 7].any() and found[1, 0] == -1.0


def test_images_are_read_when_all_are_there_and_square(raw):
    assert parse_recording(raw).images is None
    frames = np.arange((STEPS + 1) * 48, dtype=np.uint8).reshape(STEPS + 1, 4, 4, 3)
    for step in range(STEPS):
        raw["observations"][step] = dict(raw["observations"][step], image=frames[step])
        after = dict(raw["next_observations"][step], image=frames[step + 1].reshape(-1))
        raw["next_observations"][step] = after
    np.testing.assert_array_equal(parse_recording(raw).images, frames)
    raw["next_observations"][1]["image"] = frames[0].astype(float)
    assert parse_recording(raw).images is None
    raw["next_observations"][1]["image"] = np.zeros((2, 2, 3), np.uint8)
    assert parse_recording(raw).images is None


@pytest.mark.parametrize("infos", [None, [], [{}] * STEPS, "nothing", [1] * STEPS])
def test_infos_may_be_missing(raw, infos):
    raw["env_infos"] = infos
    assert parse_recording(raw).infos == {}
    del raw["env_infos"]
    assert parse_recording(raw).infos == {}


def put(key, step, value):
    def change(raw):
        raw[key][step] = value

    return change


def put_observed(key, value):
    def change(raw):
        raw["next_observations"][1] = dict(raw["next_observations"][1], **{key: value})

    return change


WRONG = {
    "NaN action": (put("actions", 1, np.full(8, np.nan)), "actions is not finite at step 1"),
    "short action": (put("actions", 1, np.zeros(4)), "actions is not rows of numbers"),
    "words": (put("actions", 1, "left"), "actions is not rows of numbers"),
    "short actions": (
        lambda r: r.update(actions=[np.zeros(6)] * STEPS),
        "its actions have 6 entries",
    ),
    "infinite state": (put_observed("state", np.full(10, np.inf)), "state is not finite at step 2"),
    "short state": (put_observed("state", np.zeros(3)), "state is not rows of numbers"),
    "no object": (lambda r: r["next_observations"][0].pop("object_position"),
                  "observations have no object_position"),
    "observation is no dict": (put("observations", 0, 3), "observations have no state"),
    "huge reward": (put("rewards", 0, 10**400), "rewards is not rows"),
    "list too short": (lambda r: r["rewards"].pop(), "differ in length"),
    "infos too short": (lambda r: r["env_infos"].pop(), "differ in length"),
    "no actions": (lambda r: r.pop("actions"), "no actions"),
    "actions are a number": (lambda r: r.update(actions=3), "actions is not a list"),
    "empty": (lambda r: r.update({key: [] for key in list(r)}), "no step"),
}  # fmt: skip


@pytest.mark.parametrize("change, text", [pytest.param(*case, id=n) for n, case in WRONG.items()])
def test_what_cannot_be_replayed_says_why(raw, change, text):
    change(raw)
    with pytest.raises(DatasetError, match=text):
        parse_recording(raw)


@pytest.mark.parametrize("raw", [None, [1, 2], 3])
def test_a_trajectory_is_a_dict(raw):
    with pytest.raises(DatasetError, match="not a dict"):
        parse_recording(raw)


def test_a_file_is_a_list_of_trajectories(tmp_path, write_npy):
    with pytest.raises(DatasetError, match="holds no trajectory"):
        load_trajectories(write_npy(tmp_path / "empty.npy", []))
    (tmp_path / "one.npy").write_bytes(pickle.dumps({"observations": []}, 3))
    with pytest.raises(DatasetError, match="not a list of trajectories"):
        load_trajectories(tmp_path / "one.npy")
