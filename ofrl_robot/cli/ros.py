"""Import what needs ROS, or say in one line that it is not there."""

from __future__ import annotations

import importlib
from typing import Any

from ofrl_robot.errors import ConfigError


def ros_module(name: str) -> Any:
    """Import a module of the package ``ofrl_ros``.

    Raises:
        ConfigError: it cannot be imported; the message names the import that failed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "ofrl_robot":
            raise  # a defect of this package
        if package == "ofrl_ros":
            raise ConfigError(
                f"the package ofrl_ros cannot be imported ({error})",
                "install ofrl_robot again: pip install . in its clone",
            ) from error
        raise ConfigError(
            f"ROS cannot be imported ({error})",
            "source it first, for example . scripts/env.sh",
        ) from error
