"""Settings of the simulated robot that the command line and the launch files share."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Literal

from ofrl_robot.errors import ConfigError

Backend = Literal["embedded", "roboverse"]


@dataclasses.dataclass(frozen=True)
class SimOptions:
    """Settings of the simulated robot, named like the flags and launch arguments."""

    image_size: int = 48
    """Pixels per side of the camera image (evaluate: 0 = size that the policy reads)."""
    sim_backend: Backend = "embedded"
    """Simulator: embedded (ours), or the real roboverse where it is installed."""
    realism: str = "off"
    """Imperfections (delay, noise, lag, looks): off, mild, harsh or NAME=VALUE,... (see docs)."""
    num_objects: int = 0
    """Size of the pool from which a many-object task draws its object (0: the task's own)."""
    roboverse_bugs: bool = False
    """Bring back the stale gripper flag after a neutral action, as in real roboverse data."""
    control_rate_hz: int = 24
    """Control steps per second: 5, 10, 20 or 24 (roboverse's)."""

    def to_dict(self) -> Dict[str, Any]:
        """Return the settings by name."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Dict[str, Any]) -> "SimOptions":
        """Build options from settings by name, such as those of a launch file.

        Raises:
            ConfigError: a name is unknown or a value has another type. Whether a value is
                possible is checked where the simulator is built.
        """
        defaults = SimOptions().to_dict()
        given = dict(values)
        if given.get("realism") is False:  # YAML reads a bare off as false
            given["realism"] = "off"
        for name, value in given.items():
            if name not in defaults:
                raise ConfigError(
                    f"the simulator has no setting {name!r}", f"use {', '.join(defaults)}"
                )
            kind = type(defaults[name])
            if type(value) is not kind:
                words = {int: "a whole number", bool: "true or false", str: "a word"}
                raise ConfigError(f"{name} is {value!r}", f"use {words[kind]}")
        return SimOptions(**given)
