"""Files written whole, and settings files read within bounds."""

from __future__ import annotations

import os

import pytest

from ofrl_robot import files
from ofrl_robot.errors import ConfigError, OutputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    files.write_whole(path, "old")
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a.json"]


def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_whole(path, "old")

    def full(temporary, final):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    with pytest.raises(OutputError, match=r"a.json: cannot be written \(No space left.*free space"):
        files.write_whole(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_a_new_file_or_folder_appears_only_when_the_block_ends_well(tmp_path):
    with files.new_file(tmp_path / "x" / "file") as path:
        path.write_text("content")
        assert not (tmp_path / "x" / "file").exists()
    with files.new_folder(tmp_path / "folder") as path:
        (path / "inside").touch()
    with pytest.raises(ZeroDivisionError), files.new_folder(tmp_path / "broken") as path:
        (path / "inside").touch()
        raise ZeroDivisionError
    assert names(tmp_path) == ["folder", "x"] and names(tmp_path / "x") == ["file"]


@pytest.mark.parametrize("make", [files.new_file, files.new_folder])
def test_what_exists_is_not_overwritten(tmp_path, make):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match="taken: "), make(tmp_path / "taken"):
        pytest.fail("the block must not run")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_free_name_counts_on(tmp_path):
    for expected in ("a.h5", "a.h5.1", "a.h5.2"):
        path = files.free_name(tmp_path, "a.h5")
        assert path.name == expected
        path.touch()


def test_settings_are_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("steps: 3\nhidden: [8, 8]\n")
    assert files.read_yaml(path) == {"steps": 3, "hidden": [8, 8]}


BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh")
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "uses a YAML alias"),
        ("[" * 20000, "nested more than 50 levels"),
        ("x: " + "y" * (files.MAX_SETTINGS_BYTES + 1), "at most 1048576 are read"),
        ("a: [1", "is not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not valid YAML"),
        ("when: 2026-13-45", "is not valid YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
    ids=["bomb", "deep", "large", "syntax", "tag", "date", "binary"],
)
def test_a_hostile_settings_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        files.read_yaml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [files.read_yaml, files.read_json])
def test_nothing_waits_for_a_fifo(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="is not a regular file"):
        read(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "none")


def test_deep_json_is_one_line(tmp_path):
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(ConfigError, match="is not valid JSON"):
        files.read_json(tmp_path / "a.json")
