"""Data larger than the bound on memory: what is resident while it is built and sampled.

The 50 GB are logical: files with a length and without content, which the kernel reads as zeros
through the same page cache. Measured in a process of its own, as only its peak can be asked for.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.replay import store_cache

MEASURE = """
import sys
from pathlib import Path

import numpy as np

import test_memory
from ofrl_robot.data.replay.transition_store import open_transition_store
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.data.replay.sampler import MixedSampler


def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


dataset, before = getattr(test_memory, sys.argv[1])(Path(sys.argv[2])), peak_mb()
store = open_transition_store(dataset, memory_mb=float(sys.argv[3]))
sampler = MixedSampler(ReplayBuffer([store], [1.0]), 64, seed=0)
for _ in range(int(sys.argv[4])):
    batch = sampler.sample()
print(len(store), store.observations["image"].mapped, peak_mb() - before)
"""
BATCH_MB = 64 * 2 * 128 * 128 * 3 / 2**20  # 6 MiB


def sparse_dataset(folder):
    """50 GB of 128x128 frames in 1017 episodes of 1000 steps: one file under many names."""
    (episode,) = open_dataset(folder).paths
    count = 1017
    dataset = Dataset(folder, [episode] * count, open_dataset(folder).metas * count, [1000] * count)
    root, key = folder / ".cache", store_cache.state_on_disk(dataset)[:16]
    steps, frames = 1000 * count, 1001 * count
    sizes = {
        "rows": {"actions": 32 * steps, "rewards": 4 * steps, "terminals": steps},
        "camera-image": {"frames": frames * 128 * 128 * 3},
    }
    for part, files in sizes.items():
        (root / f"{key}-{part}-{store_cache.LAYOUT}").mkdir(parents=True, exist_ok=True)
        for name, size in files.items():
            with open(root / f"{key}-{part}-{store_cache.LAYOUT}" / name, "wb") as file:
                file.truncate(size)
    return dataset


def measure(function, folder, memory_mb, batches):
    """(transitions, mapped?, growth of the peak of resident memory in MiB)"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    words = [sys.executable, "-c", MEASURE, function, folder, memory_mb, batches]
    done = subprocess.run(
        [str(w) for w in words], cwd=str(Path(__file__).parent), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    count, mapped, growth = done.stdout.split()
    return int(count), mapped == "True", float(growth)


@pytest.mark.slow
def test_sampling_50_gb_stays_within_the_bound(tmp_path, make):
    make.episode(tmp_path, 1, size=128)
    bound, batches = 64, 60  # the batches touch 6 times the bound
    assert batches * BATCH_MB > 5 * bound
    count, mapped, growth = measure("sparse_dataset", tmp_path, bound, batches)
    assert (count, mapped) == (1017000, False)
    assert growth < bound + 3 * BATCH_MB
    # mapped all the same, it would not: the measurement can tell
    _, mapped, growth = measure("sparse_dataset", tmp_path, 60000, batches)
    assert mapped and growth > 4 * bound


@pytest.mark.slow
def test_building_holds_two_blocks_of_frames(tmp_path, make):
    """An episode of 94 MB passes through in blocks of 16 MiB."""
    make.episode(tmp_path, 99, size=560)
    count, mapped, growth = measure("open_dataset", tmp_path, 1, 0)
    assert (count, mapped) == (99, False)
    assert growth < 48
