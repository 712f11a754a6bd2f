import json

import h5py
import numpy as np
import pytest

from ofrl_robot.data.convert.formats import export_dataset, import_dataset
from ofrl_robot.data.convert.options import RobomimicExport, RobomimicImport
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.splits import read_splits
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import ConfigError, DatasetError, OfrlError, OutputError

STEPS = (3, 5, 2)
ENVIRONMENT = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "robots": ["P"]}}


def convert(path, out, **options):
    return import_dataset(path, out, RobomimicImport(**options)).episodes


def export(folder, path, **options):
    return export_dataset(folder, path, RobomimicExport(**options))


def foreign(path, next_obs=True, change=None):
    """A file as robomimic's own scripts write it: float64, gzip, T observations."""
    rng = np.random.default_rng(3)
    with h5py.File(str(path), "w") as file:
        data = file.create_group("data")
        for number, steps in enumerate(STEPS):
            group = data.create_group(f"demo_{number * 5}")  # 0, 5, 10: as numbers
            frames = rng.integers(0, 256, (steps + 1, 6, 8, 3), np.uint8)
            arrays = {
                "agentview_image": frames, "eef_pos": rng.normal(size=(steps + 1, 3)),
                "gripper": rng.normal(size=steps + 1),
                "agentview_depth": rng.random((steps + 1, 6, 8, 1), np.float32),
            }  # fmt: skip
            for name, rows in arrays.items():
                group.create_dataset(f"obs/{name}", data=rows[:-1], compression="gzip")
                if next_obs:
                    group.create_dataset(f"next_obs/{name}", data=rows[1:], compression="gzip")
            group["actions"] = rng.uniform(-1, 1, (steps, 4))
            group["states"] = rng.normal(size=(steps, 30))
            rewarded = np.arange(steps) >= (steps - 1 if number else steps)  # the first fails
            group["rewards"] = rewarded.astype(float)
            group["dones"] = (np.arange(steps) >= steps - 2).astype(int)
            group.attrs["num_samples"] = steps
            group.attrs["model_file"] = "<xml/>"
        data.attrs["total"], data.attrs["env_args"] = sum(STEPS), json.dumps(ENVIRONMENT)
        file["mask/train"] = np.array([b"demo_10", b"demo_0"])
        if change is not None:
            change(file)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("link", [False, True])
def test_what_goes_out_comes_back(tmp_path, make, require_same, link):
    folder, file = make.full_dataset(tmp_path / "data"), tmp_path / "all.hdf5"
    names = [p.name for p in open_dataset(folder).paths]
    splits = {"train": [names[0], names[2]], "valid": [names[1]], "gone": ["episode_000099.h5"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    assert export(folder, file, link_next_obs=link) == 3
    assert convert(file, tmp_path / "back") == 3
    require_same(folder, tmp_path / "back")
    assert read_splits(tmp_path / "back") == {k: splits[k] for k in ("train", "valid")}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.hdf5", "back", "data"]
    export(folder, tmp_path / "some.hdf5", num_traj=2)
    convert(tmp_path / "some.hdf5", tmp_path / "some")
    require_same(folder, tmp_path / "some", 2)


def test_layout_is_robomimics(tmp_path, make):
    """What robomimic's loader and get_dataset_info look at, by their names."""
    folder, path = make.full_dataset(tmp_path / "data"), tmp_path / "all.hdf5"
    episodes = [read_episode(p) for p in open_dataset(folder).paths]
    (folder / "splits.json").write_text(json.dumps({"train": ["episode_000001.h5"]}))
    export(folder, path)
    with h5py.File(str(path), "r", swmr=True, libver="latest") as file:  # as robomimic opens it
        assert set(file) == {"data", "mask"}
        assert set(file["data"]) == {"demo_0", "demo_1", "demo_2"}
        assert file["data"].attrs["total"] == 14
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "Task-v0"
        assert file["mask/train"][:].tolist() == [b"demo_1"]
        for number, episode in enumerate(episodes):
            group = file[f"data/demo_{number}"]
            assert group.attrs["num_samples"] == len(episode)
            assert "model_file" not in group.attrs
            for name, rows in [("state", episode.state), *episode.images.items()]:
                before, after = group[f"obs/{name}"], group[f"next_obs/{name}"]
                np.testing.assert_array_equal(before, rows[:-1])
                np.testing.assert_array_equal(after, rows[1:])
                assert not before.is_virtual and not after.is_virtual
                if rows.dtype == np.uint8:
                    assert before.chunks == after.chunks == (1,) + rows.shape[1:]
            np.testing.assert_array_equal(group["dones"], episode.terminals | episode.timeouts)
            for name in ("actions", "rewards", "terminals", "timeouts", "limits", "source"):
                np.testing.assert_array_equal(group[name], getattr(episode, name))


def test_links_store_every_frame_once(tmp_path, make):
    make.episode(tmp_path / "data", steps=20, size=32)
    export(tmp_path / "data", tmp_path / "copy.hdf5")
    export(tmp_path / "data", tmp_path / "link.hdf5", link_next_obs=True)
    frames = 20 * 32 * 32 * 3
    sizes = [(tmp_path / name).stat().st_size for name in ("copy.hdf5", "link.hdf5")]
    assert sizes[0] - sizes[1] > 0.8 * frames


def test_real_robomimic_reads_it(tmp_path, make):
    dataset = pytest.importorskip("robomimic.utils.dataset", exc_type=ImportError)
    from robomimic.utils import obs_utils

    folder, path = make.full_dataset(tmp_path / "data"), tmp_path / "all.hdf5"
    export(folder, path)
    modalities = {"low_dim": ["state"], "rgb": ["image", "wrist"]}
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": modalities})
    episodes = [read_episode(p) for p in open_dataset(folder).paths]
    for cache in (None, "low_dim", "all"):
        rows = dataset.SequenceDataset(
            hdf5_path=str(path), obs_keys=("state", "image", "wrist"),
            dataset_keys=("actions", "rewards", "dones"), hdf5_cache_mode=cache,
        )  # fmt: skip
        assert len(rows) == 14
        expected = [(episode, t) for episode in episodes for t in range(len(episode))]
        for row, (episode, t) in zip((rows[i] for i in range(14)), expected):
            np.testing.assert_array_equal(row["obs"]["wrist"][0], episode.images["wrist"][t])
            np.testing.assert_array_equal(
                row["next_obs"]["image"][0], episode.images["image"][t + 1]
            )
            np.testing.assert_allclose(row["next_obs"]["state"][0], episode.state[t + 1], 1e-6)
            np.testing.assert_allclose(row["actions"][0], episode.actions[t])


def test_a_foreign_file(tmp_path, caplog):
    path, out = foreign(tmp_path / "low.hdf5"), tmp_path / "out"
    assert convert(path, out) == 3
    assert "obs/agentview_depth is neither" in caplog.text
    dataset = open_dataset(out)
    assert dataset.lengths == list(STEPS)
    spec, meta = dataset.observation_spec, dataset.metas[0]
    assert [(c.name, c.shape) for c in spec.cameras] == [("agentview_image", (6, 8, 3))]
    assert spec.state_names == ("eef_pos_0", "eef_pos_1", "eef_pos_2", "gripper")
    assert (meta.task, meta.robot, meta.actor) == ("Lift", "robomimic", "converted")
    assert (meta.control_rate_hz, meta.environment) == (20.0, ENVIRONMENT)
    assert [m.success for m in dataset.metas] == [0, 1, 1]
    assert meta.label_source == "robomimic reward at last step"
    with h5py.File(str(path), "r") as file:
        for file_path, demo in zip(dataset.paths, ("demo_0", "demo_5", "demo_10")):
            episode, group = read_episode(file_path), file[f"data/{demo}"]
            images = group["obs/agentview_image"][:], group["next_obs/agentview_image"][-1:]
            np.testing.assert_array_equal(episode.images["agentview_image"], np.concatenate(images))
            np.testing.assert_array_equal(episode.state[:-1, :3], group["obs/eef_pos"])
            np.testing.assert_array_equal(episode.state[1:, 3], group["next_obs/gripper"])
            np.testing.assert_allclose(episode.actions, group["actions"], rtol=1e-6)
            np.testing.assert_array_equal(episode.rewards, group["rewards"])
            assert episode.terminals[-1] == (demo != "demo_0")  # done and rewarded
            assert not episode.terminals[:-1].any() and not episode.limited.any()
    assert read_splits(out) == {"train": ["episode_000002.h5", "episode_000000.h5"]}


def test_without_next_obs_a_timeout_costs_the_last_transition(tmp_path):
    path = foreign(tmp_path / "no_next.hdf5", next_obs=False)
    convert(path, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.lengths == [STEPS[0] - 1, STEPS[1], STEPS[2]]
    success = read_episode(dataset.paths[1])
    assert success.terminals[-1] and success.rewards[-1] == 1
    np.testing.assert_array_equal(success.state[-1], success.state[-2])  # nothing bootstraps there
    failure = read_episode(dataset.paths[0])
    assert failure.timeouts[-1] and failure.meta.success == 0
    with h5py.File(str(path), "r") as file:
        np.testing.assert_array_equal(failure.state[:, :3], file["data/demo_0/obs/eef_pos"])


def _rescale(file):
    for group in file["data"].values():
        group["actions"][:] *= 5


def test_actions_in_other_units_need_their_scale(tmp_path):
    path = foreign(tmp_path / "big.hdf5", change=_rescale)
    with pytest.raises(DatasetError, match=r"beyond \[-1, 1\].*--action-scale [34]\.\d+"):
        convert(path, tmp_path / "out")
    convert(path, tmp_path / "out", action_scale=5.0)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.action_spec.scale == (5.0,) * 4
    with h5py.File(str(path), "r") as file:
        np.testing.assert_allclose(
            read_episode(dataset.paths[0]).actions * 5, file["data/demo_0/actions"], rtol=1e-6
        )


def _forget_rate(file):
    file["data"].attrs["env_args"] = json.dumps({"env_name": "Real", "env_kwargs": {}})


def test_the_rate_is_never_made_up(tmp_path, make):
    path = foreign(tmp_path / "real.hdf5", change=_forget_rate)
    with pytest.raises(ConfigError, match="--rate"):
        convert(path, tmp_path / "out")
    convert(path, tmp_path / "out", rate=10.0)
    assert open_dataset(tmp_path / "out").metas[0].measured_rate_hz == pytest.approx(10.0)
    export(make.full_dataset(tmp_path / "data"), tmp_path / "own.hdf5")
    with pytest.raises(ConfigError, match="--rate cannot change them"):
        convert(tmp_path / "own.hdf5", tmp_path / "back", rate=10.0)


@pytest.mark.slow
def test_a_frame_of_reference_can_be_given_for_foreign_files_only(tmp_path, make):
    path = foreign(tmp_path / "low.hdf5")
    for frame in ("unknown", "world", "base"):
        convert(path, tmp_path / frame, frame=frame)
        dataset = open_dataset(tmp_path / frame)
        assert (dataset.action_spec.frame, dataset.observation_spec.state_frame) == (frame, frame)
    folder = make.full_dataset(tmp_path / "data")
    export(folder, tmp_path / "own.hdf5")
    with pytest.raises(ConfigError, match="own.hdf5.*--frame cannot change them"):
        convert(tmp_path / "own.hdf5", tmp_path / "back", frame="world")
    convert(tmp_path / "own.hdf5", tmp_path / "back")
    back, data = open_dataset(tmp_path / "back"), open_dataset(folder)
    assert back.action_spec.frame == data.action_spec.frame
    assert back.observation_spec.state_frame == data.observation_spec.state_frame


@pytest.mark.parametrize("rate", ["0", "NaN", "-20", "1e-300", "Infinity", '"20"', "[20]"])
def test_a_control_rate_that_no_robot_has_is_refused(tmp_path, rate):
    def change(file):
        file["data"].attrs["env_args"] = f'{{"env_kwargs": {{"control_freq": {rate}}}}}'

    path = foreign(tmp_path / "odd.hdf5", change=change)
    with pytest.raises(ConfigError, match="odd.hdf5: stores a control rate.*pass --rate HZ"):
        convert(path, tmp_path / "out")
    assert convert(path, tmp_path / "out", rate=20.0) == 3


def _attribute(name, value):
    return lambda group: group.attrs.update({name: value})


def _entry(name, value):
    def change(group):
        group[name][0] = value

    return change


def _narrow(group):
    actions = group.pop("actions")[:]
    group["actions"] = actions[:, :4]


@pytest.mark.parametrize(
    "change, text",
    [
        (_attribute("control_rate_hz", 0.0), "control_rate_hz is 0.0"),
        (_attribute("control_rate_hz", float("nan")), "control_rate_hz is nan"),
        (_attribute("control_rate_hz", "fast"), "control_rate_hz is 'fast'"),
        (_entry("actions", 1e30), r"an action of 1e\+30 is beyond \[-1, 1\]"),
        (_entry("actions", np.nan), "actions not finite"),
        (_narrow, "actions is .*8 entries expected"),
    ],
)
def test_an_exported_file_that_was_changed_is_refused(tmp_path, make, change, text):
    export(make.full_dataset(tmp_path / "data"), tmp_path / "own.hdf5")
    with h5py.File(str(tmp_path / "own.hdf5"), "r+") as file:
        change(file["data/demo_1"])
    with pytest.raises(DatasetError, match=f"demo_1: .*{text}"):
        convert(tmp_path / "own.hdf5", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def _dense(file):
    file["data/demo_5/rewards"][:] = [0.1, 0.2, 0.3, 0.4, 0.5]


def _unrewarded(file):
    for group in file["data"].values():
        del group["rewards"]


@pytest.mark.parametrize("change", [_dense, _unrewarded])
def test_rewards_that_do_not_say_what_success_is_label_nothing(tmp_path, change):
    convert(foreign(tmp_path / "dense.hdf5", change=change), tmp_path / "out")
    assert {m.success for m in open_dataset(tmp_path / "out").metas} == {-1}


def _secret(folder):
    secret = folder / "secret.h5"
    with h5py.File(str(secret), "w") as file:
        file["rows"] = np.zeros((5, 4))
    return secret


def _external_link(file, folder):
    file["data/demo_5"].pop("actions")
    file["data/demo_5/actions"] = h5py.ExternalLink(str(_secret(folder)), "/rows")


def _external_storage(file, folder):
    raw = folder / "secret.raw"
    raw.write_bytes(bytes(5 * 4 * 8))
    file["data/demo_5"].pop("actions")
    file["data/demo_5"].create_dataset("actions", (5, 4), np.float64, external=[(str(raw), 0, 160)])


def _virtual(file, folder):
    layout = h5py.VirtualLayout((5, 4), np.float64)
    layout[:] = h5py.VirtualSource(str(_secret(folder)), "rows", (5, 4))
    file["data/demo_5"].pop("actions")
    file["data/demo_5"].create_virtual_dataset("actions", layout)


def _declared(file, folder):
    for name in ("obs/eef_pos", "next_obs/eef_pos", "actions"):
        del file[f"data/demo_5/{name}"]
        file["data/demo_5"].create_dataset(name, (2**40, 4), np.float64, chunks=(64, 4))


def _shared(file, folder):
    """One demonstration of 24 MB, which take 24 kB, under a great many names."""
    frames, group = np.full((4, 2000, 1000, 3), 7, np.uint8), file["data/demo_0"]
    for name, rows in (("obs/huge", frames[:-1]), ("next_obs/huge", frames[1:])):
        group.create_dataset(name, data=rows, compression="gzip", chunks=(1, 2000, 1000, 3))
    for number in (5, 10):
        del file[f"data/demo_{number}"]
    for number in range(5, 1000):
        file[f"data/demo_{number}"] = group


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, text",
    [
        (_external_link, "lies in another file"), (_external_storage, "lies in another file"),
        (_virtual, "lies in another file"), (_declared, "more data than it can hold"),
        (_shared, "more data than it can hold"),
    ],
)  # fmt: skip
def test_a_file_cannot_read_others_or_fill_the_memory(tmp_path, change, text):
    path = foreign(tmp_path / "evil.hdf5", change=lambda file: change(file, tmp_path))
    with pytest.raises(OfrlError, match=text):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _no_demo(file):
    del file["data"]
    file.create_group("data")


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda f: f.pop("data"), "no group data"),
        (_no_demo, "no data/demo_0"),
        (lambda f: f["data/demo_5"].pop("actions"), "demo_5.*cannot be read"),
        (lambda f: f["data/demo_5"].pop("obs"), "no group /data/demo_5/obs"),
        (lambda f: f["data/demo_5/next_obs"].pop("gripper"), "demo_5.*next_obs lacks"),
        (lambda f: f["data/demo_5/obs"].pop("eef_pos"), "demo_5.*differ in state_names"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, text):
    with pytest.raises(OfrlError, match=text) as caught:
        convert(foreign(tmp_path / "bad.hdf5", change=change), tmp_path / "out")
    assert "bad.hdf5" in str(caught.value) and not (tmp_path / "out").exists()


def test_a_truncated_file_is_refused(tmp_path):
    path = foreign(tmp_path / "cut.hdf5")
    path.write_bytes(path.read_bytes()[:5000])
    for file in (path, tmp_path / "missing.hdf5"):
        with pytest.raises(DatasetError, match=file.name):
            convert(file, tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path, make, monkeypatch):
    from ofrl_robot.data.episodes import journal

    folder = make.full_dataset(tmp_path / "data")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.os, "pwrite", refuse)
    with pytest.raises(OutputError, match="out.hdf5: cannot be written .No space left"):
        export(folder, tmp_path / "out.hdf5")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
