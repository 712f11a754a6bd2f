"""One setup.py for two readers: `pip install -e .` and catkin_python_setup().

catkin runs this file with a stand-in for setup() and takes version, packages and package_dir;
its version must equal package.xml's. The `ofrl` command is in setup.cfg, because catkin prints
a warning in every build about `entry_points` given here.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
# Read, not imported: the package's dependencies are not installed yet when this runs.
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "ofrl_robot" / "__init__.py").read_text(), re.MULTILINE
).group(1)

setup(
    name="ofrl_robot",
    version=VERSION,
    description="Offline RL for robot arms: collect, train, diagnose, deploy",
    license="Apache-2.0",
    python_requires=">=3.8",
    packages=[
        *find_packages(include=["ofrl_robot", "ofrl_robot.*"]),
        "ofrl_ros",
        "ofrl_ros.rehearsal",
        "ofrl_ros.twin",
    ],
    package_dir={"ofrl_ros": "ros/ofrl_ros"},  # what the ROS nodes share
    package_data={
        "ofrl_robot.sim": ["assets/*", "assets/**/*"],
        "ofrl_robot": ["config/**/*.yaml", "py.typed"],
        "ofrl_robot.pages": ["templates/*"],
    },
    # Lower bounds only, and low enough for Noetic's Python 3.8. ROS itself comes from apt.
    install_requires=[
        "numpy>=1.21",
        "torch>=2.4",  # the first with the fused Adam on the CPU
        "h5py>=3.8",  # 3.7, Debian's own, does not load beside numpy 2
        "pybullet>=3.2.5",
        "gymnasium>=1.1",
        "safetensors>=0.4",
        "opencv-python-headless>=4.7",
        "scipy>=1.9",
        "tyro>=0.8.14",
        "typing_extensions>=4",
        "rich>=13",
        "tensorboard>=2.12",
        "matplotlib>=3.6",
        "pillow>=7.1",
        "jinja2>=3.0",
        "PyYAML>=5.3",
    ],
    extras_require={
        # only to load what `ofrl data export minari` writes
        "minari": ["minari[hdf5]>=0.5.4; python_version >= '3.11'"],
        # `ofrl sweep --ray`; no wheels of it yet for the newest Pythons
        "ray": ["ray>=2.9; python_version < '3.14'"],
        "dev": [
            "pytest>=7",
            "pytest-timeout",
            "pytest-xdist",
            "hypothesis",
            "ruff>=0.4",
            "codespell",
            "tomli; python_version < '3.11'",  # with which codespell reads pyproject.toml
            "mypy>=1.8; python_version >= '3.9'",
            "types-PyYAML",
            "ray>=2.9; python_version < '3.14'",
        ],
    },
)
