import h5py
import numpy as np
import pytest

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode, read_meta
from ofrl_robot.errors import DatasetError, SpecMismatchError

GROUP = "data/demo_0"


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _no_hdf5(path):
    path.write_bytes(b"not an HDF5 file")


def _foreign(path):
    with h5py.File(str(path), "w") as file:
        file["data/demo_1/actions"] = np.zeros((3, 7))


def _foreign_robomimic(path):
    with h5py.File(str(path), "w") as file:
        file[f"{GROUP}/actions"] = np.zeros((3, 7))


def _attribute(name, value):
    def damage(path):
        with h5py.File(str(path), "r+") as file:
            if value is None:
                del file[GROUP].attrs[name]
            else:
                file[GROUP].attrs[name] = value

    return damage


def _replace(name, make_value):
    def damage(path):
        with h5py.File(str(path), "r+") as file:
            group = file[GROUP]
            old = group[name][:]
            del group[name]
            value = make_value(old)
            if value is not None:
                group[name] = value

    return damage


def _with_nan(values):
    values = values.copy()
    values[1] = np.nan
    return values


DAMAGES = {
    "truncated": (_truncate, "truncated"),
    "no hdf5": (_no_hdf5, "not an HDF5"),
    "foreign": (_foreign, GROUP),
    "robomimic": (_foreign_robomimic, "format_version"),
    "newer": (_attribute("format_version", 99), "99"),
    "version is text": (_attribute("format_version", "1.0"), "1.0"),
    "spec is no JSON": (_attribute("action_spec", "{"), "metadata"),
    "spec is a list": (_attribute("observation_spec", "[]"), "metadata"),
    "no task": (_attribute("task", None), "task"),
    "label 7": (_attribute("success", 7), "metadata"),
    "no length": (_attribute("num_samples", None), "num_samples"),
}
CONTENT_DAMAGES = {  # seen when the episode is read, not when the folder is opened
    "other length": (_attribute("num_samples", 4), r"\(4, 8\)"),
    "no rewards": (_replace("rewards", lambda v: None), "rewards"),
    "no images": (_replace("obs/image", lambda v: None), "obs/image"),
    "a reward less": (_replace("rewards", lambda v: v[1:]), "rewards"),
    "an image less": (_replace("obs/image", lambda v: v[1:]), "obs/image"),
    "smaller images": (_replace("obs/image", lambda v: v[:, :3]), "obs/image"),
    "float images": (_replace("obs/image", lambda v: v / 255.0), "obs/image"),
    "a flag less": (_replace("limits", lambda v: v[1:]), "limits"),
    "narrow actions": (_replace("actions", lambda v: v[:, :4]), "actions"),
    "short state": (_replace("obs/state", lambda v: v[:, :3]), "obs/state"),
    "NaN action": (_replace("actions", _with_nan), "finite"),
    "NaN reward": (_replace("rewards", _with_nan), "finite"),
}


def _params(cases):
    return [pytest.param(*case, id=name) for name, case in cases.items()]


@pytest.mark.parametrize("damage, text", _params({**DAMAGES, **CONTENT_DAMAGES}))
def test_a_damaged_episode_is_named(tmp_path, make, damage, text):
    path, _, _ = make.episode(tmp_path)
    damage(path)
    with pytest.raises(DatasetError, match=text) as caught:
        read_episode(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage, text", _params(DAMAGES))
def test_a_dataset_with_a_damaged_episode_does_not_open(tmp_path, make, damage, text):
    make.episode(tmp_path, seed=1)
    path, _, _ = make.episode(tmp_path, seed=2)
    damage(path)
    with pytest.raises(DatasetError, match=text) as caught:
        open_dataset(tmp_path)
    assert str(path) in str(caught.value)


def test_cut_off_anywhere_is_named(tmp_path, make):
    path, _, _ = make.episode(tmp_path)
    good = path.read_bytes()
    for length in np.linspace(0, len(good) - 1, 40).astype(int):
        path.write_bytes(good[:length])
        with pytest.raises(DatasetError) as caught:
            read_meta(path)
        assert str(path) in str(caught.value)


def test_only_the_cameras_asked_for_are_read(tmp_path, make):
    path, _, _ = make.episode(tmp_path)
    assert read_episode(path, cameras=()).images == {}
    assert list(read_episode(path).images) == ["image"]


def test_mixed_specs_name_episode_and_field(tmp_path, make):
    make.episode(tmp_path, size=6)
    make.episode(tmp_path, size=8)
    with pytest.raises(SpecMismatchError, match="episode_000001.h5.*cameras"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_episodes_says_so(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=name):
        open_dataset(tmp_path / name)
