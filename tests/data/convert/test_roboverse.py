import pickle

import numpy as np
import pytest

from ofrl_robot.data.convert import importing
from ofrl_robot.data.convert.formats import import_dataset
from ofrl_robot.data.convert.options import RoboverseImport
from ofrl_robot.data.convert.roboverse import LABEL_SOURCE
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import ConfigError, DatasetError, OutputError, SpecMismatchError

NAME = "scripted_Widow250PickTray-v0_2021-06-01T12.npy"


def convert(path, out, **options):
    return import_dataset(path, out, RoboverseImport(**options)).episodes


@pytest.fixture()
def write(tmp_path, make):
    def write(trajectories, name=NAME, **options):
        path = tmp_path / name
        path.write_bytes(make.npy_bytes(trajectories, **options))
        return path

    return write


def _flat(trajectory):
    for key in ("observations", "next_observations"):
        for observation in trajectory[key]:
            observation["image"] = observation["image"].reshape(-1)
    return trajectory


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("flat", [False, True])
def test_round_trip(tmp_path, make, write, core, flat):
    made = [make.trajectory(steps, steps, success=steps != 3) for steps in (1, 3, 70)]
    stored = [make.trajectory(steps, steps, success=steps != 3) for steps in (1, 3, 70)]
    out = tmp_path / "deep" / "dataset"
    path = write([_flat(t) for t in stored] if flat else stored, core=core)
    assert convert(path, out) == 3

    dataset = open_dataset(out)
    assert [m.success for m in dataset.metas] == [1, 0, 1]
    meta = dataset.metas[0]
    assert (meta.task, meta.robot, meta.actor) == ("Widow250PickTray-v0", "roboverse", "converted")
    assert (meta.label_source, meta.control_rate_hz) == (LABEL_SOURCE, 24.0)
    for path, source in zip(dataset.paths, made):
        episode = read_episode(path)
        images = [o["image"] for o in source["observations"]]
        last = source["next_observations"][-1]
        np.testing.assert_array_equal(episode.images["image"], images + [last["image"]])
        np.testing.assert_array_equal(episode.state[:-1],
                                      [o["state"] for o in source["observations"]])  # fmt: skip
        np.testing.assert_array_equal(episode.state[-1], last["state"])
        np.testing.assert_allclose(episode.actions, source["actions"], rtol=1e-6)
        np.testing.assert_array_equal(episode.rewards, source["rewards"])
        assert not episode.terminals.any() and episode.timeouts.sum() == episode.timeouts[-1] == 1
        assert episode.meta.measured_rate_hz == pytest.approx(24.0)


# Trajectories that are numpy arrays and containers, but not roboverse's.
def _set(key, step, value):
    def change(trajectory):
        trajectory[key][step] = value

    return change


def _set_observed(key, step, name, value):
    def change(trajectory):
        trajectory[key][step][name] = value

    return change


def _drop(key):
    return lambda trajectory: trajectory.pop(key)


BAD_IMAGE = np.full((6, 6, 3), 7, np.uint8)
WRONG = {
    "no key": (_drop("env_infos"), "env_infos"),
    "short list": (lambda t: t["rewards"].pop(), "differ in length"),
    "tuple for a list": (lambda t: t.update(actions=tuple(t["actions"])), "differ in length"),
    "next image is another": (
        _set_observed("next_observations", 1, "image", BAD_IMAGE),
        r"trajectory 1.*next_observations\[1\] is not observations\[2\]",
    ),
    "next state is another": (
        _set_observed("next_observations", 0, "state", np.zeros(10)), r"next_observations\[0\]",
    ),
    "float image": (_set_observed("observations", 2, "image", BAD_IMAGE / 255.0), "step 2.*image"),
    "channels first": (
        _set_observed("observations", 0, "image", BAD_IMAGE.transpose(2, 0, 1)), "image",
    ),
    "not square": (_set_observed("observations", 0, "image", np.zeros(18, np.uint8)), "image"),
    "no state": (lambda t: t["observations"][0].pop("state"), "state"),
    "short state": (_set_observed("observations", 0, "state", np.zeros(3)), "state"),
    "NaN state": (_set_observed("observations", 0, "state", np.full(10, np.nan)), "state"),
    "short action": (_set("actions", 1, np.zeros(4)), "step 1.*action"),
    "action beyond 1": (_set("actions", 1, np.full(8, 1.5)), "1.5"),
    "NaN reward": (_set("rewards", 0, float("nan")), "reward"),
    "endless reward": (_set("rewards", 0, 10**400), "reward"),
    "reward in words": (_set("rewards", 0, "1"), "reward"),
    "complex reward": (_set("rewards", 0, np.complex64(1)), "reward"),
    "goes on after the end": (_set("terminals", 1, True), "step 1.*terminal"),
    "observation is not a dict": (_set("observations", 0, [1]), "observation"),
}  # fmt: skip


@pytest.mark.parametrize("change, text", [pytest.param(*c, id=n) for n, c in WRONG.items()])
def test_wrong_trajectories_are_named_and_nothing_is_written(tmp_path, make, write, change, text):
    trajectories = [make.trajectory(3), make.trajectory(3, seed=1)]
    change(trajectories[1])
    path = write(trajectories)
    with pytest.raises(DatasetError, match=text) as caught:
        convert(path, tmp_path / "out")
    assert "trajectory 1" in str(caught.value) and NAME in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "loaded", [None, 3, {}, [], [1], [[1, [2]], 3], np.zeros((2, 2)), np.array(3, object)],
    ids=lambda v: type(v).__name__ + str(np.size(v) if isinstance(v, np.ndarray) else ""),
)  # fmt: skip
def test_anything_but_trajectories_is_refused(tmp_path, loaded):
    path = tmp_path / NAME
    path.write_bytes(pickle.dumps(loaded, 3))
    with pytest.raises(DatasetError, match=NAME):
        convert(path, tmp_path / "out")


def test_a_pixel_that_was_rounded_otherwise_is_the_same_moment(tmp_path, make, write):
    trajectory = make.trajectory(3)
    shown = trajectory["observations"][1]["image"]
    rendered_again = trajectory["next_observations"][0]["image"]
    rendered_again[0, 0, 0] += 1 if shown[0, 0, 0] < 255 else -1
    convert(write([trajectory]), tmp_path / "out")
    episode = read_episode(open_dataset(tmp_path / "out").paths[0])
    np.testing.assert_array_equal(episode.images["image"][1], shown)  # what was acted upon


def test_images_of_two_sizes_are_refused(tmp_path, make, write):
    with pytest.raises(SpecMismatchError, match="trajectory 1.*cameras"):
        convert(write([make.trajectory(size=4), make.trajectory(size=6)]), tmp_path / "out")


def test_a_small_file_cannot_fill_the_disk(tmp_path, make, write):
    """One trajectory referred to a thousand times: a few bytes each in the pickle."""
    with pytest.raises(DatasetError, match="more data than the file has"):
        convert(write([make.trajectory(size=32)] * 1000), tmp_path / "out")


def test_empty_trajectories_are_skipped_with_a_word(tmp_path, make, write, caplog):
    path = write([make.trajectory(0), make.trajectory(2), make.trajectory(0)])
    assert convert(path, tmp_path / "out") == 1
    assert "skipped 2" in caplog.text
    with pytest.raises(DatasetError, match="no trajectory"):
        convert(write([make.trajectory(0)]), tmp_path / "none")


def test_a_terminal_at_the_end_stays_a_terminal(tmp_path, make, write):
    trajectory = make.trajectory(3)
    trajectory["terminals"][-1] = True
    convert(write([trajectory]), tmp_path / "out")
    episode = read_episode(open_dataset(tmp_path / "out").paths[0])
    assert episode.terminals.tolist() == [False, False, True] and not episode.timeouts.any()


def test_the_task_comes_from_the_argument_or_the_name(tmp_path, make, write):
    path = write([make.trajectory()], name="data.npy")
    with pytest.raises(ConfigError, match="--task"):
        convert(path, tmp_path / "out")
    convert(path, tmp_path / "out", task="Mine-v1")
    assert open_dataset(tmp_path / "out").metas[0].task == "Mine-v1"


@pytest.mark.parametrize("occupied", ["episode_000000.h5", "notes.txt"])
def test_an_occupied_folder_stays_as_it_is(tmp_path, make, write, state_of, occupied):
    out = tmp_path / "out"
    out.mkdir()
    (out / occupied).write_bytes(b"mine")
    path = write([make.trajectory()])
    before = state_of(tmp_path)
    for target in (out, out / occupied):
        with pytest.raises(OutputError, match="new folder"):
            convert(path, target)
    assert state_of(tmp_path) == before


def test_a_failure_half_way_leaves_nothing(tmp_path, make, write, monkeypatch):
    written, real = [], importing.write_episode

    def fails_at_the_second(*arguments):
        if written:
            raise OSError(28, "No space left on device")
        written.append(real(*arguments))
        return written[-1]

    monkeypatch.setattr(importing, "write_episode", fails_at_the_second)
    path = write([make.trajectory(), make.trajectory(seed=1)])
    with pytest.raises(OutputError, match="No space left"):
        convert(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
