import io
import json

import h5py
import numpy as np
import pytest
from PIL import Image

from ofrl_robot.data.convert.formats import export_dataset, import_dataset
from ofrl_robot.data.convert.options import MinariExport, MinariImport
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import ConfigError, DatasetError, OfrlError, OutputError

LOW, HIGH = [-2.0, -2.0], [2.0, 2.0]


def convert(path, out, **options):
    options.setdefault("rate", 10.0)
    return import_dataset(path, out, MinariImport(**options)).episodes


def export(folder, out, **options):
    return export_dataset(folder, out, MinariExport(**options))


def jpeg(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data.tobytes())))


def foreign(folder, low=LOW, high=HIGH, same_size=False, change=None, **metadata):
    """A dataset as minari 0.5 writes it: nested dict, tuple, JPEG images, success in infos."""
    data, rng = folder / "data", np.random.default_rng(2)
    data.mkdir(parents=True)
    box = {"type": "Box", "dtype": "float32", "shape": [2], "low": low, "high": high}
    metadata = {
        "dataset_id": "lab/lift-v1", "minari_version": "0.5.3", "data_format": "hdf5",
        "action_space": json.dumps(box), "env_spec": json.dumps({"id": "Lift-v3"}), **metadata,
    }  # fmt: skip
    (data / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(str(data / "main_data.hdf5"), "w") as file:
        for number, steps in enumerate((2, 4)):
            group = file.create_group(f"episode_{number}")
            group.attrs.update(id=number, total_steps=steps, seed=40 + number)
            shape = (steps + 1, 32, 40, 3)
            frames = (
                np.zeros(shape, np.uint8) if same_size else rng.integers(0, 256, shape, np.uint8)
            )
            encoded = [jpeg(frame) for frame in frames]
            if same_size:
                group["observations/robot/camera"] = np.array(encoded)
            else:
                rows = group.create_dataset(
                    "observations/robot/camera", (steps + 1,), h5py.vlen_dtype(np.uint8)
                )
                for row, data in enumerate(encoded):
                    rows[row] = data
            group["observations/robot/pos"] = rng.normal(size=(steps + 1, 3))
            group["observations/goal/_index_0"] = rng.normal(size=(steps + 1, 1))
            group.create_dataset("observations/text", data=["a"] * (steps + 1))
            group["actions"] = rng.uniform(-1, 1, (steps, 2)).astype(np.float32) * 2
            group["rewards"] = rng.normal(size=steps)
            last = np.arange(steps) == steps - 1
            group["terminations"], group["truncations"] = last & (number == 0), last & (number > 0)
            group["infos/success"] = np.arange(steps + 1) == steps * (1 - number)
        if change is not None:
            change(file)
    return folder


@pytest.mark.slow
def test_what_goes_out_comes_back(tmp_path, make, require_same):
    folder, out = make.full_dataset(tmp_path / "data"), tmp_path / "arm-v0"
    assert export(folder, out) == 3
    import_dataset(out, tmp_path / "back", MinariImport())
    require_same(folder, tmp_path / "back")
    export(folder, tmp_path / "few", id="lab/few-v2", num_traj=1)
    import_dataset(tmp_path / "few" / "data", tmp_path / "some", MinariImport())
    require_same(folder, tmp_path / "some", 1)


def test_layout_is_minaris(tmp_path, make):
    """What minari.load_dataset looks at, by its names; T actions and T+1 observations."""
    folder, out = make.full_dataset(tmp_path / "data"), tmp_path / "arm-v0"
    export(folder, out)
    metadata = json.loads((out / "data" / "metadata.json").read_text())
    assert metadata["dataset_id"] == "arm-v0" and metadata["data_format"] == "hdf5"
    assert (metadata["total_episodes"], metadata["total_steps"]) == (3, 14)
    assert metadata["jpeg_encoding"] is False and metadata["minari_version"] == "0.5.4"
    space = json.loads(metadata["observation_space"])
    assert space["type"] == "Dict" and set(space["subspaces"]) == {"image", "wrist", "state"}
    wrist, action = space["subspaces"]["wrist"], json.loads(metadata["action_space"])
    assert (wrist["type"], wrist["dtype"], wrist["shape"]) == ("Box", "uint8", [5, 7, 3])
    assert np.array(wrist["low"]).shape == (5, 7, 3) and np.max(wrist["high"]) == 255
    assert (action["dtype"], action["low"], action["high"]) == ("float32", [-1.0] * 8, [1.0] * 8)
    with h5py.File(str(out / "data" / "main_data.hdf5"), "r") as file:
        assert list(file) == ["episode_0", "episode_1", "episode_2"]
        for number, path in enumerate(open_dataset(folder).paths):
            episode, group = read_episode(path), file[f"episode_{number}"]
            assert group.attrs["id"] == number and group.attrs["total_steps"] == len(episode)
            assert group.attrs.get("seed", -1) == number - 1  # none where there was none
            np.testing.assert_array_equal(group["observations/wrist"], episode.images["wrist"])
            np.testing.assert_array_equal(group["observations/state"], episode.state)
            np.testing.assert_array_equal(group["terminations"], episode.terminals)
            np.testing.assert_array_equal(group["truncations"], episode.timeouts)
            for name in ("actions", "rewards"):
                np.testing.assert_array_equal(group[name], getattr(episode, name))


def test_success_is_where_minari_users_look_for_it(tmp_path, make):
    """At the last step of infos/success; nothing for an episode without a label."""
    folder, out = make.full_dataset(tmp_path / "data"), tmp_path / "arm-v0"
    export(folder, out)
    labels = [m.success for m in open_dataset(folder).metas]
    assert labels == [1, 0, -1]
    with h5py.File(str(out / "data" / "main_data.hdf5"), "r+") as file:
        for number, label in enumerate(labels):
            group = file[f"episode_{number}"]
            steps = len(group["actions"])
            if label == -1:
                assert "success" not in group["infos"]
            else:
                expected = [False] * steps + [bool(label)]
                assert group["infos/success"][:].tolist() == expected
            del group.attrs["format_version"]  # now it is a foreign file
    convert(out, tmp_path / "back")
    metas = open_dataset(tmp_path / "back").metas
    assert [m.success for m in metas] == labels
    assert metas[0].label_source == "minari infos/success at last step"


def test_a_frame_of_reference_can_be_given(tmp_path):
    convert(foreign(tmp_path / "lift-v1"), tmp_path / "out", frame="base")
    dataset = open_dataset(tmp_path / "out")
    assert (dataset.action_spec.frame, dataset.observation_spec.state_frame) == ("base", "base")


def test_real_minari_loads_it(tmp_path, make, monkeypatch):
    minari = pytest.importorskip("minari", minversion="0.5.4", exc_type=ImportError)
    folder = make.full_dataset(tmp_path / "data")
    export(folder, tmp_path / "lab" / "arm-v0", id="lab/arm-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert "lab/arm-v0" in minari.list_local_datasets(prefix="lab")
    dataset = minari.load_dataset("lab/arm-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 14)
    for found, path in zip(dataset.iterate_episodes(), open_dataset(folder).paths):
        episode = read_episode(path)
        for name, rows in [("state", episode.state), *episode.images.items()]:
            np.testing.assert_array_equal(found.observations[name], rows)
        np.testing.assert_array_equal(found.actions, episode.actions)
        np.testing.assert_array_equal(found.terminations, episode.terminals)
        np.testing.assert_array_equal(found.truncations, episode.timeouts)
        first = {name: rows[0] for name, rows in found.observations.items()}
        assert dataset.observation_space.contains(first)
        assert dataset.action_space.contains(found.actions[0])


def test_what_real_minari_writes_is_read(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", minversion="0.5.4", exc_type=ImportError)
    from gymnasium.spaces import Box, Dict
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(0)
    spaces = {"camera": Box(0, 255, (40, 48, 3), np.uint8), "pos": Box(-9.0, 9.0, (3,))}
    frames, pos = rng.integers(0, 256, (5, 40, 48, 3), np.uint8), rng.normal(size=(5, 3))
    actions = rng.uniform(-2, 2, (4, 1)).astype(np.float32)
    buffer = EpisodeBuffer(
        seed=3, observations={"camera": frames, "pos": pos.astype(np.float32)}, actions=actions,
        rewards=[0.0] * 4, terminations=[False] * 4, truncations=[False] * 3 + [True], infos={},
    )  # fmt: skip
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for jpegs in (True, False):
        name = f"lab/jpeg{jpegs:d}-v0"
        made = minari.create_dataset_from_buffers(
            name, [buffer], observation_space=Dict(spaces), action_space=Box(-2.0, 2.0, (1,)),
            jpeg_encoding=jpegs,
        )  # fmt: skip
        convert(tmp_path / name, tmp_path / f"out{jpegs}")
        episode = read_episode(open_dataset(tmp_path / f"out{jpegs}").paths[0])
        seen = next(iter(made.iterate_episodes()))
        np.testing.assert_array_equal(episode.images["camera"], seen.observations["camera"])
        np.testing.assert_array_equal(episode.state, seen.observations["pos"])
        np.testing.assert_allclose(episode.actions * 2, actions, rtol=1e-6)
        assert episode.meta.seed == 3 and episode.timeouts[-1]


@pytest.mark.parametrize("same_size", [False, True])
def test_a_foreign_dataset(tmp_path, same_size, caplog):
    source, out = foreign(tmp_path / "lift-v1", same_size=same_size), tmp_path / "out"
    assert convert(source, out) == 2
    assert "observations/text is neither" in caplog.text
    dataset = open_dataset(out)
    assert [c.shape for c in dataset.observation_spec.cameras] == [(32, 40, 3)]
    names = ("goal/_index_0_0", "robot/pos_0", "robot/pos_1", "robot/pos_2")
    assert dataset.observation_spec.state_names == names
    meta = dataset.metas[0]
    assert (meta.task, meta.robot, meta.seed, meta.control_rate_hz) == ("Lift-v3", "minari", 40, 10)
    assert [m.success for m in dataset.metas] == [1, 0]
    assert meta.label_source == "minari infos/success at last step"
    with h5py.File(str(source / "data" / "main_data.hdf5"), "r") as file:
        for number, path in enumerate(dataset.paths):
            episode, group = read_episode(path), file[f"episode_{number}"]
            decoded = [pixels(row) for row in group["observations/robot/camera"]]
            np.testing.assert_array_equal(episode.images["robot_camera"], decoded)
            np.testing.assert_array_equal(episode.state[:, 1:], group["observations/robot/pos"])
            np.testing.assert_allclose(episode.actions * 2, group["actions"], rtol=1e-6)
            np.testing.assert_array_equal(episode.terminals, group["terminations"])
            np.testing.assert_array_equal(episode.timeouts, group["truncations"])
    assert dataset.action_spec.scale == (2.0, 2.0)


def test_an_action_space_that_is_not_symmetric_keeps_its_ends(tmp_path):
    source = foreign(tmp_path / "lift-v1", low=[-2.0, -2.5], high=[4.0, 2.5])
    convert(source, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    ends = dataset.metas[0].environment
    low, high = np.array(ends["action_low"]), np.array(ends["action_high"])
    with h5py.File(str(source / "data" / "main_data.hdf5"), "r") as file:
        actions = read_episode(dataset.paths[1]).actions
        raw = (actions + 1) / 2 * (high - low) + low
        np.testing.assert_allclose(raw, file["episode_1/actions"], atol=1e-6)


@pytest.mark.parametrize(
    "metadata, options, error, text",
    [
        ({}, {"rate": None}, ConfigError, "--rate"),
        ({"action_space": json.dumps({"type": "Discrete", "n": 3})}, {}, DatasetError, "Discrete"),
        ({"action_space": "nonsense"}, {}, DatasetError, "action space"),
        ({"action_space": json.dumps({"type": "Box", "low": [-1] * 3, "high": [1] * 3})}, {},
         DatasetError, "episode_0.*do not fit the action space"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_an_error(tmp_path, metadata, options, error, text):
    source = foreign(tmp_path / "lift-v1", **metadata)
    with pytest.raises(error, match=text):
        convert(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def _goes_on(file):
    file["episode_1/truncations"][1] = True


def _torn_image(file):
    rows = file["episode_1/observations/robot/camera"]
    rows[2] = rows[2][:900]


def _other_size(file):
    file["episode_1/observations/robot/camera"][2] = jpeg(np.zeros((32, 41, 3), np.uint8))


def _bomb(file):
    """A JPEG whose header declares 65500x65500 pixels."""
    data = file["episode_1/observations/robot/camera"][0]
    at = bytes(data).index(b"\xff\xc0") + 5
    data[at : at + 4] = np.frombuffer(b"\xff\xdc\xff\xdc", np.uint8)
    file["episode_1/observations/robot/camera"][0] = data


@pytest.mark.parametrize(
    "change, text",
    [
        (_goes_on, "goes on after its end"), (_torn_image, "image 2 is damaged"),
        (_other_size, "image 2 is 41x32"), (_bomb, "65500x65500 pixels|not a JPEG"),
        (lambda f: f["episode_1"].pop("rewards"), "cannot be read"),
        (lambda f: f["episode_1/observations/robot"].pop("pos"), "differ in state_names"),
    ],
)  # fmt: skip
def test_a_damaged_episode_is_named(tmp_path, change, text):
    source = foreign(tmp_path / "lift-v1", change=change)
    with pytest.raises(OfrlError, match=text) as caught:
        convert(source, tmp_path / "out")
    assert "episode_1" in str(caught.value) and not (tmp_path / "out").exists()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        convert(tmp_path / "missing", tmp_path / "out")
    source = foreign(tmp_path / "lift-v1")
    (source / "data" / "metadata.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        convert(source, tmp_path / "out")


def test_an_export_needs_an_id_and_a_new_folder(tmp_path, make, state_of):
    make.episode(tmp_path / "data")
    for out, options in ((tmp_path / "grasp", {}), (tmp_path / "x", {"id": "../x-v0"})):
        with pytest.raises(ConfigError, match="--id"):
            export(tmp_path / "data", out, **options)
    before = state_of(tmp_path)
    with pytest.raises(OutputError, match="is not empty"):
        export(tmp_path / "data", tmp_path / "data", id="grasp-v0")
    assert state_of(tmp_path) == before
