"""The motors' registers of a WidowX twin: what the vendor's services read and write."""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np

from ofrl_ros.twin.widowx_arm import ARM_JOINTS, TwinWidowX
from ofrl_ros.twin.world import TwinFaults

GRIPPER = "gripper"
MOTORS = (*ARM_JOINTS, GRIPPER)
GROUPS: Dict[str, Tuple[str, ...]] = {"all": MOTORS, "arm": ARM_JOINTS}
ERRORS, TEMPERATURE, TORQUE = "Hardware_Error_Status", "Present_Temperature", "Torque_Enable"
PROFILE_TIME, PROFILE_ACCELERATION = "Profile_Velocity", "Profile_Acceleration"
OVERLOAD = 0x20
COOL, HOT = 31, 71  # deg C
# Faults of the motors; each is ended by what mends a real one (see docs/widowx.md).
MOTOR_FAULTS: Dict[str, Tuple[str, ...]] = {
    "overload": MOTORS,
    "motor_silent": MOTORS,
    "hot": MOTORS,
    "torque_off": (),
    "blocked": ARM_JOINTS,
}


class Registers:
    """Registers by motor, with the faults that show in them. The physics' lock guards it.

    Args:
        twin: the arm whose torque they switch.
        faults: what is injected.
        profile: ms of a motion and of its acceleration after power-on: the vendor's mode file.
    """

    def __init__(
        self, twin: TwinWidowX, faults: TwinFaults, profile: Tuple[int, int] = (2000, 300)
    ) -> None:
        self._twin, self._faults = twin, faults
        self._values: Dict[str, Dict[str, int]] = {
            PROFILE_TIME: dict.fromkeys(MOTORS, profile[0]),
            PROFILE_ACCELERATION: dict.fromkeys(MOTORS, profile[1]),
            TORQUE: dict.fromkeys(MOTORS, 1),
            ERRORS: dict.fromkeys(MOTORS, 0),
        }

    @property
    def profile_seconds(self) -> np.ndarray:
        """Duration of a motion of each joint of the arm, (6,) s; 0 is unlimited speed."""
        return np.array([self._values[PROFILE_TIME][m] for m in ARM_JOINTS], np.float64) / 1000.0

    def follow(self) -> None:
        """Let the injected faults act on the motors."""
        if "overload" in self._faults:
            motor = self._faults.detail("overload")
            self._values[ERRORS][motor] |= OVERLOAD
            self._values[TORQUE][motor] = 0
        if "torque_off" in self._faults:
            self._values[TORQUE] = dict.fromkeys(MOTORS, 0)
        held = self._faults.detail("blocked")
        self._twin.blocked = np.array([name == held for name in ARM_JOINTS])
        self._switch()

    def read(self, motors: Tuple[str, ...], register: str) -> List[int]:
        """Return a register; the list ends before a motor that does not answer."""
        values = self._values.get(register, {})
        if register == TEMPERATURE:
            hot = self._faults.detail("hot")
            values = {motor: HOT if motor == hot else COOL for motor in MOTORS}
        silent = self._faults.detail("motor_silent")
        if silent in motors:
            motors = motors[: motors.index(silent)]
        return [values[motor] for motor in motors if motor in values]

    def write(self, motors: Tuple[str, ...], register: str, value: int) -> None:
        """Write a register of several motors; unknown ones are ignored."""
        if register in self._values:
            self._values[register].update(dict.fromkeys(motors, value))
            self._switch()

    def set_torque(self, motors: Tuple[str, ...], on: bool) -> None:
        """Switch torque; a motor in its error refuses."""
        if on:
            self._faults.clear("torque_off")
            motors = tuple(m for m in motors if not self._values[ERRORS][m])
        self.write(motors, TORQUE, int(on))

    def reboot(self, motors: Tuple[str, ...], enable: bool, smart: bool) -> None:
        """Reboot motors: errors end, RAM registers are lost, the load is let go.

        Args:
            enable: torque on afterwards.
            smart: only those with an error or without an answer.
        """
        for motor in motors:
            silent = self._faults.detail("motor_silent") == motor
            if smart and not (silent or self._values[ERRORS][motor]):
                continue
            for fault in ("overload", "motor_silent"):
                if self._faults.detail(fault) == motor:
                    self._faults.clear(fault)
            self._values[ERRORS][motor] = 0
            self._values[PROFILE_TIME][motor] = self._values[PROFILE_ACCELERATION][motor] = 0
            self._values[TORQUE][motor] = 0
            self._switch()
            self._values[TORQUE][motor] = int(enable)
        self._switch()

    def _switch(self) -> None:
        wanted = np.array([bool(self._values[TORQUE][m]) for m in ARM_JOINTS])
        if (wanted != self._twin.torque).any():
            self._twin.take_torque(wanted & ~self._twin.torque, True)
            self._twin.take_torque(~wanted & self._twin.torque, False)
