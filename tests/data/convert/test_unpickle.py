import builtins
import io
import os
import pickle
import pickletools
import random
import shutil
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofrl_robot.data.convert.formats import import_dataset
from ofrl_robot.data.convert.options import RoboverseImport
from ofrl_robot.data.convert.unpickle import load_npy_objects
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.errors import DatasetError, HostilePickleError, OfrlError

NAME = "scripted_Widow250PickTray-v0_2021-06-01T12.npy"


def convert(path, out):
    return import_dataset(path, out, RoboverseImport()).episodes


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
SHELL = f"touch {SENTINEL}"
HOSTILE = {
    "system": (_pickled(_Call(os.system, SHELL)), r"(posix|nt)\.system"),
    "system, protocol 4": (_pickled(_Call(os.system, SHELL), 4), r"(posix|nt)\.system"),
    "eval": (_pickled(_Call(eval, f"open('{SENTINEL}', 'w')")), r"builtins\.eval"),
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


@pytest.mark.slow
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


def _nested(levels, each=b"h\x00" * 10):
    """A list of ten times the same list of ten times ...: small in memory, endless to walk."""
    return b"](K\x01K\x02e" + b"".join(b"q\x00](" + each + b"e" for _ in range(levels))


MANY = 100000
BOMBS = {
    "billion laughs": (_nested(9), "far too often"),
    "laughs in a dict": (_nested(9, b"}K\x01h\x00sh\x00" * 5), "far too often"),
    "laughs in an array": (NAMES + OBJECT_DTYPE + b"q\x03000" + _nested(8)
                           + b"q\x00h\x01h\x02K\x00\x85C\x01b\x87R(K\x01K\x02\x85h\x03\x89"
                           b"](h\x00h\x00etb", "far too often"),
    "laughs for a dtype": (_nested(60) + b"q\x00cnumpy\ndtype\nh\x00\x85R",
                           "dtype of type list"),
    "laughs for a codec": (_nested(60) + b"q\x00c_codecs\nencode\nX\x01\x00\x00\x00xh\x00\x86R",
                           "codec of type list"),
    "list in itself": (b"]q\x00h\x00a", "holds itself"),
    "dict in itself": (b"}q\x00K\x01]h\x00as", "holds itself"),
    "nested lists": (b"]" * 5000 + b"a" * 4999, "too deep"),
    "nested tuples": (b"N" + b"\x85" * 5000, "too deep"),
    "lists": (b"(" + b"]" * MANY + b"l", "far more data"),
    "dicts": (b"}" * MANY, "far more data"),
    "tuples": (b"K\x00\x85" * MANY, None),
    "marks": (b"(" * MANY, "far more data"),
    "memo": (b"N" + b"\x94" * MANY, "far more data"),
    "memo by index": (b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(MANY)),
                      None),
    "bytearrays": ((b"\x96" + b"\x00" * 8) * (MANY), None),
    "dtypes": (b"cnumpy\ndtype\nq\x00X\x02\x00\x00\x00i1q\x010" + b"h\x00h\x01\x85R" * MANY
               + b"N", None),
    "empty arrays": (NAMES + b"K\x00\x85q\x05C\x01bq\x06" + b"h\x01h\x02h\x05h\x06\x87R" * MANY,
                     None),
    "one text encoded often": (b"c_codecs\nencode\nq\x00X\x10\x27\x00\x00" + b"a" * 10000
                               + b"X\x06\x00\x00\x00latin1\x86q\x010" + b"h\x00h\x01R" * 500,
                               "far more data"),
    "huge number": (b"\x8b\xff\xff\xff\x7f\x01", "pickle"),
    "number of negative length": (b"\x8b\xff\xff\xff\xff\x01", "pickle"),
    "long number": (b"\x8b" + struct.pack("<i", MANY) + b"\x7f" * MANY, None),
    "half an item": (b"}(K\x01u", None),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("data, text", [pytest.param(*bomb, id=n) for n, bomb in BOMBS.items()])
def test_a_bomb_takes_memory_in_proportion_to_its_size(tmp_path, data, text):
    """Refused or read, but never larger than the file allows, and nothing that grows when walked.

    numpy is not asked what it allocates, so what it builds is bounded by the budget alone.
    """
    path = tmp_path / "bomb.pkl"
    path.write_bytes(b"\x80\x04" + data + b".")
    tracemalloc.start()
    try:
        if text is None:
            _require_plain(load_npy_objects(path))
        else:
            with pytest.raises(DatasetError, match=text):
                load_npy_objects(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20 + 50 * len(data)


def _require_plain(value):
    """Walk all of it, as code that uses it does."""
    assert type(value) in (
        bool, int, float, str, bytes, bytearray, type(None), list, tuple, dict, np.ndarray,
    ) or isinstance(value, np.generic) or issubclass(value, np.generic)  # fmt: skip
    if type(value) is dict:
        value = list(value.values())
    if type(value) in (list, tuple) or (type(value) is np.ndarray and value.dtype.hasobject):
        for entry in value:
            _require_plain(entry)


def _random_opcode(rng):
    """One of all opcodes, known ones more often, with an argument that may fit it."""
    known = b"]})(t\x85\x86\x87aesu0N\x88\x89\x94Rbh\x8cCK"
    code = rng.choice(known) if rng.random() < 0.7 else ord(rng.choice(pickletools.opcodes).code)
    size = rng.choice([0, 1, 2, 5, 255, 2**31 - 1, 2**63])
    text = rng.choice([b"numpy\nndarray\n", b"numpy\ndtype\n", b"os\nsystem\n", b"1\n", b"x\n",
                       b"numpy.core.multiarray\n_reconstruct\n", b"_codecs\nencode\n"])  # fmt: skip
    argument = {
        b"K": bytes([rng.randrange(4)]), b"h": bytes([rng.randrange(4)]),
        b"C": bytes([min(size, 255)]) + b"i1i1", b"\x8c": b"\x02i1",
        b"B": struct.pack("<I", size % 2**32), b"\x8e": struct.pack("<Q", size),
        b"\x96": struct.pack("<Q", size), b"r": struct.pack("<I", size % 2**32),
    }.get(bytes([code]), text if code in b"ciFILSVgpP" else b"")  # fmt: skip
    return bytes([code]) + argument


@pytest.mark.slow
def test_random_programs_end_in_plain_values_or_an_error(tmp_path, monkeypatch):
    """2000 programs of the pickle machine: no code, no import, no other kind of failure."""
    ran, read = [], 0
    monkeypatch.setattr(os, "system", ran.append)
    monkeypatch.setattr(builtins, "eval", ran.append)
    rng, modules = random.Random(5), set(sys.modules)
    path = tmp_path / "random.pkl"
    for _ in range(2000):
        body = b"".join(_random_opcode(rng) for _ in range(rng.randrange(1, 25)))
        path.write_bytes(b"\x80\x04" + rng.choice([b"", ARRAY, OBJECT_DTYPE]) + body + b".")
        try:
            _require_plain(load_npy_objects(path))
            read += 1
        except DatasetError:
            pass
    assert not ran and set(sys.modules) == modules
    assert read > 50  # so the programs are not refused for their form alone


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


@pytest.mark.slow
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
