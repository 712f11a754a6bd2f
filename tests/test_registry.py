"""Things found by name: built in, registered, or brought by another package."""

from __future__ import annotations

import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.registry import Registry


@pytest.fixture
def table():
    builtin = {"path": "pathlib:Path", "gone": "no_such_module:Thing", "less": "pathlib:NoSuch"}
    return Registry("tool", "ofrl_robot.tests", builtin)


def test_a_builtin_is_imported_when_it_is_asked_for(table):
    from pathlib import Path

    assert table.load("path") is Path
    assert table.names() == ["gone", "less", "path"], "listing imports nothing"


@pytest.mark.parametrize("name", ["gone", "less"])
def test_what_cannot_be_imported_is_one_line(table, name):
    with pytest.raises(ConfigError, match=f"tool '{name}' cannot be loaded from .*install"):
        table.load(name)


def test_an_unknown_name_lists_the_known_ones(table):
    with pytest.raises(ConfigError, match="tool 'hammer' is unknown; use one of: gone, less, path"):
        table.load("hammer")


def test_a_name_is_taken_once(table):
    table.register("mine", int)
    table.register("mine", int)  # the same again: an example that is run twice
    with pytest.raises(ConfigError, match="'mine' is registered already"):
        table.register("mine", float)
    assert table.load("mine") is int


def test_an_installed_package_brings_its_own(table, tmp_path, monkeypatch):
    info = tmp_path / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ofrl_robot.tests]\nsaw = somebody_tools:Saw\n")
    (tmp_path / "somebody_tools.py").write_text("class Saw: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "saw" in table.names() and table.load("saw").__name__ == "Saw"
