"""The simulator's drawn assets are what their script draws."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "ofrl_robot" / "sim" / "assets"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    spec = importlib.util.spec_from_file_location(
        "sim_textures", ROOT / "scripts" / "sim_textures.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("assets")
    script.write(folder)
    return folder


@pytest.mark.slow
def test_the_committed_files_are_what_the_script_draws(drawn):
    names = sorted(path.name for path in drawn.iterdir())
    assert {"table.png", "tray.png", "table.obj", "gripper_plate.obj"} <= set(names)
    for name in names:
        if name.endswith(".png"):  # another scipy may round a noise of 2 of 255 elsewhere
            ours, committed = (
                np.asarray(Image.open(folder / name), np.int16) for folder in (drawn, ASSETS)
            )
            assert np.abs(ours - committed).max() <= 1
        else:
            assert (drawn / name).read_text() == (ASSETS / name).read_text()
