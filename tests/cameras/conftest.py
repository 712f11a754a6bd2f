"""A camera by script, and frames on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from tests.cameras.scripted_camera import ScriptedCamera, noise


@pytest.fixture
def camera():
    return ScriptedCamera()


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Twelve different images, im_0.png to im_11.png."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        cv2.imwrite(str(folder / f"im_{i}.png"), cv2.cvtColor(noise(i), cv2.COLOR_RGB2BGR))
    return folder
