"""Open and close a Sawyer's gripper from a thread of its own.

Every command of the vendor's client waits for an acknowledgement: 0.1 s at best, 5 s when none
comes. That is half a control period at 5 Hz, or 25 of them.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Optional, Tuple

from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.errors import RobotError

OPEN_M, CLOSED_M = 0.041667, 0.0  # range of the gripper, m between the fingers
_CLOSE_BELOW, _OPEN_ABOVE = 0.25, 0.75  # of a wish; between them the fingers stay as they are
_UNACKNOWLEDGED = 1.0  # s: an acknowledgement takes 0.1 s, a missing one 5 s


class GripperWorker:
    """Carries out the newest wish; a wish that changes nothing is not sent.

    Args:
        gripper: the vendor's Gripper, built without calibration (which moves it).
    """

    def __init__(self, gripper: Any) -> None:
        self._gripper = gripper
        self._changed = threading.Condition()
        self._wish: Optional[float] = None  # m, not carried out yet
        self._told: Optional[float] = None  # m, last carried out or in progress
        self._since: Optional[float] = None  # begin of the command in progress, monotonic s
        self._fault: Optional[Fault] = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="gripper")
        self._thread.start()

    def opening(self) -> float:
        """Return the distance between the fingers, m; NaN when the gripper says nothing."""
        position = self._gripper.get_position()
        return float("nan") if position is None else float(position)

    def wish(self, share: Optional[float]) -> None:
        """Ask for the gripper to be open (1) or closed (0); None or between: as it is."""
        if share is None or _CLOSE_BELOW <= share <= _OPEN_ABOVE:
            return
        target = OPEN_M if share > _OPEN_ABOVE else CLOSED_M
        with self._changed:
            if target != (self._told if self._wish is None else self._wish):
                self._wish = target
                self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until every wish is carried out; return whether it is."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout)

    def fault(self) -> Optional[Fault]:
        """Return what is wrong with the gripper, or None."""
        with self._changed:
            since = self._since
            fault = self._fault
        if since is not None and time.monotonic() - since > _UNACKNOWLEDGED:
            return Fault(StopReason.MOTOR_SILENT, "the gripper does not acknowledge its command")
        if fault is None and self._gripper.has_error():
            return Fault(StopReason.MOTOR_ERROR, "the gripper reports an error")
        return fault

    def recover(self) -> None:
        """Forget faults; power-cycle a gripper that reports an error. Does not move it.

        Raises:
            RobotError: a command still waits for its acknowledgement.
        """
        if not self.wait(_UNACKNOWLEDGED):
            raise RobotError(
                "the gripper does not acknowledge its commands", "check its connector on the wrist"
            )
        with self._changed:
            self._fault, self._told = None, None
        if self._gripper.has_error():
            self._gripper.reboot()

    def prepare(self) -> None:
        """Calibrate a gripper that is not; this moves its fingers.

        Raises:
            RobotError: the calibration failed.
        """
        if not self._gripper.is_calibrated() and not self._gripper.calibrate():
            raise RobotError("the gripper's calibration failed", "free its fingers and try again")

    def close(self) -> None:
        """Carry out no more wishes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _idle(self) -> bool:
        return self._wish is None and self._since is None

    def _next(self) -> Tuple[bool, float]:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._wish is not None)
            if self._closed or self._wish is None:
                return False, 0.0
            self._told, self._wish = self._wish, None
            self._since = time.monotonic()
            return True, self._told

    def _run(self) -> None:
        while True:
            more, target = self._next()
            if not more:
                return
            fault = None
            begun = time.monotonic()
            try:
                self._gripper.set_position(target)
                if time.monotonic() - begun > _UNACKNOWLEDGED:
                    text = "the gripper did not acknowledge its command"
                    fault = Fault(StopReason.MOTOR_SILENT, text)
            except Exception as error:  # a thread has nobody to raise to: ``fault`` tells
                fault = Fault(StopReason.ROBOT_FAULT, f"gripper: {error}")
            with self._changed:
                self._since = None
                self._fault = fault or self._fault
                self._changed.notify_all()
