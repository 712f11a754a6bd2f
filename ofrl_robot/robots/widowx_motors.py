"""Ask the motors of a WidowX how they are, and make them ready again after a fault."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from ofrl_robot.control.health import Health
from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.widowx_client import GRIPPER, PROFILE_TIME, InterbotixClient

ERRORS, TEMPERATURE, TORQUE = "Hardware_Error_Status", "Present_Temperature", "Torque_Enable"
# Bits of the Dynamixel X series' register Hardware_Error_Status.
ERROR_BITS = {
    0x01: "input voltage",
    0x04: "overheating",
    0x08: "encoder",
    0x10: "electrical shock",
    0x20: "overload",
}


class Motors:
    """The registers of every motor that the vendor's driver reads.

    The shadow motors of shoulder and elbow are not among them: that driver never polls them.

    Args:
        client: the connected arm.

    Attributes:
        offered: whether the driver has these registers; the vendor's simulated one has not.
    """

    def __init__(self, client: InterbotixClient) -> None:
        self._client = client
        self.offered = True
        if not client.registers(ERRORS) and self._all_answer(PROFILE_TIME):
            self.offered = False
            client.warn("the driver has no motor registers: errors and heat are not watched")

    def health(self) -> Health:
        """Return temperatures and faults; takes three reads of the bus, tens of ms."""
        if not self.offered:
            return Health()
        try:
            errors = self._client.registers(ERRORS)
            temperatures = self._client.registers(TEMPERATURE)
            torques = self._client.registers(TORQUE)
        except RobotError as error:
            return Health(faults=(Fault(StopReason.ARM_BLOCKED, str(error)),))
        named = dict(zip(self._client.motors, map(float, temperatures)))
        faults = (
            _error_faults(self._named(errors))
            + self._silent(min((errors, temperatures, torques), key=len))
            + _torque_faults(self._named(torques))
        )
        return Health(named, faults)

    def recover(self, profile: Tuple[float, float]) -> None:
        """Make every motor ready: reboot what failed, torque on, profile written.

        A rebooted motor lets go of its load for about a second. Nothing is moved.

        Args:
            profile: duration of a motion and of its acceleration, s.

        Raises:
            RobotError: a motor stays in its error or silent, or the driver does not answer.
        """
        if self.offered:
            faults = self._faults((StopReason.MOTOR_ERROR, StopReason.MOTOR_SILENT))
            if faults:
                self._client.reboot_failed_motors()
                self._require_none("reboot", (StopReason.MOTOR_ERROR, StopReason.MOTOR_SILENT))
            off = [motor for motor, on in self._read(TORQUE).items() if not on]
            if any(motor != GRIPPER for motor in off):
                self._client.set_torque(True)
            if GRIPPER in off:
                self._client.set_gripper_torque(True)
            self._require_none("torque on", tuple(StopReason))
        self._client.set_profile(*profile)

    def _require_none(self, after: str, reasons: Tuple[StopReason, ...]) -> None:
        faults = self._faults(reasons)
        if faults:
            raise RobotError(
                f"{faults[0].text} after {after}",
                "check the motor, its cable and its load, then switch the arm off and on",
                "widowx",
            )

    def _faults(self, reasons: Tuple[StopReason, ...]) -> List[Fault]:
        return [fault for fault in self.health().faults if fault.reason in reasons]

    def _read(self, register: str) -> Dict[str, int]:
        return self._named(self._client.registers(register))

    def _named(self, values: List[int]) -> Dict[str, int]:
        return dict(zip(self._client.motors, values))

    def _all_answer(self, register: str) -> bool:
        return len(self._client.registers(register)) == len(self._client.motors)

    def _silent(self, values: List[int]) -> Tuple[Fault, ...]:
        """Return the fault of a list that is too short: it ends before the silent motor."""
        motor = _first_without(self._client.motors, len(values))
        if motor is None:
            return ()
        return (Fault(StopReason.MOTOR_SILENT, f"motor {motor} does not answer"),)


def _first_without(motors: Tuple[str, ...], count: int) -> Optional[str]:
    return motors[count] if count < len(motors) else None


def _error_faults(errors: Dict[str, int]) -> Tuple[Fault, ...]:
    return tuple(
        Fault(StopReason.MOTOR_ERROR, f"motor {motor}: {error_names(bits)}")
        for motor, bits in errors.items()
        if bits
    )


def _torque_faults(torques: Dict[str, int]) -> Tuple[Fault, ...]:
    off = [motor for motor, on in torques.items() if not on]
    if not off:
        return ()
    return (Fault(StopReason.TORQUE_OFF, f"motor {', '.join(off)} without torque"),)


def error_names(bits: int) -> str:
    """Return the names of the bits of Hardware_Error_Status."""
    names = [name for bit, name in ERROR_BITS.items() if bits & bit]
    unknown = bits & ~sum(ERROR_BITS)
    return ", ".join(names + ([f"unknown bit 0x{unknown:02x}"] if unknown else []))
