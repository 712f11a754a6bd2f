"""Success labels and where they come from. Unlabelled is never success."""

from __future__ import annotations

from ofrl_robot.control.signals import Tick
from ofrl_robot.data.schema import FAILURE, SUCCESS, UNKNOWN

SIMULATOR, OPERATOR, NOBODY = "simulator", "operator", ""


def simulator_label(last: Tick) -> int:
    """Label of a simulated episode: success if the reward holds at its last step.

    roboverse's collectors judge the last step too; a reward met on the way and lost again is a
    failure. An episode that did not reach its end is unknown.
    """
    if not last.last:
        return UNKNOWN
    return SUCCESS if last.reward > 0 else FAILURE
