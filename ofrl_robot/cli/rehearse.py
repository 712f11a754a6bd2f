"""The verb ``rehearse``: play every fault over the real nodes and measure."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any, Tuple

import yaml

from ofrl_robot.cli.ros import ros_module
from ofrl_robot.errors import ConfigError, OfrlError

DEFAULT_OUT = Path("rehearsal")


@dataclasses.dataclass(frozen=True)
class Rehearse:
    """Play every fault over the real ROS nodes, measure until the arm stops, and write a page.

    With a real arm: clear the table, keep its emergency stop in your hand, and say --arm-is-clear.
    It makes small steps near its start pose.
    """

    robot: str = "sim"
    """Arm: sim, widowx, sawyer, or an installed driver."""
    twin: bool = False
    """Rehearse with the arm's twin: its own driver and the vendor's client, no hardware."""
    arm_is_clear: bool = False
    """Confirm that nobody and nothing is in reach of the real arm."""
    task: str = "Widow250SingleObjGrasp-v0"
    """Task id (simulator or twin), or a name."""
    rate: int = 10
    """Control rate, ticks per second."""
    settings: str = "{}"
    """Further settings of the arm's driver, as YAML {name: value}."""
    cameras: str = ""
    """YAML file of the cameras of a real arm."""
    fault: Tuple[str, ...] = ()
    """Names of faults to play (empty: all of them)."""
    out: Path = DEFAULT_OUT
    """Folder for rehearsal.html and rehearsal.json."""

    def run(self) -> None:
        """Play the faults.

        Raises:
            ConfigError: ROS is absent, or the arm was not said to be clear.
            RehearsalError: a promise was broken.
        """
        from ofrl_robot.pages.rehearsal import broken, report, write_rehearsal
        from ofrl_robot.robots.rehearsed import code_fingerprint, remember

        simulated = self.robot == "sim" or self.twin
        if not simulated and not self.arm_is_clear:
            raise ConfigError(
                f"{self.robot} would move", "clear its reach, then add --arm-is-clear"
            )
        module = ros_module("ofrl_ros.rehearsal.run")
        scenarios = module.choose(
            self.fault, own_frames=self.robot == "sim", twin_of=self.robot if self.twin else ""
        )
        cast = module.cast_for(
            self.robot, self.twin, self.task, self._settings(), self.cameras, self.rate
        )
        results = []
        print(f"{len(scenarios)} faults, with {self.robot}{' (twin)' if self.twin else ''}")
        for result in module.rehearse(scenarios, cast):
            results.append(result)
            print(f"{len(results):2d}/{len(scenarios)} {result.line()}", flush=True)
        when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        name = f"{self.robot} (twin)" if self.twin else self.robot
        data = report(name, self.rate, code_fingerprint(), results, when)
        print(f"page: {write_rehearsal(self.out, data)}")
        if not self.fault:
            remember(self.robot, data)
        if broken(results):
            raise RehearsalError(
                f"{len(broken(results))} of {len(results)} promises were broken: "
                f"{', '.join(broken(results))}",
                "do not move an arm before they are kept",
            )

    def _settings(self) -> Any:
        try:
            settings = yaml.safe_load(self.settings)
        except yaml.YAMLError as error:
            fix = "use YAML {name: value}"
            raise ConfigError(f"--settings is {self.settings!r}", fix) from error
        if not isinstance(settings, dict):
            raise ConfigError(f"--settings is {self.settings!r}", "use YAML {name: value}")
        return settings


class RehearsalError(OfrlError):
    """A promise that was broken in a rehearsal."""
