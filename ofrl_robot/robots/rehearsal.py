"""Wrap any arm so that faults can be rehearsed: what its driver would report, on demand.

``ofrl rehearse`` builds it. It adds no motion of its own: calls go through to the arm inside, and
every one that matters is written down with its time, so that a rehearsal can say what reached the
driver.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from ofrl_robot.control.health import Health
from ofrl_robot.control.protocols import Arm
from ofrl_robot.control.signals import ArmState, Sent, Setpoint
from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.errors import ConfigError
from ofrl_robot.robots.config import ArmConfig

# Names of the faults, as they stand in the control file.
RAISES, EXITS, BLOCKS = "driver raises", "driver exits", "driver blocks"
STALE, NAN_JOINTS, MISSING_JOINT, JUMP = "state stale", "joints NaN", "joint missing", "joint jumps"
EFFORT, STUCK, REFUSES = "effort", "joint stuck", "no inverse kinematics"
HOT, MOTOR_ERROR, TORQUE_OFF = "motor hot", "motor error", "torque off"
MOTOR_SILENT, HEALTH_HANGS = "motor silent", "look at motors hangs"
BLOCK_SECONDS = 3.0  # for which the driver blocks

_HEALTH = {
    HOT: Health({"shoulder": 90.0}),
    MOTOR_ERROR: Health(faults=(Fault(StopReason.MOTOR_ERROR, "shoulder: overload"),)),
    TORQUE_OFF: Health(faults=(Fault(StopReason.TORQUE_OFF, "shoulder"),)),
    MOTOR_SILENT: Health(faults=(Fault(StopReason.MOTOR_SILENT, "2 of 7 motors answer"),)),
}


class RehearsalArm:
    """An arm with faults on demand. Implements :class:`~ofrl_robot.control.protocols.Arm`.

    Args:
        config: its settings are ``arm`` (name of the arm inside), ``arm_settings``, ``control``
            (file whose text is the fault in force, empty for none) and ``log`` (file that gets a
            JSON line per call: time ns, call, action).
    """

    name = "rehearsal"

    def __init__(self, config: ArmConfig) -> None:
        from ofrl_robot.robots.registry import ARMS  # it knows this class too

        settings = dict(config.settings)
        try:
            inner, self._control = str(settings["arm"]), Path(settings["control"])
            self._log = open(settings["log"], "a", buffering=1)  # noqa: SIM115 (until close)
        except KeyError as missing:
            raise ConfigError(
                f"the rehearsal's setting {missing} is missing", "run it with `ofrl rehearse`"
            ) from missing
        arm_settings = dict(settings.get("arm_settings", {}))
        if "control_rate_hz" in settings:
            arm_settings["control_rate_hz"] = settings["control_rate_hz"]
        changed = dataclasses.replace(config, name=inner, settings=arm_settings)
        arm: Any = ARMS.load(inner)(changed)
        self._arm: Arm = arm
        self._last: Optional[ArmState] = None
        self._jumps = 0
        for name in ("cameras", "task"):
            if hasattr(arm, name):
                setattr(self, name, getattr(arm, name))
        for name in (
            "action_spec", "state_names", "state_units", "state_frame", "base_pose",
            "control_rate_hz", "limits", "timing", "health_limits", "joint_names",
            "relative_to_target",
        ):  # fmt: skip
            setattr(self, name, getattr(arm, name))
        self.settings: Dict[str, Any] = {**arm.settings, "rehearsal": True}

    def now_ns(self) -> int:
        """Return the time of the arm inside."""
        return self._arm.now_ns()

    def state(self) -> ArmState:
        """Return the measured state, or what a fault makes of it."""
        fault = self._fault()
        if fault == STALE and self._last is not None:
            return self._last
        self._last = state = self._arm.state()
        joints = dict(state.joint_positions)
        first = next(iter(joints), "")
        if fault == NAN_JOINTS:
            joints[first] = float("nan")
        elif fault == MISSING_JOINT:
            del joints[first]
        elif fault == JUMP:
            self._jumps += 1
            joints[first] += 1000.0 * self._jumps
        elif fault == EFFORT:
            efforts = {name: 2.0 * most for name, most in self._arm.health_limits.efforts.items()}
            return dataclasses.replace(state, joint_efforts=efforts)
        elif fault == STUCK:
            return dataclasses.replace(state, joint_targets={first: joints[first] + 1.0})
        return dataclasses.replace(state, joint_positions=joints)

    def command(self, setpoint: Setpoint) -> Sent:
        """Pass a setpoint on, unless a fault is in the way."""
        fault = self._fault()
        if fault == RAISES:
            raise RuntimeError("the bus is gone")
        if fault == EXITS:
            raise SystemExit(1)
        if fault == REFUSES:
            return Sent(refused="no_ik")
        if fault == BLOCKS:
            time_out = time.monotonic() + BLOCK_SECONDS
            while time.monotonic() < time_out:
                time.sleep(0.01)
        self._write("command", setpoint.action)
        return self._arm.command(setpoint)

    def health(self) -> Health:
        """Return what the motors report, or what a fault makes of it."""
        fault = self._fault()
        while self._fault() == HEALTH_HANGS:
            time.sleep(0.01)
        return _HEALTH.get(fault) or self._arm.health()

    def stop(self) -> None:
        """Hold still."""
        self._write("stop")
        self._arm.stop()

    def rearm(self) -> None:
        """Make the arm ready again."""
        self._write("rearm")
        self._arm.rearm()

    def home(self) -> None:
        """Move to the start pose."""
        self._write("home")
        self._arm.home()

    def close(self) -> None:
        """Release the arm."""
        self._arm.close()
        self._log.close()

    def _fault(self) -> str:
        try:
            return self._control.read_text().strip()
        except OSError:  # none has been asked for yet
            return ""

    def _write(self, call: str, action: Optional[np.ndarray] = None) -> None:
        line = {"time": time.time_ns(), "call": call}
        if action is not None:
            line["action"] = [float(v) for v in action]
        with contextlib.suppress(ValueError):  # a stop after close
            self._log.write(f"{json.dumps(line)}\n")
