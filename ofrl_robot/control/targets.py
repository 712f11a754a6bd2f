"""Remember where the arm was told to go, so that a hold cannot let it creep."""

from __future__ import annotations

from typing import Optional, Tuple

from ofrl_robot.control.limiter import Limits
from ofrl_robot.control.pose import Pose, angle, distance
from ofrl_robot.control.signals import ArmState


class TargetMemory:
    """The previous target of the end effector.

    An action counts from the previous target. From the measured pose, an arm that sags under its
    load would be told its sagging pose at every hold, and creep (bridge_data_robot adds to the
    target for the same reason). When the two part by more than the limits allow, because the arm
    was pushed or blocked, the next step starts at the measured pose.
    """

    def __init__(self) -> None:
        self._target: Optional[Pose] = None

    def start(self, state: ArmState, limits: Limits) -> Tuple[Pose, bool]:
        """Return the pose from which the next action counts, and whether memory was given up."""
        measured = Pose(state.position, state.orientation)
        target = self._target
        if target is None:
            return measured, False
        apart = (
            distance(target, measured) > limits.max_target_error
            or angle(target, measured) > limits.max_target_angle
        )
        return (measured, True) if apart else (target, False)

    def keep(self, target: Pose) -> None:
        """Remember what the arm was told."""
        self._target = target

    def clear(self) -> None:
        """Forget it: the next action counts from the measured pose."""
        self._target = None
