"""Pacing on a simulated clock: no drift, no burst after a hold-up."""

from __future__ import annotations

import pytest

from ofrl_robot.control.pacing import Pacer


def run(delays, period=0.1, start=50.0):
    """Times of the ticks when the work before tick i takes ``delays[i]`` seconds."""
    pacer, now, times = Pacer(period), start, []
    pacer.start(now)
    for delay in delays:
        now += delay
        now += pacer.wait(now)
        pacer.tick(now)
        times.append(now - start)
    return pacer, times


def test_quick_work_keeps_the_period_without_drift():
    pacer, times = run([0.03, 0.07, 0.0, 0.0999] * 100)
    assert times == pytest.approx([0.1 * (i + 1) for i in range(400)])
    assert (pacer.ticks, pacer.late) == (400, 0)


def test_a_tick_that_is_a_little_late_does_not_shift_the_next_ones():
    pacer, times = run([0.0, 0.104, 0.0, 0.0])
    assert times == pytest.approx([0.1, 0.204, 0.3, 0.4])
    assert pacer.late == 0


def test_an_overrun_starts_the_grid_anew_and_nothing_is_caught_up_in_a_burst():
    pacer, times = run([0.0, 0.57, 0.0, 0.0])
    assert times == pytest.approx([0.1, 0.67, 0.77, 0.87]), "each tick has a whole period"
    assert pacer.late == 1 and pacer.ticks == 4


def test_a_long_step_puts_off_the_next_tick_only():
    pacer = Pacer(0.1)
    pacer.start(1.0)
    pacer.extend(1.3)
    assert pacer.due == 1.3
    assert pacer.tick(1.3) == 0.0 and pacer.due == pytest.approx(1.4)
    pacer.extend(1.2)
    assert pacer.due == pytest.approx(1.4)


def test_lateness_is_told_and_waiting_is_never_negative():
    pacer = Pacer(0.1)
    pacer.start(1.0)
    assert pacer.wait(1.04) == pytest.approx(0.06)
    assert pacer.wait(3.0) == 0.0
    assert pacer.tick(1.13) == pytest.approx(0.03)
    assert pacer.tick(1.15) == 0.0  # early is not late
