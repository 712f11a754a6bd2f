import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from ofrl_robot.data.convert.bridge import ACTION, STATE_NAMES
from ofrl_robot.data.convert.formats import import_dataset
from ofrl_robot.data.convert.options import BridgeImport
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import DatasetError, HostilePickleError, OfrlError

DATED = "toykitchen2/set_table/00/2022-03-04_05-06-07"
NOW = 1646371567.25


def convert(path, out, **options):
    return import_dataset(path, out, BridgeImport(**options)).episodes


def make_trajectory(folder, steps=3, cameras=2, seed=0, change=None):
    """One trajectory as the collectors write it; returns (frames by camera, obs, policy)."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    frames = {}
    for camera in [f"images{i}" for i in range(cameras)] + ["depth_images0"]:
        (folder / camera).mkdir()
        frames[camera] = []
        for t in range(steps + 1):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(file, "JPEG")
            (folder / camera / f"im_{t}.jpg").write_bytes(file.getvalue())
            frames[camera].append(np.asarray(Image.open(file)))
    observed = {
        "joint_effort": rng.normal(size=(steps + 1, 6)), "qpos": rng.normal(size=(steps + 1, 6)),
        "full_state": rng.normal(size=(steps + 1, 7)), "env_done": np.zeros(steps + 1, bool),
        "state": rng.normal(size=(steps + 1, 7)),
        "eef_transform": rng.normal(size=(steps + 1, 4, 4)),
        "time_stamp": NOW + np.arange(steps + 1) * 0.2, "t_get_obs": [0.08] * (steps + 1),
    }  # fmt: skip
    asked = rng.uniform(-1.2, 1.2, (steps, 7)) * ([0.05] * 3 + [0.25] * 3 + [0.0])
    asked[:, 6] = rng.integers(0, 2, steps)
    policy = [{"actions": a, "policy_type": "VRTeleopPolicy", "delta_robot_transform": np.eye(4)}
              for a in asked]  # fmt: skip
    if change is not None:
        change(folder, observed, policy)
    (folder / "obs_dict.pkl").write_bytes(pickle.dumps(observed, 3))
    (folder / "policy_out.pkl").write_bytes(pickle.dumps(policy, 3))
    (folder / "agent_data.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")  # never looked at
    return frames, observed, policy


def test_a_tree_of_trajectories(tmp_path, caplog):
    raw = tmp_path / "bridgedata" / DATED / "raw"
    made = [
        make_trajectory(raw / "traj_group0" / f"traj{n}", steps, cameras, seed=n)
        for n, steps, cameras in ((2, 3, 2), (10, 5, 3), (1000, 2, 2))
    ]
    (tmp_path / "bridgedata" / "lmdb" / "traj1").mkdir(parents=True)
    assert convert(tmp_path / "bridgedata", tmp_path / "out") == 3
    assert "images2, left out" in caplog.text and "lmdb left out" in caplog.text
    dataset = open_dataset(tmp_path / "out")
    assert dataset.lengths == [3, 5, 2]  # traj2 before traj10
    assert dataset.action_spec == ACTION and ACTION.frame == "base"
    assert dataset.observation_spec.state_frame == "base"
    assert dataset.observation_spec.state_names == STATE_NAMES
    assert [c.name for c in dataset.observation_spec.cameras] == ["images0", "images1"]
    meta = dataset.metas[0]
    assert (meta.task, meta.robot, meta.success) == ("set_table", "widowx250", -1)
    assert meta.measured_rate_hz == pytest.approx(5.0)
    for path, (frames, observed, policy) in zip(dataset.paths, made):
        episode = read_episode(path)
        for camera, shown in episode.images.items():
            np.testing.assert_array_equal(shown, frames[camera])
        np.testing.assert_array_equal(episode.state, observed["full_state"])
        asked = np.array([entry["actions"] for entry in policy])
        np.testing.assert_allclose(episode.actions_requested[:, :3] * 0.05, asked[:, :3], 1e-6)
        np.testing.assert_allclose(episode.actions[:, 3:6],
                                   np.clip(asked[:, 3:6] / 0.25, -1, 1), 1e-6)  # fmt: skip
        np.testing.assert_array_equal(episode.actions[:, 6], asked[:, 6] * 2 - 1)
        beyond = (np.abs(asked[:, :6]) > [0.05] * 3 + [0.25] * 3).any(axis=1)
        np.testing.assert_array_equal(episode.limited, beyond)
        seconds = episode.timestamps["obs"] * 1e-9
        np.testing.assert_allclose(seconds, observed["time_stamp"], atol=1e-6)
        assert not episode.rewards.any() and not episode.terminals.any()
        assert episode.timeouts[-1]


def test_images_before_the_summer_of_2021_came_a_step_late(tmp_path):
    folder = tmp_path / "2021-07-22_23-59-59" / "raw" / "traj_group0" / "traj0"
    frames, observed, policy = make_trajectory(folder, steps=4)
    convert(folder, tmp_path / "out")
    episode = read_episode(open_dataset(tmp_path / "out").paths[0])
    assert len(episode) == 3
    np.testing.assert_array_equal(episode.images["images0"], frames["images0"][1:])
    np.testing.assert_array_equal(episode.state, observed["full_state"][1:])
    np.testing.assert_allclose(
        episode.actions_requested[:, 0] * 0.05, [entry["actions"][0] for entry in policy[:3]], 1e-6
    )


def test_images_can_be_made_small_and_old_policies_are_plain_arrays(tmp_path):
    def plain(_, observed, policy):
        policy[:] = [entry["actions"] for entry in policy]
        del observed["time_stamp"]

    make_trajectory(tmp_path / "in" / "traj0", change=plain)
    convert(tmp_path / "in", tmp_path / "out", image_size=8, task="Mine-v0")
    episode = read_episode(open_dataset(tmp_path / "out").paths[0])
    assert episode.images["images1"].shape == (4, 8, 8, 3) and episode.meta.task == "Mine-v0"
    np.testing.assert_array_equal(episode.timestamps["obs"], np.arange(4) * 200_000_000)


class _Evil:
    def __reduce__(self):
        return (os.system, ("touch bridge-ran",))


def _hostile(key):
    def change(folder, observed, policy):
        (observed if key == "obs" else policy[1])["extra"] = _Evil()

    return change


@pytest.mark.parametrize("key", ["obs", "policy"])
def test_nothing_in_a_pickle_runs_not_even_with_skip_bad(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    make_trajectory(tmp_path / "in" / "traj0")
    make_trajectory(tmp_path / "in" / "traj1", change=_hostile(key))
    with pytest.raises(HostilePickleError, match="traj1.*system"):
        convert(tmp_path / "in", tmp_path / "out", skip_bad=True)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


BAD = {
    "no image": (lambda f, o, p: (f / "images1" / "im_3.jpg").unlink(), "lacks im_3.jpg"),
    "image too many": (
        lambda f, o, p: (f / "images1" / "im_4.jpg").write_bytes(b""), "more images than",
    ),
    "torn image": (
        lambda f, o, p: (f / "images0" / "im_1.jpg").write_bytes(b"\xff\xd8\xff"), "not a JPEG",
    ),
    "no full_state": (lambda f, o, p: o.pop("full_state"), "no full_state"),
    "short state": (lambda f, o, p: o.update(full_state=o["full_state"][:-1]), "one more state"),
    "NaN state": (lambda f, o, p: o.update(full_state=o["full_state"] * np.nan), "not finite"),
    "text for state": (lambda f, o, p: o.update(full_state=["a"] * 4), "numbers expected"),
    "5-D actions": (lambda f, o, p: [e.update(actions=e["actions"][:5]) for e in p], "7 entries"),
    "ragged actions": (lambda f, o, p: p[1].update(actions=np.zeros(3)), "cannot be read"),
    "no actions": (lambda f, o, p: p[1].pop("actions"), "no array of actions"),
    "endless stamps": (lambda f, o, p: o.update(time_stamp=np.full(4, 1e300)), "time_stamp"),
    "stamps short": (lambda f, o, p: o.update(time_stamp=np.zeros(2)), "time_stamp"),
}  # fmt: skip


@pytest.mark.parametrize("change, text", [pytest.param(*c, id=n) for n, c in BAD.items()])
def test_a_bad_trajectory_is_named(tmp_path, change, text):
    make_trajectory(tmp_path / "in" / "traj0")
    make_trajectory(tmp_path / "in" / "traj1", change=change)
    with pytest.raises(OfrlError, match=text) as caught:
        convert(tmp_path / "in", tmp_path / "out")
    assert "traj1" in str(caught.value) and not (tmp_path / "out").exists()
    assert convert(tmp_path / "in", tmp_path / "out", skip_bad=True) == 1


def test_a_missing_pickle_and_an_empty_tree(tmp_path):
    make_trajectory(tmp_path / "in" / "traj0")
    (tmp_path / "in" / "traj0" / "policy_out.pkl").unlink()
    with pytest.raises(DatasetError, match="policy_out.pkl: No such file"):
        convert(tmp_path / "in", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no folder traj0"):
        convert(tmp_path / "empty", tmp_path / "out")
