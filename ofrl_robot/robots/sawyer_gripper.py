"""Open and close a Sawyer's gripper, and notice when it does not answer.

Every command of the vendor's client waits for an acknowledgement: 0.1 s at best, 5 s when none
comes. That is half a control period at 5 Hz, or 25 of them: so it is sent from another thread.
"""

from __future__ import annotations

import time
from typing import Any, Optional

from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.gripper_thread import GripperThread

OPEN_M, CLOSED_M = 0.041667, 0.0  # range of the gripper, m between the fingers
_UNACKNOWLEDGED = 1.0  # s: an acknowledgement takes 0.1 s, a missing one 5 s


class SawyerGripper:
    """The gripper of one Sawyer. It is told on a change only.

    Args:
        gripper: the vendor's Gripper, built without calibration (which moves it).
    """

    def __init__(self, gripper: Any) -> None:
        self._gripper = gripper
        self._told: Optional[bool] = None  # open, or closed: last carried out
        self._since: Optional[float] = None  # begin of the command in progress, monotonic s
        self._fault: Optional[Fault] = None
        self._thread = GripperThread(self._move, self.opening() > OPEN_M / 2.0)

    def opening(self) -> float:
        """Return the distance between the fingers, m; NaN when the gripper says nothing."""
        position = self._gripper.get_position()
        return float("nan") if position is None else float(position)

    def wish(self, share: Optional[float]) -> None:
        """Ask for the gripper to be open (1) or closed (0); None or between: as it is."""
        if share is not None:
            self._thread.set(share)

    def open(self, timeout: float) -> None:
        """Open the fingers and wait for the acknowledgement; calibrate first, if need be.

        Raises:
            RobotError: the calibration failed, or nothing was acknowledged within ``timeout`` s.
        """
        if not self._gripper.is_calibrated() and not self._gripper.calibrate():
            raise RobotError("the gripper's calibration failed", "free its fingers and try again")
        self.wish(1.0)
        deadline = time.monotonic() + timeout
        while self._told is not True:
            if time.monotonic() > deadline:
                raise RobotError("the gripper does not open", "check its connector on the wrist")
            time.sleep(0.01)

    def fault(self) -> Optional[Fault]:
        """Return what is wrong with the gripper, or None."""
        if self._late():
            return Fault(StopReason.MOTOR_SILENT, "the gripper does not acknowledge its command")
        if self._fault is None and self._gripper.has_error():
            return Fault(StopReason.MOTOR_ERROR, "the gripper reports an error")
        return self._fault

    def recover(self) -> None:
        """Forget faults; power-cycle a gripper that reports an error. Does not move it.

        Raises:
            RobotError: a command still waits for its acknowledgement.
        """
        if self._late():
            raise RobotError(
                "the gripper does not acknowledge its command", "check its connector on the wrist"
            )
        self._fault, self._told = None, None
        self._thread.forget()
        if self._gripper.has_error():
            self._gripper.reboot()

    def close(self) -> None:
        """Carry out no more wishes."""
        self._thread.close()

    def _late(self) -> bool:
        since = self._since
        return since is not None and time.monotonic() - since > _UNACKNOWLEDGED

    def _move(self, to_open: bool) -> None:
        """Send a command; in the gripper's thread."""
        self._told, self._since = None, time.monotonic()
        try:
            self._gripper.set_position(OPEN_M if to_open else CLOSED_M)
            if self._late():
                text = "the gripper did not acknowledge its command"
                self._fault = Fault(StopReason.MOTOR_SILENT, text)
            else:
                self._told = to_open
        except Exception as error:  # a thread has nobody to raise to: ``fault`` tells
            self._fault = Fault(StopReason.ROBOT_FAULT, f"gripper: {error}")
        finally:
            self._since = None
