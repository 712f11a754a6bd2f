"""Policy that pushes a button."""

from __future__ import annotations

from typing import Tuple, Type

import numpy as np

from ofrl_robot.sim.scripted.base import CLOSE, ScriptedPolicy, Truth, move

ALIGN_RADIUS = 0.02  # xy error above which the gripper does not descend, m
REACH = 0.06  # from the end effector to the closed fingertips, m
PUSH_DEPTH = 0.05  # target below the cap's centre, so that the motors push, m
PRESSED = 0.95
REST_HEIGHT = -0.20  # of the end effector afterwards, m


class ButtonPressPolicy(ScriptedPolicy):
    """Close the gripper over the button, push it in with the fingertips, rise."""

    name = "button_press"
    needs = ("button_position", "button_pressed")

    def decide(self, truth: Truth) -> np.ndarray:
        """Return the noise-free action (8,) for the current step."""
        ee, button = truth["ee_position"], truth["button_position"]
        off = button[:2] - ee[:2]
        if truth["button_pressed"][0] > PRESSED:
            return move([0.0, 0.0, REST_HEIGHT - ee[2]], gripper=CLOSE)
        if float(np.linalg.norm(off)) > ALIGN_RADIUS:
            return move([*off, REST_HEIGHT - ee[2]], gripper=CLOSE)
        return move([*off, button[2] + REACH - PUSH_DEPTH - ee[2]], gripper=CLOSE)


POLICIES: Tuple[Type[ScriptedPolicy], ...] = (ButtonPressPolicy,)
