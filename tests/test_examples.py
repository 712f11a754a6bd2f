"""Every example runs as a newcomer would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run_example(name: str, *words: object, folder: Path) -> str:
    """Run ``examples/<name>`` in ``folder`` and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_custom_camera(tmp_path):
    lines = run_example("custom_camera.py", folder=tmp_path).splitlines()
    assert len(lines) == 3
    assert all("raw (480, 640, 3), observation (48, 48, 3)" in line for line in lines)
    assert len({line.split(",")[0] for line in lines}) > 1, "the bar moves"
