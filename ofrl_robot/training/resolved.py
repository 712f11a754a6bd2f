"""What the settings "auto" and 0 came to on the machine of a run, and whether that still holds.

A run continues to the bit only with the same arithmetic and the same number of threads. Both may
be left open in its config, so what they were is written beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import List, Optional

import torch

from ofrl_robot import files
from ofrl_robot.errors import ConfigError

RESOLVED = "resolved.json"  # in a run folder


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Arithmetic of a run.

    Attributes:
        precision: "bf16" or "fp32".
        threads: CPU threads of torch's operators.
        device: name of the device, e.g. "cpu" or that of a GPU.
    """

    precision: str
    threads: int
    device: str


def resolved(bf16: bool, device: torch.device) -> Resolved:
    """Return what this process computes with."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Resolved("bf16" if bf16 else "fp32", torch.get_num_threads(), name)


def write_resolved(folder: Path, now: Resolved) -> None:
    """Write it into a run folder. Raises OutputError if that is impossible."""
    files.write_whole(folder / RESOLVED, f"{json.dumps(dataclasses.asdict(now), indent=2)}\n")


def read_resolved(folder: Path) -> Optional[Resolved]:
    """Return what the run in ``folder`` began with; None if it was not written, or is damaged."""
    try:
        found = Resolved(**files.read_json(folder / RESOLVED))
    except (ConfigError, TypeError):
        return None
    return found if isinstance(found.threads, int) else None


def take_threads(threads: int, then: Optional[Resolved]) -> None:
    """Use the threads that a run began with, where its setting leaves them open.

    Args:
        threads: the setting, 0 for open.
        then: of the run.
    """
    cores = len(os.sched_getaffinity(0))
    if not threads and then is not None and 1 <= then.threads <= cores:
        torch.set_num_threads(then.threads)


def changes(then: Optional[Resolved], now: Resolved) -> List[str]:
    """Return a line for all that differs since the run began; none if nothing does."""
    if then is None or then == now:
        return []
    names = [field.name for field in dataclasses.fields(now)]
    pairs = [(name, getattr(then, name), getattr(now, name)) for name in names]
    found = ", ".join(f"{name} was {old}, now {new}" for name, old, new in pairs if old != new)
    return [f"{found}: numbers differ from here on; resume on a machine like the first to avoid it"]
