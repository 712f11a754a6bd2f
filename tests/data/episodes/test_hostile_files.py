"""Files that point to other files, are no files, or hold what no recorder writes."""

import os

import h5py
import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.hdf5_safety import require_self_contained
from ofrl_robot.data.episodes.reader import iter_frames, read_episode, read_frames, read_meta
from ofrl_robot.data.episodes.recover import recover
from ofrl_robot.data.episodes.schema import GROUP
from ofrl_robot.data.verify.episode_check import DAMAGE, check_episode
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import DatasetError

STEPS = 9


def external_link(name):
    """A link to the same object of another, good episode."""

    def plant(path, other):
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = h5py.ExternalLink(str(other), name)

    return plant


def external_storage(path, other):
    """The actions are the bytes of another file."""
    with h5py.File(path, "r+") as file:
        data = file[f"{GROUP}/actions"]
        shape, size = data.shape, data.size * 4
        del file[f"{GROUP}/actions"]
        file.create_dataset(f"{GROUP}/actions", shape, np.float32, external=[(str(other), 0, size)])


def virtual(name):
    """A virtual dataset over the same dataset of another, good episode."""

    def plant(path, other):
        with h5py.File(path, "r+") as file:
            shape, dtype = file[name].shape, file[name].dtype
            del file[name]
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource(str(other), name, shape)
            file.create_virtual_dataset(name, layout)

    return plant


def soft_then_external(path, other):
    """A soft link within the file to an external link."""
    with h5py.File(path, "r+") as file:
        del file[f"{GROUP}/rewards"]
        file["away"] = h5py.ExternalLink(str(other), f"{GROUP}/rewards")
        file[f"{GROUP}/rewards"] = h5py.SoftLink("/away")


POINTERS = {
    "link to a dataset": (external_link(f"{GROUP}/actions"), "actions"),
    "link to a group": (external_link(f"{GROUP}/obs"), "obs"),
    "soft link to a link": (soft_then_external, "away"),
    "external storage": (external_storage, "actions"),
    "virtual actions": (virtual(f"{GROUP}/actions"), "actions"),
    "virtual frames": (virtual(f"{GROUP}/obs/image"), "obs/image"),
    "virtual next_obs": (virtual(f"{GROUP}/next_obs/state"), "next_obs/state"),
}
pointers = pytest.mark.parametrize("plant, name", POINTERS.values(), ids=list(POINTERS))


@pytest.fixture
def two(tmp_path, make):
    """(an episode, another one in another folder)."""
    path, _, _ = make.episode(tmp_path / "data", STEPS, seed=1)
    other, _, _ = make.episode(tmp_path / "other", STEPS, seed=2)
    return path, other


@pointers
def test_what_lies_in_another_file_is_refused_by_name(two, plant, name):
    path, other = two
    plant(path, other)
    readers = [
        lambda: read_episode(path),
        lambda: read_frames(path, "image", [0]),
        lambda: list(iter_frames(path, "image")),
    ]
    for read in readers:
        with pytest.raises(DatasetError, match="lies in another file") as caught:
            read()
        assert str(path) in str(caught.value) and name in str(caught.value)


@pointers
def test_verify_calls_it_damage(two, plant, name):
    plant(*two)
    (finding,) = check_episode(two[0], QualityLimits()).findings
    assert finding.level == DAMAGE
    assert "lies in another file" in finding.text and name in finding.text


def test_a_group_of_another_file_is_no_episode(two):
    path, other = two
    external_link(GROUP)(path, other)
    for read in (read_meta, read_episode):
        with pytest.raises(DatasetError):
            read(path)
    (finding,) = check_episode(path, QualityLimits()).findings
    assert finding.level == DAMAGE and "another file" in finding.text


@pytest.mark.parametrize("verb", ["info", "view", "export", "label", "trim"])
def test_every_command_refuses_it_in_one_line(two, tmp_path, state_of, capsys, verb):
    path, other = two
    external_storage(path, other)
    before = state_of(path.parent)
    csv = tmp_path / "labels.csv"
    csv.write_text("episode,success\n0,0\n")
    folder = str(path.parent)
    words = {
        "info": ["info", folder],
        "view": ["view", folder],
        "export": ["export", "d4rl", folder, str(tmp_path / "out.hdf5")],
        "label": ["label", folder, "--csv", str(csv)],
        "trim": ["trim", folder, "--still", "inf", "--yes"],
    }
    assert main(["data", *words[verb]]) == 2
    error = capsys.readouterr().err
    assert "actions lies in another file" in error and path.name in error
    assert len(error.splitlines()) == 1
    assert state_of(path.parent) == before


def test_a_partial_that_points_elsewhere_is_lost_and_not_recovered(two):
    path, other = two
    external_storage(path, other)
    path.rename(path.with_name(f"{path.name}.partial"))
    (found,) = recover(path.parent)
    assert "lies in another file" in found.reason


def test_links_and_virtual_datasets_within_the_file_are_allowed(two):
    path, _ = two
    with h5py.File(path, "r+") as file:
        assert file[f"{GROUP}/next_obs/image"].is_virtual
        file[f"{GROUP}/cycle"] = file["data"]
        file["soft"] = h5py.SoftLink(f"/{GROUP}/actions")
        file["dangling"] = h5py.SoftLink("/nowhere")
    assert len(read_episode(path)) == STEPS


def test_a_file_with_very_many_links_is_refused(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for k in range(50):
            file.create_group(str(k))
        require_self_contained(file, tmp_path, max_links=50)
        with pytest.raises(DatasetError, match="more than 49 links"):
            require_self_contained(file, tmp_path, max_links=49)


# -- values ----------------------------------------------------------------------------------


def set_action(path):
    with h5py.File(path, "r+") as file:
        file[f"{GROUP}/actions"][3, 2] = 1e30


def lose_a_frame(path):
    with h5py.File(path, "r+") as file:
        frames = file[f"{GROUP}/obs/image"][:]
        del file[f"{GROUP}/obs/image"]
        data = file.create_dataset(
            f"{GROUP}/obs/image", frames.shape, np.uint8, chunks=(1,) + frames.shape[1:]
        )
        for k in range(len(frames) - 1):
            data[k] = frames[k]


def never_write_the_frames(path):
    with h5py.File(path, "r+") as file:
        shape = file[f"{GROUP}/obs/image"].shape
        del file[f"{GROUP}/obs/image"]
        file.create_dataset(f"{GROUP}/obs/image", shape, np.uint8)


def end_early(path):
    with h5py.File(path, "r+") as file:
        file[f"{GROUP}/terminals"][3] = True


SPOILED = {
    "action": (set_action, "an action of 1e[+]30"),
    "frame": (lose_a_frame, "rows of obs/image are missing"),
    "all frames": (never_write_the_frames, "rows of obs/image are missing"),
    "end": (end_early, "goes on after its end"),
}


@pytest.mark.parametrize("spoil, words", SPOILED.values(), ids=list(SPOILED))
def test_what_verify_calls_damage_is_not_read(two, spoil, words):
    path, _ = two
    spoil(path)
    with pytest.raises(DatasetError, match=words):
        read_episode(path, cameras=())
    assert check_episode(path, QualityLimits()).damaged


def test_missing_frames_are_not_read_as_black(two):
    lose_a_frame(two[0])
    for read in (
        lambda: list(iter_frames(two[0], "image")),
        lambda: read_frames(two[0], "image", [STEPS]),
    ):
        with pytest.raises(DatasetError, match="rows of obs/image are missing"):
            read()


@pytest.mark.parametrize("rate", [0.0, -5.0, np.nan, np.inf])
def test_a_control_rate_that_is_none_is_refused(two, rate):
    with h5py.File(two[0], "r+") as file:
        file[GROUP].attrs["control_rate_hz"] = rate
    with pytest.raises(DatasetError, match="control_rate_hz is"):
        open_dataset(two[0].parent)


BAD_ATTRIBUTES = {
    "raw bytes": ("operator", np.bytes_(b"\xff\xfe")),
    "number": ("task", 3),
    "text": ("seed", "x" * 30),
    "bool": ("seed", True),
    "deep JSON": ("policy", "[" * 5000),
}


@pytest.mark.parametrize("name, value", BAD_ATTRIBUTES.values(), ids=list(BAD_ATTRIBUTES))
def test_an_attribute_of_a_wrong_type_is_named(two, name, value):
    path, _ = two
    with h5py.File(path, "r+") as file:
        file[GROUP].attrs[name] = value
    with pytest.raises(DatasetError, match="damaged metadata") as caught:
        read_meta(path)
    assert name in str(caught.value) or "Recursion" in str(caught.value)
    assert check_episode(path, QualityLimits()).damaged


def test_text_that_is_not_utf8_is_named(two):
    path, _ = two
    with h5py.File(path, "r+") as file:
        kind = h5py.h5t.TypeID.copy(h5py.h5t.C_S1)
        kind.set_size(4)
        kind.set_cset(h5py.h5t.CSET_UTF8)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        del file[GROUP].attrs["robot"]
        attribute = h5py.h5a.create(file[GROUP].id, b"robot", kind, space)
        attribute.write(np.array(b"\xff\xfeab", "S4"), mtype=kind)
    with pytest.raises(DatasetError, match="damaged metadata.*robot"):
        read_meta(path)


# -- no files --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", ".partial"])
def test_a_fifo_is_named_and_nothing_waits_for_it(tmp_path, make, capsys, suffix):
    make.episode(tmp_path)
    os.mkfifo(tmp_path / f"episode_000001.h5{suffix}")
    if suffix:
        (found,) = recover(tmp_path)
        assert found.reason == "not a regular file"
        assert len(open_dataset(tmp_path).paths) == 1
        return
    with pytest.raises(DatasetError, match="episode_000001.h5: not a regular file"):
        open_dataset(tmp_path)
    assert main(["data", "verify", str(tmp_path), "--workers", "1"]) == 2
    assert "episode_000001.h5: not a regular file" in capsys.readouterr().out


def test_a_device_is_no_episode(tmp_path):
    (tmp_path / "episode_000000.h5").symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match="not a regular file"):
        open_dataset(tmp_path)
