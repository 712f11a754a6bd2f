"""Shared fixtures of the tests of training."""

from __future__ import annotations

import pytest

from tests.training.small_buffer import make_buffer


@pytest.fixture(params=[True, False], ids=["mapped", "read"])
def buffer(request, tmp_path):
    """A small replay buffer, in memory or read from disk."""
    return make_buffer(tmp_path, request.param)
