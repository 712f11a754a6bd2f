"""Make an algorithm from its settings."""

from __future__ import annotations

import importlib

from ofrl_robot.algos.base import Algorithm, Build
from ofrl_robot.algos.configs.base import AlgoConfig
from ofrl_robot.errors import ConfigError

__all__ = ["Build", "make_algorithm"]


def make_algorithm(config: AlgoConfig, build: Build) -> Algorithm:
    """Return the algorithm that ``config`` belongs to.

    Raises:
        ConfigError: settings exclude each other, or the algorithm cannot be imported.
    """
    module, _, attribute = config.algorithm_path.partition(":")
    try:
        algorithm = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"algorithm {config.name!r} cannot be loaded from {config.algorithm_path!r} ({error})",
            "install the package that it needs",
        ) from error
    return algorithm(config, build)
