"""Skills for drawers and what is in front of them, and the policies that chain the skills."""

from __future__ import annotations

from typing import ClassVar, List, Optional, Sequence, Tuple, Type

import numpy as np

from ofrl_robot.sim.scripted.base import (
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

CLEAR_HEIGHT = -0.25  # end-effector height at which the fingers clear handle and ball, m
STILL = np.zeros(3)


class Skill:
    """A part of a policy: it acts until it is done; then the next skill acts.

    Args:
        rng: source of what varies between episodes.
    """

    needs: ClassVar[Sequence[str]] = ()

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def action(self, truth: Truth) -> Optional[np.ndarray]:
        """Return the noise-free action (8,), or None when nothing is left to do."""
        raise NotImplementedError


class OpenDrawer(Skill):
    """Lower the open gripper around the handle, pull the drawer to its stop, let go, rise."""

    needs = ("handle_position", "drawer_opened", "drawer_direction")
    # Place of the fingers around the handle, from its middle, m. In x there is little choice: 8 mm
    # to one side the gripper bar is on the upper drawer, to the other a finger is on the handle.
    grip = (0.012, 0.0, -0.01)
    above = (0.010, 0.040)  # x and y distance from which to go down: the handle lies along y
    grip_radius = 0.06  # distance from which to pull
    # Beyond these x positions (m) the workspace ends before the drawer is open: closing the
    # fingers then pulls the handle the last 2 cm.
    reach = (0.43, 0.77)
    opened = 0.96
    stop_progress = 0.01  # less progress than this in a step means that the drawer is at its stop

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._fraction = 0.0
        self._released = False

    def action(self, truth: Truth) -> Optional[np.ndarray]:
        """Return the noise-free action (8,), or None when nothing is left to do."""
        ee, direction = truth["ee_position"], float(truth["drawer_direction"][0])
        fraction, before = float(truth["drawer_opened"][0]), self._fraction
        self._fraction = fraction
        stopped = fraction - before < self.stop_progress
        self._released = self._released or (fraction > self.opened and stopped)
        if self._released:
            if ee[2] > CLEAR_HEIGHT:
                return None
            # A finger that presses against the handle sticks to it: move away while rising.
            pressed = ee[2] < CLEAR_HEIGHT - 0.03
            if truth["gripper_open"][0] < 0.5:
                return move(STILL, gripper=OPEN)
            return move([-0.05 * direction if pressed else 0.0, 0.0, 0.10])
        error = truth["handle_position"] + np.array(self.grip) * [direction, 1.0, 1.0] - ee
        if (np.abs(error[:2]) > self.above).any():
            low = ee[2] < CLEAR_HEIGHT - 0.02  # beside the handle, or slipped off: go over it again
            return move([error[0], error[1], 0.10 if low else 0.0])
        if float(np.linalg.norm(error)) > self.grip_radius:
            return move(error)
        within = self.reach[0] < ee[0] < self.reach[1]
        return move([self.pull(direction), 0.0, 0.0], gripper=0.0 if within else CLOSE)

    def pull(self, direction: float) -> float:
        """Return the displacement to ask for along x while the handle is held, m."""
        return direction


class OpenDrawerClumsily(OpenDrawer):
    """Pull or push at random, as in roboverse's suboptimal prior data."""

    def pull(self, direction: float) -> float:
        """Return a displacement (m) with or against the direction of opening, at random."""
        return direction if self.rng.random() < 0.5 else -direction


class GraspInDrawer(Skill):
    """Take the ball out of the open drawer and hold it."""

    needs = ("object_position", "handle_position", "drawer_position")
    # The middle of the open box, from the handle, m; the open fingers fit between its walls only
    # within `fit` of it.
    box_from_handle = -0.11
    fit = 0.008
    beside_divider = -0.004  # the box is divided lengthwise, close to the ball, m
    pick_height = -0.308
    align = 0.011  # xy error from which to go down, m
    hold_height = -0.16
    clear_of_shell = 0.120  # from the middle of the shell: here the gripper bar passes it, m

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._height = self.pick_height + float(np.clip(rng.normal(0.0, 0.003), -0.006, 0.006))
        self._lowest = np.inf
        self._stalled = 0

    def action(self, truth: Truth) -> Optional[np.ndarray]:
        """Return the noise-free action (8,), or None when nothing is left to do."""
        ee, ball = truth["ee_position"], truth["object_position"]
        if truth["gripper_open"][0] < 0.5:
            if held(truth):
                return move([0.0, 0.0, self.hold_height - ee[2]], gripper=CLOSE)
            self._lowest, self._stalled = np.inf, 0
            return move([0.0, 0.0, 0.05], gripper=OPEN)
        middle = truth["handle_position"][0] + self.box_from_handle
        x = np.clip(ball[0], middle - self.fit, middle + self.fit)
        x = max(x, truth["drawer_position"][0] + self.clear_of_shell)
        error = np.array([x, ball[1] + self.beside_divider, self._height]) - ee
        off = float(np.linalg.norm(error[:2]))
        if off > 0.05 and ee[2] < CLEAR_HEIGHT:
            return move([0.0, 0.0, 0.10])
        if off < 2 * self.align and ee[2] < self._height + 0.04:
            self._stalled = self._stalled + 1 if ee[2] > self._lowest - 1e-3 else 0
            self._lowest = min(self._lowest, float(ee[2]))
            if ee[2] < self._height + 0.006 or self._stalled >= 3:
                return move(error, gripper=CLOSE)
        down = error[2] if off < self.align or ee[2] < CLEAR_HEIGHT - 0.03 else 0.0
        return move(2.0 * np.array([error[0], error[1], down]))


class CloseTop(Skill):
    """Go down beside the half-open upper drawer and push it shut."""

    needs = ("top_position", "top_opened")
    closed = 0.04
    beside = (0.15, 0.0, 0.05)  # pushing can begin right of and below this point of the box, m
    push_height = 0.02  # above the middle of the box, m

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._pushing = False

    def action(self, truth: Truth) -> Optional[np.ndarray]:
        """Return the noise-free action (8,), or None when nothing is left to do."""
        ee, box = truth["ee_position"], truth["top_position"]
        if truth["top_opened"][0] < self.closed:
            return None
        beside = box + np.array(self.beside)
        self._pushing = self._pushing or (ee[0] > beside[0] and ee[2] < beside[2])
        if not self._pushing:
            return move([beside[0] + 0.02 - ee[0], box[1] - ee[1], beside[2] - 0.01 - ee[2]])
        error = box + [0.0, 0.0, self.push_height] - ee
        return move([-1.0, 0.6 * error[1], error[2]])


class ClearBottle(Skill):
    """Carry the bottle in front of the handle to the tray at the side."""

    needs = ("bottle_position", "tray_position", "handle_position")
    pick_height = -0.315  # higher, the fingers close above the widest part
    carry_height = -0.20
    drop_radius = 0.03
    beside_handle = 0.055  # nearer to the handle a finger comes down on it, m

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._picker = Picker(rng, self.pick_height, spread=0.003, tolerance=0.012)
        self._dropped = False

    def action(self, truth: Truth) -> Optional[np.ndarray]:
        """Return the noise-free action (8,), or None when nothing is left to do."""
        if self._dropped:
            return None
        ee, bottle = truth["ee_position"], truth["bottle_position"]
        if truth["gripper_open"][0] > 0.5:
            x = max(bottle[0], truth["handle_position"][0] + self.beside_handle)
            return self._picker.approach(ee, np.array([x, bottle[1], bottle[2]]))
        if not held(truth, "bottle_position"):
            self._picker.retry()
            return move(STILL, gripper=OPEN)
        if bottle[2] < LIFTED_HEIGHT:
            return move([0.0, 0.0, self.carry_height - ee[2]], gripper=CLOSE)
        over = self.drop_point(truth)
        if float(np.linalg.norm(over[:2] - ee[:2])) < self.drop_radius:
            self._dropped = True
            return move(STILL, gripper=OPEN)
        away = 2.0 * (over[:2] - ee[:2])
        return move([*away, self.carry_height - ee[2]], gripper=CLOSE)

    def drop_point(self, truth: Truth) -> np.ndarray:
        """Return where to let go, (3,) m."""
        return truth["tray_position"]


class ClearBottleCarelessly(ClearBottle):
    """Drop half of the bottles up to 20 cm off the tray, as in roboverse's prior data."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        off = np.array([rng.uniform(-0.2, 0.0), rng.uniform(0.0, 0.2), 0.0])
        self._off = off if rng.random() < 0.5 else np.zeros(3)

    def drop_point(self, truth: Truth) -> np.ndarray:
        """Return where to let go of the bottle, (3,) m: over the tray or beside it."""
        return super().drop_point(truth) + self._off


class GoNeutral(Skill):
    """Send one neutral action: the arm returns to its reset pose, the gripper opens."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._done = False

    def action(self, truth: Truth) -> Optional[np.ndarray]:
        """Return the noise-free action (8,), or None when nothing is left to do."""
        if self._done:
            return None
        self._done = True
        return move(STILL, neutral=NEUTRAL_COMMAND)


class GoHome(Skill):
    """Return to where the episode began, so that data of the next stage continues from there."""

    home = (0.60, 0.155, -0.173)  # end effector at the reset pose, m, world axes

    def action(self, truth: Truth) -> Optional[np.ndarray]:
        """Return the noise-free action (8,), or None when nothing is left to do."""
        return move(np.array(self.home) - truth["ee_position"])


class Chain(ScriptedPolicy):
    """Policy that runs one skill after the other; after the last it stays."""

    skills: ClassVar[Sequence[Type[Skill]]] = ()

    def begin(self) -> None:
        """Forget the last episode; draw what varies between episodes."""
        self._left: List[Skill] = [skill(self.rng) for skill in self.skills]

    def decide(self, truth: Truth) -> np.ndarray:
        """Return the noise-free action (8,) for the current step."""
        while self._left:
            action = self._left[0].action(truth)
            if action is not None:
                return action
            del self._left[0]
        return move(STILL)


def _chain(name: str, *skills: Type[Skill]) -> Type[Chain]:
    """Return the policy called ``name`` that runs ``skills`` in order."""
    needs = tuple(dict.fromkeys(key for skill in skills for key in skill.needs))
    return type(name, (Chain,), {"name": name, "needs": needs, "skills": skills})


# Policies that end in GoHome make prior data: they solve the first part and leave the arm where
# the data of the second part begins. The suboptimal ones fail often, on purpose.
POLICIES: Tuple[Type[ScriptedPolicy], ...] = (
    _chain("drawer_open", OpenDrawer),
    _chain("drawer_grasp", GraspInDrawer),
    _chain("open_grasp", OpenDrawer, GraspInDrawer),
    _chain("close_open_grasp", CloseTop, GoNeutral, OpenDrawer, GraspInDrawer),
    _chain("pick_place_open_grasp", ClearBottle, GoNeutral, OpenDrawer, GraspInDrawer),
    _chain("drawer_open_transfer", OpenDrawer, GoHome),
    _chain("drawer_open_transfer_suboptimal", OpenDrawerClumsily, GoHome),
    _chain("drawer_close_open_transfer", CloseTop, GoNeutral, OpenDrawer, GoHome),
    _chain("drawer_close_open_transfer_suboptimal",
           CloseTop, GoNeutral, OpenDrawerClumsily, GoHome),
    _chain("pick_place_open", ClearBottle, GoNeutral, OpenDrawer, GoHome),
    _chain("pick_place_open_suboptimal",
           ClearBottleCarelessly, GoNeutral, OpenDrawerClumsily, GoHome),
)  # fmt: skip
