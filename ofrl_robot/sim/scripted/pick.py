"""Policies that grasp an object and put it down."""

from __future__ import annotations

from typing import Tuple, Type

import numpy as np

from ofrl_robot.sim.scripted.base import (
    ALIGN_RADIUS,
    CLOSE,
    LIFTED_HEIGHT,
    NEUTRAL_COMMAND,
    OPEN,
    Picker,
    ScriptedPolicy,
    Truth,
    held,
    move,
)

GRASP_PICK_HEIGHT, PICK_HEIGHT = -0.31, -0.32  # mean of the pick points, m
SECURED_HEIGHT = -0.23  # height of an object that is lifted safely, m
HOLD_HEIGHT, CARRY_HEIGHT = -0.16, -0.20  # heights of the end effector, m
DROP_CENTRED = 0.5  # the object is let go within this fraction of the container's radius
DROP_CLEARANCE = 0.02  # height of the object's frame over the container's top at the drop, m
DROP_TOLERANCE = 0.01  # tolerance of that height, m

# Area in which the picker that misses on purpose closes the gripper, xy, m.
REACH_LOW, REACH_HIGH = (0.49, 0.18), (0.75, 0.27)


class GraspPolicy(ScriptedPolicy):
    """Pick the object up and hold it."""

    name = "grasp"

    def begin(self) -> None:
        """Forget the last episode; draw what varies between episodes."""
        self._picker = Picker(self.rng, GRASP_PICK_HEIGHT)

    def decide(self, truth: Truth) -> np.ndarray:
        """Return the noise-free action (8,) for the current step."""
        ee = truth["ee_position"]
        if truth["gripper_open"][0] > 0.5:
            return self._picker.approach(ee, truth["object_position"])
        if not held(truth):
            self._picker.retry()
            return move(np.zeros(3), gripper=OPEN)  # missed: open and try again
        # Keep commanding "closed": one noisy step must not let go of the object.
        return move([0.0, 0.0, HOLD_HEIGHT - ee[2]], gripper=CLOSE)


class GraspTransferPolicy(ScriptedPolicy):
    """Pick the object up, return with it by the neutral action, hold it.

    Prior data for the tray tasks, whose neutral action keeps the gripper closed; where it
    opens the gripper, the object is dropped.
    """

    name = "grasp_transfer"

    def begin(self) -> None:
        """Forget the last episode; draw what varies between episodes."""
        self._picker = Picker(self.rng, PICK_HEIGHT)

    def decide(self, truth: Truth) -> np.ndarray:
        """Return the noise-free action (8,) for the current step."""
        ee, item = truth["ee_position"], truth["object_position"]
        if truth["gripper_open"][0] > 0.5:
            return self._picker.approach(ee, self.pick_point(item))
        if item[2] > SECURED_HEIGHT:
            return move(np.zeros(3), gripper=CLOSE)
        # Up first: the neutral action alone drags what the fingers hold over the table.
        return move([0.0, 0.0, HOLD_HEIGHT - ee[2]], gripper=CLOSE, neutral=NEUTRAL_COMMAND)

    def pick_point(self, item: np.ndarray) -> np.ndarray:
        """Return where to close the gripper, (2,) or (3,) m, for an object at ``item`` (3,) m."""
        return item


class GraspTransferSuboptimalPolicy(GraspTransferPolicy):
    """GraspTransfer that closes the gripper at a random place in every other episode."""

    name = "grasp_transfer_suboptimal"

    def begin(self) -> None:
        """Forget the last episode; draw what varies between episodes."""
        super().begin()
        astray = self.rng.uniform(REACH_LOW, REACH_HIGH)
        self._astray = astray if self.rng.random() < 0.5 else None

    def pick_point(self, item: np.ndarray) -> np.ndarray:
        """Return where to close the gripper: at the object or at a random place."""
        return item if self._astray is None else self._astray


class PlacePolicy(ScriptedPolicy):
    """Carry the object, held in the gripper, over the container, drop it, stay there."""

    name = "place"
    needs = ("object_position", "container_position", "container_top", "container_radius")

    def begin(self) -> None:
        """Forget the last episode; draw what varies between episodes."""
        self._dropped = False

    def decide(self, truth: Truth) -> np.ndarray:
        """Return the noise-free action (8,) for the current step."""
        ee, item = truth["ee_position"], truth["object_position"]
        container, top = truth["container_position"], float(truth["container_top"][0])
        if self._dropped:
            return move([*(container[:2] - ee[:2]), CARRY_HEIGHT - ee[2]], gripper=OPEN)
        # The object must be over the container, not the gripper.
        off = container[:2] - item[:2]
        distance = float(np.linalg.norm(off))
        if distance > ALIGN_RADIUS:
            return move([*off, CARRY_HEIGHT - ee[2]], gripper=CLOSE)
        sink = top + DROP_CLEARANCE - item[2]
        near = DROP_CENTRED * float(truth["container_radius"][0])
        if distance > near or sink < -DROP_TOLERANCE:
            return move([*off, sink], gripper=CLOSE)
        self._dropped = True
        return move(np.zeros(3), gripper=OPEN)


class PickPlacePolicy(PlacePolicy):
    """Pick the object up, carry it over the container, drop it, stay there."""

    name = "pick_place"

    def begin(self) -> None:
        """Forget the last episode; draw what varies between episodes."""
        super().begin()
        self._picker = Picker(self.rng, PICK_HEIGHT)
        self._lifted = False

    def decide(self, truth: Truth) -> np.ndarray:
        """Return the noise-free action (8,) for the current step."""
        ee, item = truth["ee_position"], truth["object_position"]
        if self._dropped:
            return super().decide(truth)
        if truth["gripper_open"][0] > 0.5:
            return self._picker.approach(ee, item)
        if not held(truth):
            self._picker.retry()
            self._lifted = False
            return move(np.zeros(3), gripper=OPEN)  # missed: open and try again
        self._lifted = self._lifted or item[2] > LIFTED_HEIGHT
        if not self._lifted:
            # Straight up first, or the object is dragged against the container's rim.
            return move([0.0, 0.0, CARRY_HEIGHT - ee[2]], gripper=CLOSE)
        return super().decide(truth)


POLICIES: Tuple[Type[ScriptedPolicy], ...] = (
    GraspPolicy,
    GraspTransferPolicy,
    GraspTransferSuboptimalPolicy,
    PlacePolicy,
    PickPlacePolicy,
)
