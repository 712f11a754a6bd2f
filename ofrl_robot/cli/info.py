"""Describe the computer and the installed versions in one block, for a bug report."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, List, Tuple

from ofrl_robot import __version__
from ofrl_robot.robots.rehearsed import complaint, records

# What setup.py requires, and the drivers of arms and cameras.
DEPENDENCIES = (
    "numpy",
    "torch",
    "h5py",
    "pybullet",
    "gymnasium",
    "safetensors",
    "opencv-python-headless",
    "scipy",
    "tyro",
    "typing_extensions",
    "rich",
    "tensorboard",
    "matplotlib",
    "pillow",
    "jinja2",
    "PyYAML",
)
OPTIONAL = ("minari", "ray", "wandb", "roboverse", "pyrealsense2", "d3rlpy")
ARM_PACKAGES = {  # from the vendors' own workspaces: docs/widowx.md, docs/sawyer.md
    "widowx": ("interbotix_xs_modules", "interbotix_xs_msgs", "modern_robotics"),
    "sawyer": ("intera_interface", "intera_core_msgs"),
}
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")  # bfloat16 decides the speed
LIMIT_S = 2.5  # longest wait for another process
VIDEO_DEVICES = Path("/sys/class/video4linux")
_GIB = 2.0**30
_ASK_TORCH = """
import torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(f"CUDA {torch.version.cuda}, seen by torch: {', '.join(names) or 'no GPU'}")
"""


@dataclasses.dataclass(frozen=True)
class Info:
    """Print versions, hardware, ROS, cameras and disk in one block for a bug report."""

    def run(self) -> None:
        """Print the block."""
        for line in describe():
            print(line)


def describe() -> List[str]:
    """Return the lines of the block; a probe that fails is one line that says so."""
    probes: Dict[str, Callable[[], str]] = {
        "ofrl_robot": _package,
        "python": _python,
        "os": _system,
        "cpu": _cpu,
        "memory": _memory,
        "gpu": _gpu,
        "ros": _ros,
        "packages": _packages,
        "optional": _optional,
        "arms": _arms,
        "rehearsed": _rehearsed,
        "cameras": _cameras,
        "disk": _disk,
    }
    with concurrent.futures.ThreadPoolExecutor() as pool:  # some wait for another process
        answers = {name: pool.submit(_guarded, probe) for name, probe in probes.items()}
        return [f"{name:<11} {answer.result()}" for name, answer in answers.items()]


def _guarded(probe: Callable[[], str]) -> str:
    try:
        return probe()
    except Exception as error:  # a bug report about a broken installation needs the other lines
        return f"unknown ({type(error).__name__}: {error})"


def _package() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return f"{__version__}, installed without a clone"
    return f"{__version__}, commit {_guarded(functools.partial(_commit, root))}"


def _commit(root: Path) -> str:
    # without locks: a `git status` that is killed at the limit would leave its lock behind
    git = ("git", "--no-optional-locks", "-C", str(root))
    commit = _ask(*git, "rev-parse", "--short=10", "HEAD")
    changed = _ask(*git, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if changed else commit


def _arms() -> str:
    """Say which of the vendors' Python packages are found; nothing is imported."""
    found = []
    for arm, modules in ARM_PACKAGES.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        found.append(f"{arm}: {'lacks ' + ', '.join(missing) if missing else 'packages found'}")
    return "; ".join(found)


def _rehearsed() -> str:
    """Say of which arms the faults were rehearsed, and whether that still counts."""
    arms = sorted(path.stem.partition("-")[2] for path in records())
    said = [f"{arm}: {complaint(arm) or 'all promises kept, with this code'}" for arm in arms]
    return "; ".join(said) or "nothing (ofrl rehearse)"


def _python() -> str:
    return f"{platform.python_version()} ({platform.python_implementation()}) {sys.executable}"


def _system() -> str:
    names = _fields("/etc/os-release", "=")
    return f"{names.get('PRETTY_NAME', platform.system())}, {platform.release()}"


def _cpu() -> str:
    fields = _fields("/proc/cpuinfo", ":")
    model = fields.get("model name") or platform.processor() or platform.machine()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    known = " ".join(flag for flag in CPU_FLAGS if flag in flags) or "none of the known flags"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {usable} of {os.cpu_count()} cores, {known}"


def _memory() -> str:
    fields = _fields("/proc/meminfo", ":")
    total, free = (float(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    return f"{total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB available"


def _gpu() -> str:
    """Ask the driver, and torch only where there is a GPU: its import takes seconds."""
    if shutil.which("nvidia-smi") is None:
        return "none (no nvidia-smi)"
    query = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    names = _ask("nvidia-smi", *query)
    try:
        torch = _ask(sys.executable, "-c", _ASK_TORCH)
    except subprocess.TimeoutExpired:
        torch = f"torch took more than {LIMIT_S:g} s to say what it sees"
    return f"{'; '.join(names.splitlines())}; {torch}"


def _ros() -> str:
    distro = os.environ.get("ROS_DISTRO", "no ROS_DISTRO")
    if importlib.util.find_spec("rospy") is None:
        return f"{distro}, rospy not found (source ROS, or . scripts/env.sh in a clone)"
    where = _ask(sys.executable, "-c", "import rospy; print(rospy.__file__)")
    return f"{distro}, rospy imports from {Path(where).parent}"


def _packages() -> str:
    return _versions(DEPENDENCIES, missing=True)


def _optional() -> str:
    return _versions(OPTIONAL, missing=False) or "none"


def _versions(names: Tuple[str, ...], missing: bool) -> str:
    texts = []
    for name in names:
        try:
            texts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            if missing:
                texts.append(f"{name} MISSING")
    return ", ".join(texts)


def _cameras() -> str:
    found = []
    for entry in sorted(VIDEO_DEVICES.glob("video*")):
        name = (entry / "name").read_text().strip()
        found.append(f"/dev/{entry.name} ({name})")
    return ", ".join(found) or "no /dev/video*"


def _disk() -> str:
    folder = Path.cwd()
    return f"{shutil.disk_usage(folder).free / _GIB:.1f} GiB free in {folder}"


def _ask(*words: str) -> str:
    """Return what another program prints, without the last newline.

    Raises:
        RuntimeError: it failed, with its last line.
        subprocess.TimeoutExpired: it took longer than ``LIMIT_S``.
    """
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    return done.stdout.strip()


def _fields(path: str, separator: str) -> Dict[str, str]:
    """Return the first value of each ``name<separator>value`` line of a file of the system."""
    fields: Dict[str, str] = {}
    for line in Path(path).read_text().splitlines():
        name, found, value = line.partition(separator)
        if found:
            fields.setdefault(name.strip(), value.strip().strip('"'))
    return fields
