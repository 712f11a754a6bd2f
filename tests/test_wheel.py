"""The package as `pip install .` leaves it: with no clone beside it, and everything inside."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILT_FROM = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build a wheel from a copy of the sources and unpack it, as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    sources.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, sources)
    cache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ofrl_robot", sources / "ofrl_robot", ignore=cache)
    shutil.copytree(ROOT / "ros" / "ofrl_ros", sources / "ros" / "ofrl_ros", ignore=cache)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(sources)]
    subprocess.run(command, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(installed, tmp_path, code, *words):
    """Run Python with nothing but the unpacked wheel on PYTHONPATH, away from the clone."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(installed)),
        capture_output=True,
        text=True,
    )


FIND = """
import importlib.util, pathlib, sys
import ofrl_robot
from ofrl_robot.config import CONFIG

site = pathlib.Path(sys.argv[1]).resolve()
package = pathlib.Path(ofrl_robot.__file__).resolve().parent
assert package == site / "ofrl_robot", package
ros = pathlib.Path(importlib.util.find_spec("ofrl_ros").origin).resolve().parent
assert ros == site / "ofrl_ros", ros
assert (ros / "bag.py").is_file(), "ofrl_ros/bag.py"
for path in sys.argv[2:]:
    assert (package / path).is_file(), path
assert CONFIG == package / "config", CONFIG
"""


def shipped():
    """Every file of the package that is not Python: settings, templates, URDF, meshes."""
    package = ROOT / "ofrl_robot"
    files = (p.relative_to(package) for p in package.rglob("*") if p.is_file())
    return sorted(str(f) for f in files if f.suffix not in (".py", ".pyc"))


@pytest.mark.slow
def test_settings_templates_assets_and_ros_modules_are_in_the_wheel(installed, tmp_path):
    files = shipped()
    assert "config/data/limits.yaml" in files
    assert any(name.endswith(".urdf") for name in files)
    assert any(name.startswith("pages/templates/") for name in files)
    done = run(installed, tmp_path, FIND, str(installed), *files)
    assert done.returncode == 0, done.stderr


VERIFY = "import sys; from ofrl_robot.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
def test_verbs_find_their_files_without_a_clone(installed, tmp_path, make_dataset):
    data = make_dataset()
    done = run(installed, tmp_path, VERIFY, "data", "verify", str(data), "--workers", "1")
    assert done.returncode == 0, done.stderr
    # with ROS on the path the bag is missing, without it ROS is
    done = run(installed, tmp_path, VERIFY, "data", "convert", "rosbag", "none.bag", "out")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(("ofrl: none.bag: ", "ofrl: ROS cannot be imported ("))
