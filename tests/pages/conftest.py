"""Fixtures of tiny runs and episodes."""

from tests.run_factory import make_run, metrics, record  # noqa: F401
