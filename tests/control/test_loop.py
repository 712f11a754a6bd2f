"""The control loop, judged by what reached the driver."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.control.limiter import NOT_FINITE, SHAPE, STEP, WORKSPACE
from ofrl_robot.control.loop import ACTOR_SILENT, OPERATOR, ROBOT_FAULT, ControlLoop
from ofrl_robot.control.signals import HOLD, HUMAN, POLICY, AppliedAction, Command, Tick
from ofrl_robot.errors import RobotError


def offer(loop, stamp, action=0.3, source=POLICY):
    return loop.offer(Command(stamp, np.full(4, action), source))


def begin(loop, seed=0):
    """Start an episode; return its tick 0."""
    loop.begin()
    loop.arm.arrange(seed)
    return now(loop.arm)


def now(robot):
    """The tick at which the robot is."""
    return Tick(robot.now_ns(), robot._step, {}, np.zeros(2))


@pytest.fixture
def loop(fake_robot):
    fake_robot.horizon = 1000
    return ControlLoop(fake_robot)  # stops after 0.6 s of silence: 3 ticks at 5 Hz


def test_silence_holds_then_stops_and_nothing_reaches_the_driver_any_more(loop, fake_robot):
    begin(loop, 0)
    for expected in (1, 2):
        applied = loop.apply(now(fake_robot))
        assert applied.source == HOLD and not applied.action.any()
        assert loop.counts.held == expected and not loop.stopped
    loop.apply(now(fake_robot))
    assert loop.stop_reason == ACTOR_SILENT and fake_robot.stops == 1
    assert len(fake_robot.received) == 2  # the third silent tick stops, it does not hold
    assert not np.any(fake_robot.received)

    tick = now(fake_robot)
    offer(loop, tick.stamp_ns)
    for refused in (lambda: loop.apply(tick), lambda: loop.begin()):
        with pytest.raises(RobotError, match=ACTOR_SILENT):
            refused()
    assert len(fake_robot.received) == 2 and fake_robot.seeds == [0]


def test_an_applied_action_says_when_it_left_and_whether_anybody_asked_for_it(loop, fake_robot):
    fake_robot.now_ns = lambda: 5_000 + len(fake_robot.received)  # one later once it has moved
    tick = begin(loop, 0)
    held = loop.apply(tick)
    offer(loop, tick.stamp_ns)
    asked = loop.apply(tick)
    assert (held.applied_ns, asked.applied_ns) == (5_000, 5_001), "read before the arm moves"
    assert (held.held, asked.held) == (True, False)


def test_capture_and_application_are_at_the_tick_unless_somebody_knows_better():
    tick = Tick(7, 0, {}, np.zeros(2))
    assert tick.state_stamp_ns == 7
    assert Tick(7, 0, {}, np.zeros(2), state_stamp_ns=0).state_stamp_ns == 0
    applied = AppliedAction(7, np.zeros(4), np.zeros(4), POLICY)
    assert applied.applied_ns == 7


def test_one_answer_in_time_ends_the_count_of_silence(loop, fake_robot):
    begin(loop, 0)
    for tick_number in range(12):
        tick = now(fake_robot)
        if tick_number % 3 == 2:
            offer(loop, tick.stamp_ns)
        loop.apply(tick)
    assert not loop.stopped and loop.counts.held == 8 and loop.counts.ticks == 12


def test_rearm_is_needed_after_a_stop_and_forgets_old_commands(loop, fake_robot):
    tick = begin(loop, 0)
    offer(loop, tick.stamp_ns)
    loop.stop(OPERATOR)
    loop.rearm()
    assert not loop.stopped
    applied = loop.apply(tick)  # the command from before the stop must not move the arm
    assert applied.source == HOLD and not np.any(fake_robot.received)


def test_silence_is_counted_anew_after_rearm(loop, fake_robot):
    begin(loop, 0)
    for _ in range(3):
        loop.apply(now(fake_robot))
    loop.rearm()
    loop.apply(now(fake_robot))
    assert not loop.stopped


def test_the_first_reason_is_kept_and_every_stop_reaches_the_driver(loop, fake_robot):
    begin(loop, 0)
    loop.stop(ROBOT_FAULT)
    loop.stop(OPERATOR)
    assert loop.stop_reason == ROBOT_FAULT and fake_robot.stops == 2


@pytest.mark.parametrize("shift", [-1, 1, 10**12])
def test_stale_and_future_commands_never_reach_the_driver(loop, fake_robot, shift):
    tick = begin(loop, 0)
    offer(loop, tick.stamp_ns + shift)
    assert loop.apply(tick).source == HOLD
    offer(loop, now(fake_robot).stamp_ns)  # one bad stamp does not jam the source for ever
    assert loop.apply(now(fake_robot)).source == POLICY
    assert not fake_robot.received[0].any() and fake_robot.received[1].any()


def test_an_answer_that_comes_after_the_next_one_never_reaches_the_driver(loop, fake_robot):
    first = begin(loop, 0)
    loop.apply(first)
    second = now(fake_robot)
    offer(loop, second.stamp_ns, 0.2)
    assert not offer(loop, first.stamp_ns, -0.9)
    assert (loop.apply(second).action == 0.2).all()


def test_human_beats_policy_and_the_intervention_is_marked_and_counted(loop, fake_robot):
    tick = begin(loop, 0)
    offer(loop, tick.stamp_ns, 0.2, HUMAN)
    offer(loop, tick.stamp_ns, -0.2, POLICY)
    applied = loop.apply(tick)
    assert applied.source == HUMAN and applied.intervention
    assert (fake_robot.received[0] == 0.2).all()
    tick = now(fake_robot)
    offer(loop, tick.stamp_ns, -0.2, POLICY)
    assert not loop.apply(tick).intervention
    assert loop.counts.interventions == 1


@pytest.mark.parametrize(
    ("action", "position", "reason"),
    [
        (np.array([1.0, 1.0, 1.0, 1.0]), np.zeros(3), STEP),
        (np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.95, 0.0, 0.0]), WORKSPACE),
        (np.array([np.nan, 0.0, 0.0, 1.0]), np.zeros(3), NOT_FINITE),
        (np.zeros(7), np.zeros(3), SHAPE),
        (np.zeros((4, 1)), np.zeros(3), SHAPE),
        (np.float64(0.5), np.zeros(3), SHAPE),
    ],
)
def test_the_limiter_is_in_the_only_path_to_the_driver(loop, fake_robot, action, position, reason):
    tick = begin(loop, 0)
    fake_robot.position = position
    loop.offer(Command(tick.stamp_ns, action, POLICY))
    applied = loop.apply(tick)
    assert applied.reasons == (reason,) and applied.limited and loop.counts.limited == 1
    assert np.array_equal(fake_robot.received[0], applied.action)
    assert applied.requested.shape == (4,)
    if action.shape == (4,):
        assert np.array_equal(applied.requested, action, equal_nan=True)
    else:
        assert np.isnan(applied.requested).all()


def test_an_actor_that_sends_rubbish_is_not_silent_but_never_moves_the_arm(loop, fake_robot):
    begin(loop, 0)
    for _ in range(6):
        offer(loop, now(fake_robot).stamp_ns, np.nan)
        loop.apply(now(fake_robot))
    assert not np.any(fake_robot.received) and loop.counts.limited == 6


def test_reset_forgets_commands_counts_and_silence(loop, fake_robot):
    tick = begin(loop, 0)
    loop.apply(tick)
    loop.apply(now(fake_robot))
    offer(loop, tick.stamp_ns, 0.3)
    tick = begin(loop, 1)  # same stamps again: the old answer must not count
    assert loop.counts.ticks == 0 and fake_robot.seeds == [0, 1]
    offered = len(fake_robot.received)
    assert loop.apply(tick).source == HOLD and not loop.stopped
    assert not fake_robot.received[offered].any()
