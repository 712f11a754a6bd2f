"""The control loop, judged by what reached the driver."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ofrl_robot.control.limiter import NO_IK, NOT_FINITE, RESYNC, SHAPE, STEP, WORKSPACE
from ofrl_robot.control.loop import ControlLoop
from ofrl_robot.control.signals import HOLD, HUMAN, POLICY, AppliedAction, Command, Sent, Tick
from ofrl_robot.control.stops import Fault, StopReason
from ofrl_robot.control.timing import Timing
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
    assert loop.stop_reason == StopReason.ACTOR_SILENT and fake_robot.stops == 1
    assert len(fake_robot.received) == 2  # the third silent tick stops, it does not hold
    assert not np.any(fake_robot.received)

    tick = now(fake_robot)
    offer(loop, tick.stamp_ns)
    for refused in (lambda: loop.apply(tick), lambda: loop.begin()):
        with pytest.raises(RobotError, match=StopReason.ACTOR_SILENT):
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
    loop.stop(StopReason.OPERATOR)
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
    loop.stop(StopReason.ROBOT_FAULT)
    loop.stop(StopReason.OPERATOR)
    assert loop.stop_reason == StopReason.ROBOT_FAULT and fake_robot.stops == 2


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
    loop.offer(Command(tick.stamp_ns, np.zeros(0), HUMAN))  # he hands back
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


def test_an_actor_that_sends_rubbish_counts_as_silent(loop, fake_robot):
    """Measured before: NaN for ever never stopped the arm."""
    begin(loop, 0)
    for _ in range(3):
        offer(loop, now(fake_robot).stamp_ns, np.nan)
        applied = loop.apply(now(fake_robot))
        assert applied.held and applied.reasons == (NOT_FINITE,)
        assert np.isnan(applied.requested).all()
    assert not np.any(fake_robot.received) and loop.counts.held == 3
    assert loop.stop_reason == StopReason.ACTOR_SILENT


def test_a_stop_during_a_call_of_the_driver_has_the_last_word(loop, fake_robot):
    """The service answers at once, and what the driver sent in between is stopped again."""
    tick = begin(loop, 0)
    offer(loop, tick.stamp_ns)
    inside, go_on = threading.Event(), threading.Event()
    command = fake_robot.command

    def blocking(setpoint):
        inside.set()
        assert go_on.wait(10)
        return command(setpoint)

    fake_robot.command = blocking
    thread = threading.Thread(target=loop.apply, args=(tick,))
    thread.start()
    assert inside.wait(10)
    loop.stop(StopReason.OPERATOR)
    assert fake_robot.stops == 1 and not fake_robot.received, "it does not wait for the driver"
    go_on.set()
    thread.join(10)
    assert fake_robot.stops == 2 and loop.stop_reason == StopReason.OPERATOR


def test_a_setpoint_that_the_driver_refuses_is_recorded_as_no_motion(loop, fake_robot):
    tick = begin(loop, 0)
    offer(loop, tick.stamp_ns, 0.2)
    fake_robot.command = lambda setpoint: Sent(refused=NO_IK)
    applied = loop.apply(tick)
    assert applied.reasons == (NO_IK,) and not applied.action.any()
    assert (applied.requested == 0.2).all() and applied.source == POLICY


def test_a_hold_tells_a_sagging_arm_its_target_and_not_where_it_sags(fake_robot):
    fake_robot.relative_to_target, fake_robot.horizon = True, 1000
    loop, targets = ControlLoop(fake_robot, max_silence=100.0), []
    command = fake_robot.command

    def sagging(setpoint):
        targets.append(setpoint.position)
        fake_robot.position = setpoint.position - [0, 0, 0.01]
        return command(setpoint)

    fake_robot.command = sagging
    tick = begin(loop)
    offer(loop, tick.stamp_ns, 0.5)
    loop.apply(tick)
    for _ in range(5):
        loop.apply(now(fake_robot))
    assert np.allclose(targets, [0.05, 0.05, 0.05])


def test_an_arm_that_was_pushed_away_starts_where_it_is(fake_robot):
    fake_robot.relative_to_target, fake_robot.horizon = True, 1000
    loop = ControlLoop(fake_robot)
    tick = begin(loop)
    offer(loop, tick.stamp_ns, 0.1)
    loop.apply(tick)
    fake_robot.position = np.array([0.5, 0.0, 0.0])
    sent = []
    fake_robot.command = lambda setpoint: sent.append(setpoint.position) or Sent()
    tick = now(fake_robot)
    offer(loop, tick.stamp_ns + 1, 0.1)
    applied = loop.apply(Tick(tick.stamp_ns + 1, 1, {}, np.zeros(2)))
    assert applied.reasons == (RESYNC,)
    assert np.allclose(sent, [[0.51, 0.01, 0.01]])


@pytest.mark.parametrize("forget", [ControlLoop.rearm, ControlLoop.begin, ControlLoop.resume])
def test_targets_come_from_measurement_after_a_rearm_a_reset_and_a_pause(fake_robot, forget):
    fake_robot.relative_to_target, fake_robot.horizon = True, 1000
    loop = ControlLoop(fake_robot)
    tick = begin(loop)
    offer(loop, tick.stamp_ns, 0.5)
    loop.apply(tick)  # its target is 0.05 away from where this robot stays
    forget(loop)
    sent = []
    fake_robot.command = lambda setpoint: sent.append(setpoint.position) or Sent()
    loop.apply(now(fake_robot))
    assert np.allclose(sent, [[0.0, 0.0, 0.0]]), "nothing jumps"


def test_a_measured_state_that_cannot_be_right_stops_the_arm(fake_robot):
    fake_robot.joint_names = ("elbow",)
    loop = ControlLoop(fake_robot)
    tick = begin(loop)
    offer(loop, tick.stamp_ns)
    applied = loop.apply(tick)
    assert loop.fault == Fault(StopReason.STATE_INVALID, "elbow missing")
    assert fake_robot.received == [] and fake_robot.stops == 1 and applied.stamp_ns == tick.stamp_ns


def test_a_driver_that_cannot_be_made_ready_stays_stopped(loop, fake_robot):
    begin(loop, 0)
    loop.stop(StopReason.MOTOR_ERROR)

    def rearm():
        raise RobotError("the shoulder is overloaded")

    fake_robot.rearm = rearm
    with pytest.raises(RobotError, match="overloaded"):
        loop.rearm()
    assert loop.stop_reason == StopReason.MOTOR_ERROR


def test_an_action_that_leaves_after_the_latency_is_marked_late(loop, fake_robot):
    for delay, late in ((20_000_000, False), (20_000_001, True)):
        tick = begin(loop, 0)
        offer(loop, tick.stamp_ns)
        fake_robot.now_ns = lambda stamp=tick.stamp_ns + delay: stamp
        applied = loop.apply(tick, latency=0.02)
        assert applied.late == late and loop.counts.late == late
        del fake_robot.now_ns


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


@pytest.mark.parametrize(
    ("rate", "given", "expected"), [(24.0, None, 0.2), (5.0, None, 0.4), (5.0, 0.2, 0.2)]
)
def test_one_late_answer_does_not_stop_a_slow_arm_unless_asked_for(
    fake_robot, rate, given, expected
):
    fake_robot.control_rate_hz, fake_robot.timing = rate, Timing(max_silence=0.2)
    assert ControlLoop(fake_robot, given).max_silence == pytest.approx(expected)
