import builtins
import io
import os
import pickle
import shutil
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofrl_robot.data.convert.roboverse import LABEL_SOURCE, convert
from ofrl_robot.data.convert.unpickle import load_npy_objects
from ofrl_robot.data.reader import open_dataset, read_episode
from ofrl_robot.errors import ConfigError, DatasetError, HostilePickleError, OfrlError

NAME = "scripted_Widow250PickTray-v0_2021-06-01T12.npy"


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


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_value_survives(tmp_path, protocol):
    value = {
        "c order": np.arange(6.0).reshape(2, 3), "fortran": np.arange(6).reshape(2, 3).T,
        "big endian": np.arange(3, dtype=">i4"), "empty": np.zeros((0, 3)), "text": "é",
        "bool": np.array([True, False]), "objects": np.array([[1, "x"], [None, 2.5]], object),
        "bytes": b"\x00\xff", "no bytes": b"", "scalar": np.float32(3), "flag": np.bool_(True),
        "list": [1, -2.5, None, True, 2**70, (1, (2,), ())], "words": np.array(["ab", "c"]),
    }  # fmt: skip
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    loaded, trusted = load_npy_objects(path), pickle.loads(path.read_bytes())
    assert loaded.keys() == value.keys()
    for name, found in loaded.items():
        assert type(found) is type(trusted[name])
        if isinstance(found, np.ndarray):
            np.testing.assert_array_equal(found, value[name])
            assert found.dtype == trusted[name].dtype
        else:
            assert found == value[name]


# Hostile files. Each tries to create the file SENTINEL, or asks for something unsafe.
SENTINEL = "ofrl-hostile-pickle-ran"


class _Call:
    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


class _Array(np.ndarray):
    """A subclass may run code of its own when it is restored."""


def _pickled(value, protocol=3):
    return pickle.dumps(value, protocol)


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NAMES = RECONSTRUCT + b"q\x01cnumpy\nndarray\nq\x02"
ARRAY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
OBJECT_DTYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"
SHELL = "touch " + SENTINEL
HOSTILE = {
    "system": (_pickled(_Call(os.system, SHELL)), r"(posix|nt)\.system"),
    "system, protocol 4": (_pickled(_Call(os.system, SHELL), 4), r"(posix|nt)\.system"),
    "eval": (_pickled(_Call(eval, "open('%s', 'w')" % SENTINEL)), r"builtins\.eval"),
    "open": (_pickled(_Call(open, SENTINEL, "w")), r"io\.open"),
    "process": (_pickled(_Call(subprocess.call, SHELL, 0)), r"subprocess\.call"),
    "nested": (_pickled([{"a": ({"b": [_Call(os.system, SHELL)]},)}]), r"system"),
    "in an array": (_pickled(np.array([_Call(os.system, SHELL), 1], object)), r"system"),
    "subclass": (_pickled(np.zeros(3).view(_Array)), r"_Array"),
    "reconstruct of a foreign type": (
        b"\x80\x03" + RECONSTRUCT + b"cnumpy\ndtype\nK\x00\x85C\x01b\x87R.", "subclass",
    ),
    "numpy's loader": (b"\x80\x03cnumpy\nload\nX\x01\x00\x00\x00x\x85R.", r"numpy\.load"),
    "attribute walk": (
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", r"numpy\.ndarray\.__class__",
    ),
    "class instance": (b"\x80\x02cnumpy\nndarray\nK\x03\x85\x81.", "opcode"),
    "calling an inert type": (b"\x80\x02cnumpy\nndarray\nK\x03\x85R.", "calls a type"),
    "calling data": (b"\x80\x02]K\x03\x85R.", "calls a list"),
    "INST": (b"\x80\x02(ios\nsystem\n.", r"os\.system"),
    "extension": (b"\x80\x02\x82\x01.", "opcode"),
    "persistent id": (b"\x80\x02Pa\n.", "opcode"),
    "set state of a function": (b"\x80\x02" + RECONSTRUCT + b"}X\x01\x00\x00\x00aK\x01sb.",
                                "sets the state of a function"),
    "set state of a type": (b"\x80\x02cnumpy\nndarray\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
                            "sets the state of a type"),
    "structured dtype": (_pickled(np.zeros(2, [("a", "O")])), "dtype"),
    "object scalar": (b"\x80\x03cnumpy.core.multiarray\nscalar\n" + OBJECT_DTYPE
                      + b"C\x08aaaaaaaa\x86R.", "object scalar"),
    "codec": (_pickled(_Call(__import__("codecs").encode, "abc", "rot13")), "rot13"),
}  # fmt: skip
# Not hostile by name, but would crash numpy or exhaust memory if it were believed.
NONSENSE = {
    "bytes as object pointers": b"\x80\x03" + ARRAY + b"(K\x01K\x01\x85" + OBJECT_DTYPE
    + b"\x89C\x08aaaaaaaatb.",
    "objects missing": b"\x80\x03" + ARRAY + b"(K\x01K\x05\x85" + OBJECT_DTYPE + b"\x89]tb.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b".",
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b".",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
    "huge array": b"\x80\x03" + ARRAY + b"(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\n"
    b"X\x02\x00\x00\x00u1\x89\x88\x87R\x89C\x01atb.",
    "deep key": b"\x80\x02}N" + b"\x85" * 1000000 + b"Ns.",
    "one big value often": b"\x80\x03" + NAMES + b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R"
    + b"q\x03B\x10\x27\x00\x00" + b"a" * 10000 + b"q\x040000]("
    + b"h\x01h\x02K\x00\x85C\x01b\x87R(K\x01M\x10\x27\x85h\x03\x89h\x04tb" * 300 + b"e.",
    "deep arrays": b"\x80\x03" + NAMES + OBJECT_DTYPE + b"q\x03000"
    + b"h\x01h\x02K\x00\x85C\x01b\x87R(K\x01K\x01\x85h\x03\x89]" * 50000 + b"N" + b"atb" * 50000
    + b".",
}  # fmt: skip


CASES = [pytest.param(data, HostilePickleError, text, id=name)
         for name, (data, text) in HOSTILE.items()]  # fmt: skip
CASES += [pytest.param(data, DatasetError, "pickle", id=name) for name, data in NONSENSE.items()]


@pytest.mark.parametrize("wrapped", [False, True], ids=["pickle", "npy"])
@pytest.mark.parametrize("data, error, text", CASES)
def test_hostile_files_are_named_and_do_nothing(
    tmp_path, make, monkeypatch, data, error, text, wrapped
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / NAME
    path.write_bytes((make.npy_header(1) if wrapped else b"") + data)
    with pytest.raises(error, match=text) as caught:
        convert(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_a_memo_index_of_four_billion_allocates_nothing(tmp_path):
    path = tmp_path / "memo.pkl"
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    assert load_npy_objects(path) is None


def _numbers():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"hello", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x02\x00{}", _numbers()]
)
def test_other_files_are_refused(tmp_path, data):
    path = tmp_path / NAME
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=NAME):
        load_npy_objects(path)


@pytest.fixture(scope="module")
def small_file(make):
    data = make.npy_bytes([make.trajectory(2, size=2), make.trajectory(1, size=2)])
    assert len(data) < 5000
    return data


CALL = b"X\x01\x00\x00\x00x\x85R"


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_files_are_read_or_refused_but_never_run(tmp_path, monkeypatch, small_file, data):
    """Whatever bytes change: an OfrlError or a dataset, and no code, no import, no debris."""
    mutated = bytearray(small_file)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        if data.draw(st.booleans()):
            mutated[place] = data.draw(st.integers(0, 255))
        else:  # opcodes and hostile names where they may be understood
            mutated[place : place + 1] = data.draw(
                st.sampled_from([b"cos\nsystem\n" + CALL, b"cbuiltins\neval\n" + CALL, b"R", b"b",
                                 b"\x81", b"(", b"t", b"0", b"cnumpy\ndtype\n", b"h\x01", b"}"])
            )  # fmt: skip
    cut = data.draw(st.integers(0, 2 * len(mutated)))
    path, out = tmp_path / NAME, tmp_path / "out"
    path.write_bytes(bytes(mutated[: max(cut, 1)]))

    ran = []  # not an exception: the reader turns those into DatasetError
    with monkeypatch.context() as patch:
        patch.setattr(os, "system", ran.append)
        patch.setattr(builtins, "eval", ran.append)
        patch.setattr(pickle._Unpickler, "find_class", lambda *names: ran.append(names))
        try:
            convert(path, out)
        except OfrlError:
            assert [p.name for p in tmp_path.iterdir()] == [NAME]
        else:
            assert open_dataset(out)
            shutil.rmtree(str(out))
    assert ran == []


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
    "observation is no dict": (_set("observations", 0, [1]), "observation"),
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


def test_images_of_two_sizes_are_refused(tmp_path, make, write):
    with pytest.raises(DatasetError, match="several sizes"):
        convert(write([make.trajectory(size=4), make.trajectory(size=6)]), tmp_path / "out")


def test_a_small_file_cannot_fill_the_disk(tmp_path, make, write):
    """One trajectory referred to a thousand times: a few bytes each in the pickle."""
    with pytest.raises(DatasetError, match="more than the file has"):
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
        with pytest.raises(DatasetError, match="new folder"):
            convert(path, target)
    assert state_of(tmp_path) == before


def test_a_failure_half_way_leaves_nothing(tmp_path, make, write, monkeypatch):
    from ofrl_robot.data.convert import roboverse

    written, real = [], roboverse._write

    def fails_at_the_second(*arguments):
        if written:
            raise OSError(28, "No space left on device")
        written.append(real(*arguments))

    monkeypatch.setattr(roboverse, "_write", fails_at_the_second)
    path = write([make.trajectory(), make.trajectory(seed=1)])
    with pytest.raises(DatasetError, match="No space left"):
        convert(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
