"""PyBullet, imported without the banner that its C code prints on every import."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Iterator


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """File descriptor 1 to /dev/null: the banner does not go through sys.stdout."""
    sys.stdout.flush()
    kept = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C's own buffer, or the banner comes out later
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


with _quiet_stdout():
    import pybullet  # noqa: E402

__all__ = ["pybullet"]
