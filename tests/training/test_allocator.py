"""Memory that was freed once is not fetched from the kernel again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource
import numpy as np
from ofrl_robot.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.empty(100 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults() and faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_blocks_are_taken_from_the_kernel_once():
    """In a process of its own: the setting is for good."""
    words = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True).stdout
    before, kept, after = words.split()
    assert kept == "True"
    assert int(before) > 100 and int(after) < 20


def test_another_c_library_changes_nothing(monkeypatch):
    from ofrl_robot.training import allocator

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False
