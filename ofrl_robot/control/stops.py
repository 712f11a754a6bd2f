"""List every reason for which an arm is stopped. One of them is on ``robot/status`` (latched)."""

from __future__ import annotations

import dataclasses
import enum


class StopReason(str, enum.Enum):
    """Why an arm is stopped. The values are what ``robot/status`` and episodes say."""

    OPERATOR = "operator"  # somebody called the stop service
    SHUTDOWN = "shutdown"  # the robot node ended
    ACTOR_SILENT = "actor_silent"  # no usable action for max_silence
    RECORDER_SILENT = "recorder_silent"  # no heartbeat of the recorder
    MASTER_LOST = "master_lost"  # the ROS master or roslaunch is gone
    CAMERA = "camera"  # a camera is gone, stale or frozen
    ROBOT_FAULT = "robot_fault"  # the driver raised an error
    ARM_BLOCKED = "arm_blocked"  # a call of the driver does not return
    STATE_STALE = "state_stale"  # measured state older than max_state_age
    STATE_INVALID = "state_invalid"  # NaN, a missing joint, or a jump in the measured state
    EMERGENCY_STOP = "emergency_stop"  # the arm's own emergency stop
    TORQUE_OFF = "torque_off"  # motors without torque: torque on recovers it
    MOTOR_ERROR = "motor_error"  # a motor reports an error: a reboot recovers it
    MOTOR_SILENT = "motor_silent"  # a motor does not answer
    OVERHEATED = "overheated"  # a motor above max_temperature
    EFFORT = "effort"  # a joint pushes harder than allowed for too long
    STUCK = "stuck"  # a joint does not follow its target
    COLLISION = "collision"  # the arm reports a collision

    def __str__(self) -> str:
        """Return the value, as it is published."""
        return self.value


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that must stop the arm: the reason, and what was seen, in a few words."""

    reason: StopReason
    text: str = ""

    def __str__(self) -> str:
        """Return reason and text."""
        return f"{self.reason}: {self.text}" if self.text else str(self.reason)
