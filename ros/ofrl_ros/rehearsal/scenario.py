"""What a rehearsed fault is: a promise, a bound, and how to play it."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple, Optional

from ofrl_robot.control.stops import StopReason
from ofrl_robot.control.timing import Timing
from ofrl_robot.errors import RobotError
from ofrl_ros.rehearsal.stage import Stage

STOP_SOON = 1.0  # s: most that a person waits who watches


class Outcome(NamedTuple):
    """What came of a rehearsal.

    Attributes:
        kept: whether the promise was kept.
        seconds: from the fault to the stop at the driver, or to what was promised; None where
            nothing is timed.
        text: what was seen.
    """

    kept: bool
    seconds: Optional[float]
    text: str


class Scenario(NamedTuple):
    """A fault and what is promised about it.

    Attributes:
        name: of the fault.
        group: heading under which it is listed.
        promise: what happens, in a sentence.
        bound: seconds within which, from the arm's deadlines; None where nothing is timed.
        play: plays it on a stage that is armed; its second argument is the bound, 0 without one.
        own_stage: whether it needs nodes of its own, since it kills some.
        with_camera: whether it needs a camera node; only for arms that bring their own frames.
    """

    name: str
    group: str
    promise: str
    bound: Optional[Callable[[Timing], float]]
    play: Callable[[Stage, float], Outcome]
    own_stage: bool = False
    with_camera: bool = False


def within(seconds: float, deadline: str = "") -> Callable[[Timing], float]:
    """Return a bound: a deadline of the arm's limits file, and ``seconds`` more."""

    def bound(timing: Timing) -> float:
        return seconds + (float(getattr(timing, deadline)) if deadline else 0.0)

    return bound


def stops(
    stage: Stage, since: float, reason: StopReason, bound: float, settle: float = 0.3
) -> Outcome:
    """Wait for a stop; it is right if the reason is, in time, and nothing moves after it.

    Args:
        since: when the fault began, s since the epoch.
        reason: that must be on ``robot/status``.
        bound: seconds.
        settle: seconds after the stop in which nothing may move.
    """
    try:
        stage.wait(lambda: str(reason) in stage.heard, f"reason {reason}", 10.0 * bound + 5.0)
    except RobotError:
        seen = ", ".join(r for r in stage.heard if r) or "no stop"
        return Outcome(False, None, f"{seen} instead of {reason}")
    stopped = stage.first_stop(since)
    if stopped is None:
        return Outcome(False, None, "the status says stopped, the driver was not")
    seconds = stopped - since
    _idle(settle)
    moved = stage.motions(stopped)
    text = f"{reason} after {seconds:.3f} s"
    if moved:
        text += f", then {len(moved)} motions"
    return Outcome(seconds <= bound and not moved, seconds, text)


def never_reaches_the_driver(stage: Stage, forbidden: Callable[[list], bool]) -> Outcome:
    """Judge whether no command that ``forbidden`` recognises reached the driver."""
    bad = [c for c in stage.calls() if c.action is not None and forbidden(c.action)]
    text = f"{len(bad)} of {len(stage.calls())} calls of the driver" if bad else "none arrived"
    return Outcome(not bad, None, text)


def _idle(seconds: float) -> None:
    """Let time pass: what is looked for is that nothing happens in it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
