import io
import pickle
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from ofrl_robot.data.convert import tables
from ofrl_robot.data.convert.formats import export_dataset, import_dataset
from ofrl_robot.data.convert.options import D4rlExport, D4rlImport
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import ConfigError, DatasetError

STEPS = (3, 1, 4, 2)
STARTS = np.concatenate([[0], np.cumsum(STEPS)])
SUFFIXES = pytest.mark.parametrize("suffix", [".hdf5", ".npz"])


def convert(path, out, **options):
    options.setdefault("rate", 50.0)
    return import_dataset(path, out, D4rlImport(**options)).episodes


def export(folder, path, **options):
    return export_dataset(folder, path, D4rlExport(**options))


def arrays(images=False):
    """Flat arrays of four episodes: terminal, timeout, timeout, terminal."""
    rng = np.random.default_rng(4)
    shape = (6, 6, 3) if images else (5,)
    draw = (lambda n: rng.integers(0, 256, (n, *shape), np.uint8)) if images else (
        lambda n: rng.normal(size=(n, *shape)).astype(np.float32))  # fmt: skip
    observed = [draw(steps + 1) for steps in STEPS]
    ends = np.isin(np.arange(STARTS[-1]), STARTS[1:] - 1)
    terminal = np.isin(np.arange(STARTS[-1]), STARTS[[1, 4]] - 1)
    return {
        "observations": np.concatenate([rows[:-1] for rows in observed]),
        "next_observations": np.concatenate([rows[1:] for rows in observed]),
        "actions": rng.uniform(-1, 1, (STARTS[-1], 2)).astype(np.float32),
        "rewards": terminal.astype(np.float32),
        "terminals": terminal,
        "timeouts": ends & ~terminal,
    }


def write(path, flat):
    if path.suffix == ".npz":
        np.savez_compressed(str(path), **flat)
    else:
        with h5py.File(str(path), "w") as file:
            for name, rows in flat.items():
                file.create_dataset(name, data=rows, compression="gzip")
            file["infos/qpos"] = np.zeros((len(flat["actions"]), 3))
            file["metadata/algorithm"] = "SAC"
    return path


@pytest.mark.slow
@SUFFIXES
@pytest.mark.parametrize("observations", ["state", "wrist"])
def test_what_goes_out_comes_back(tmp_path, make, require_same, suffix, observations):
    folder, file = make.full_dataset(tmp_path / "data"), tmp_path / (f"flat{suffix}")
    assert export(folder, file, observations=observations) == 3
    assert import_dataset(file, tmp_path / "back", D4rlImport()).episodes == 3
    require_same(folder, tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "data", file.name]
    export(folder, tmp_path / (f"few{suffix}"), num_traj=2)
    import_dataset(tmp_path / (f"few{suffix}"), tmp_path / "few", D4rlImport())
    require_same(folder, tmp_path / "few", 2)


@SUFFIXES
def test_layout_is_d4rls(tmp_path, make, suffix):
    folder, path = make.full_dataset(tmp_path / "data"), tmp_path / (f"flat{suffix}")
    export(folder, path, observations="wrist")
    episodes = [read_episode(p) for p in open_dataset(folder).paths]
    flat = np.load(str(path)) if suffix == ".npz" else h5py.File(str(path), "r")
    with flat:
        expected = {name: np.concatenate([getattr(e, name) for e in episodes])
                    for name in ("actions", "rewards", "terminals", "timeouts")}  # fmt: skip
        frames = [e.images["wrist"] for e in episodes]
        expected["observations"] = np.concatenate([rows[:-1] for rows in frames])
        expected["next_observations"] = np.concatenate([rows[1:] for rows in frames])
        expected["infos/obs/state"] = np.concatenate([e.state[:-1] for e in episodes])
        for name, rows in expected.items():
            np.testing.assert_array_equal(flat[name][:], rows)
        infos = [name for name in flat if name.startswith("infos/")]
        assert all(len(flat[name]) == 14 for name in infos)


@pytest.mark.slow
@SUFFIXES
def test_images_of_d3rlpy_have_their_channels_first_and_come_back(
    tmp_path, make, require_same, suffix
):
    folder, path = make.full_dataset(tmp_path / "data"), tmp_path / f"flat{suffix}"
    export(folder, path, observations="wrist", channels_first=True)
    frames = [read_episode(p).images["wrist"] for p in open_dataset(folder).paths]
    table = tables.open_table(path)
    for name, rows in (
        ("observations", [f[:-1] for f in frames]),
        ("next_observations", [f[1:] for f in frames]),
    ):
        expected = np.concatenate(rows).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(table.read(name), expected)
    table.close()
    import_dataset(path, tmp_path / "back", D4rlImport())
    require_same(folder, tmp_path / "back")


@pytest.mark.slow
def test_a_frame_of_reference_can_be_given(tmp_path):
    path = write(tmp_path / "hop.npz", arrays())
    for frame in ("unknown", "world", "base"):
        convert(path, tmp_path / frame, frame=frame)
        dataset = open_dataset(tmp_path / frame)
        assert (dataset.action_spec.frame, dataset.observation_spec.state_frame) == (frame, frame)
    convert(path, tmp_path / "out")
    assert open_dataset(tmp_path / "out").action_spec.frame == "unknown"


def test_observations_that_no_episode_can_hold_are_named(tmp_path, caplog):
    flat = arrays()
    for name in ("observations", "next_observations"):
        flat[f"{name}/pos"], flat[f"{name}/depth"] = flat.pop(name), np.zeros((STARTS[-1], 4, 4))
    convert(write(tmp_path / "depth.hdf5", flat), tmp_path / "out")
    assert caplog.text.count("observations/depth is neither an RGB image nor a vector") == 1


@SUFFIXES
@pytest.mark.parametrize("images", [False, True])
def test_a_foreign_file(tmp_path, suffix, images):
    flat = arrays(images)
    convert(write(tmp_path / (f"hop{suffix}"), flat), tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.lengths == list(STEPS)
    assert [m.success for m in dataset.metas] == [1, 0, 0, 1]
    meta = dataset.metas[0]
    assert (meta.task, meta.robot, meta.control_rate_hz) == ("hop", "d4rl", 50.0)
    for number, path in enumerate(dataset.paths):
        rows = slice(STARTS[number], STARTS[number + 1])
        episode = read_episode(path)
        observed = episode.images["image"] if images else episode.state
        np.testing.assert_array_equal(observed[:-1], flat["observations"][rows])
        np.testing.assert_array_equal(observed[1:], flat["next_observations"][rows])
        for name in ("actions", "rewards", "terminals", "timeouts"):
            np.testing.assert_array_equal(getattr(episode, name), flat[name][rows])


def test_columns_of_one_entry_are_taken_as_they_are(tmp_path):
    flat = arrays()
    for name in ("rewards", "terminals", "timeouts"):
        flat[name] = flat[name][:, None]
    assert convert(write(tmp_path / "columns.npz", flat), tmp_path / "out") == 4


def test_dicts_of_observations(tmp_path):
    flat, seen = arrays(), arrays(images=True)
    for name in ("observations", "next_observations"):
        flat[f"{name}/pos"], flat[f"{name}/camera"] = flat.pop(name), seen[name]
    convert(write(tmp_path / "dict.hdf5", flat), tmp_path / "out")
    episode = read_episode(open_dataset(tmp_path / "out").paths[2])
    assert episode.images["camera"].shape == (5, 6, 6, 3) and episode.state.shape == (5, 5)
    assert episode.meta.observation_spec.state_names[0] == "pos_0"


def test_without_timeouts_the_next_observations_tell(tmp_path, caplog):
    flat = arrays()
    del flat["timeouts"]
    convert(write(tmp_path / "no_timeouts.npz", flat), tmp_path / "out")
    assert open_dataset(tmp_path / "out").lengths == list(STEPS) and "no timeouts" in caplog.text


def test_without_next_observations_a_timeout_costs_the_last_transition(tmp_path):
    flat = arrays()
    del flat["next_observations"]
    made = import_dataset(
        write(tmp_path / "short.hdf5", flat), tmp_path / "out", D4rlImport(rate=50.0)
    )
    assert (made.episodes, made.empty) == (3, 1)  # the timeout after one step has none left
    assert open_dataset(tmp_path / "out").lengths == [3, 3, 2]
    episode = read_episode(open_dataset(tmp_path / "out").paths[1])
    np.testing.assert_array_equal(episode.state, flat["observations"][4:8])


def test_transitions_that_were_shuffled_are_no_trajectories(tmp_path):
    flat = arrays()
    order = np.random.default_rng(0).permutation(STARTS[-1])
    flat = {name: rows[order] for name, rows in flat.items()}
    with pytest.raises(DatasetError, match="episode 0: .*not the observations that follow"):
        convert(write(tmp_path / "mixed.npz", flat), tmp_path / "out")


class _Evil:
    def __reduce__(self):
        return (open, ("opened-by-d4rl", "w"))


def test_python_objects_in_an_npz_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flat = arrays()
    flat["infos/evil"] = np.array([_Evil()], object)
    np.savez(str(tmp_path / "evil.npz"), **flat)
    with pytest.raises(DatasetError, match="infos/evil holds Python objects"):
        convert(tmp_path / "evil.npz", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.npz"]


def _npz(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _header(shape, fortran=False):
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@pytest.mark.parametrize(
    "data, text",
    [
        (b"", "not an .npz file"), (pickle.dumps({"a": 1}), "not an .npz file"),
        (_npz({"actions.npy": b"nonsense"}), "actions.npy cannot be read"),
        (_npz({"actions.npy": _header((2**40,))}), "more data than it can hold"),
        (_npz({"actions.npy": _header((3, 2), True) + bytes(48)}), "in Fortran order"),
        (_npz({"actions.npy": _header((3, 2)) + bytes(48)}), "has no rewards"),
        (_npz({"rewards.npy": _header((3,)) + bytes(24)}), "has no actions"),
        (_npz({f"{n}.npy": _header((3 - (n == "rewards"), 2)) + bytes(48)
               for n in ("actions", "rewards", "observations")}), "rewards does not fit 3 actions"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, data, text):
    path = tmp_path / "bad.npz"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=text):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_fit(tmp_path, make):
    make.episode(tmp_path / "data")
    with pytest.raises(ConfigError, match="--observations is 'wrist'; pass state or image"):
        export(tmp_path / "data", tmp_path / "out.npz", observations="wrist")
    with pytest.raises(ConfigError, match="pass --rate HZ"):
        convert(write(tmp_path / "hop.npz", arrays()), tmp_path / "out", rate=None)
    with pytest.raises(ConfigError, match="--num-traj is -1"):
        export(tmp_path / "data", tmp_path / "out.npz", num_traj=-1)


@pytest.mark.slow
def test_an_npz_is_read_forwards_in_parts(tmp_path):
    """Not an array whole: the file may be larger than the memory. (zipfile skips 16 MB a time.)"""
    rows = np.zeros((2**20, 10))
    rows[:, 0] = np.arange(len(rows))
    np.savez(str(tmp_path / "big.npz"), rows=rows)
    table = tables.open_table(tmp_path / "big.npz")
    tracemalloc.start()
    table.read("rows", slice(len(rows) - 10, len(rows)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes / 2
    for part in (slice(5, 9), slice(100, 2000), slice(0, 3), slice(2999, 3000), slice(4, 4)):
        np.testing.assert_array_equal(table.read("rows", part), rows[part])
    table.close()
