"""What the node tests import by name: another folder's conftest may stand before ours."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def wait_for(condition, what: str, timeout: float = 30.0):
    """Poll until ``condition()`` is true; fail naming ``what`` otherwise."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"gave up waiting for {what}")
