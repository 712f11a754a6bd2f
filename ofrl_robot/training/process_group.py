"""Find and join the processes that torchrun started for one run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Iterator

import torch
from torch import distributed

from ofrl_robot.errors import TrainingError


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, and which of them this is.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its computer, which is the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @staticmethod
    def from_environment() -> "ProcessGroup":
        """Return what torchrun says; a group of one process without torchrun."""
        names = "RANK", "WORLD_SIZE", "LOCAL_RANK"
        if not all(name in os.environ for name in names):
            return ProcessGroup()
        return ProcessGroup(*(int(os.environ[name]) for name in names))


@contextlib.contextmanager
def joined(group: ProcessGroup, device: str) -> Iterator[None]:
    """Connect this process to the others of ``group`` inside the context.

    Raises:
        TrainingError: it cannot be connected.
    """
    on_gpu = device.startswith("cuda")
    try:
        if on_gpu:
            torch.cuda.set_device(group.local_rank)
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"process {group.rank} of {group.size} cannot join the others ({reason})",
            "with --device cuda start no more processes than a computer has GPUs",
        ) from error
    try:
        yield
        distributed.barrier()  # torch aborts in a process whose peers are still connected
    finally:
        distributed.destroy_process_group()
