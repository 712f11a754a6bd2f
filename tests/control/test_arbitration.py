"""Who commands a tick: human over policy, and only an answer to that very tick."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.control.arbitration import Arbiter
from ofrl_robot.control.signals import HUMAN, POLICY, Command

NOBODY = (None, False, False)


def command(stamp, source=POLICY, value=0.5):
    return Command(stamp, np.full(4, value), source)


def hand_back(stamp):
    return Command(stamp, np.zeros(0), HUMAN)


@pytest.mark.parametrize("order", [(HUMAN, POLICY), (POLICY, HUMAN)])
def test_human_beats_policy_in_either_order_of_arrival(order):
    arbiter = Arbiter()
    for source in order:
        assert arbiter.offer(command(5, source))
    chosen, intervention, _ = arbiter.choose(5)
    assert chosen.source == HUMAN and intervention


@pytest.mark.parametrize("source", [HUMAN, POLICY])
def test_one_source_alone_is_no_intervention(source):
    arbiter = Arbiter()
    arbiter.offer(command(5, source))
    chosen, intervention, _ = arbiter.choose(5)
    assert chosen.source == source and not intervention


def test_a_human_who_is_late_gets_a_hold_and_never_the_policy():
    """Measured before: a human 50 ms late was ignored at every tick, and the policy drove on."""
    arbiter = Arbiter()
    for tick in range(5, 10):
        arbiter.offer(command(tick - 1, HUMAN))
        arbiter.offer(command(tick, POLICY))
        assert arbiter.choose(tick) == (None, True, False)


def test_a_human_keeps_the_arm_until_he_hands_it_back():
    arbiter = Arbiter()
    arbiter.offer(command(1, POLICY))
    assert arbiter.choose(1).command.source == POLICY
    arbiter.offer(command(2, HUMAN))
    arbiter.offer(command(2, POLICY))
    assert arbiter.choose(2).command.source == HUMAN
    arbiter.offer(command(3, POLICY))  # no answer of the human
    assert arbiter.choose(3) == (None, True, False)
    arbiter.offer(hand_back(4))
    arbiter.offer(command(4, POLICY))
    assert arbiter.choose(4).command.source == POLICY and not arbiter.human_has_arm


def test_a_human_alone_who_lets_go_is_there_and_holds():
    arbiter = Arbiter([HUMAN])
    arbiter.offer(hand_back(1))
    assert arbiter.choose(1) == (None, False, True)


def test_a_tick_is_answered_when_everybody_has_said_what_he_wants():
    arbiter = Arbiter(awaited=[HUMAN, POLICY])
    arbiter.offer(command(1, POLICY))
    assert not arbiter.answered(1), "the human may take over"
    arbiter.offer(hand_back(1))
    assert arbiter.answered(1)
    arbiter.offer(command(2, HUMAN))
    assert arbiter.answered(2), "nobody ranks above a human"


def test_a_source_that_has_spoken_is_awaited():
    arbiter = Arbiter()
    arbiter.offer(command(1, POLICY))
    assert arbiter.answered(1)
    arbiter.offer(hand_back(1))
    arbiter.offer(command(2, POLICY))
    assert not arbiter.answered(2)


def test_a_source_that_may_not_command_is_refused():
    """A policy node in the same namespace must not act in a collection."""
    arbiter = Arbiter([HUMAN])
    assert not arbiter.offer(command(1, POLICY))
    assert arbiter.choose(1) == NOBODY


@pytest.mark.parametrize("stamp", [4, 6])
def test_an_answer_to_another_tick_is_never_chosen(stamp):
    arbiter = Arbiter()
    arbiter.offer(command(stamp))
    assert arbiter.choose(5) == NOBODY


def test_out_of_order_is_refused_and_the_newer_kept():
    arbiter = Arbiter()
    assert arbiter.offer(command(6, value=0.1))
    assert not arbiter.offer(command(5, value=0.9))
    assert arbiter.choose(6)[0].action[0] == 0.1


def test_a_second_answer_to_a_tick_is_refused():
    """Measured before: a repeated, negated answer won at 20 of 20 steps."""
    arbiter = Arbiter()
    arbiter.offer(command(5, value=0.1))
    assert not arbiter.offer(command(5, value=-0.1))
    assert arbiter.choose(5)[0].action[0] == 0.1


def test_one_command_from_the_future_neither_waits_for_its_tick_nor_jams_its_source():
    """A clock that jumped once must not silence an actor, nor act unseen later on."""
    arbiter = Arbiter()
    arbiter.offer(command(7, value=0.9))
    assert arbiter.choose(5) == NOBODY
    assert arbiter.offer(command(6, value=0.1))
    assert arbiter.choose(6)[0].action[0] == 0.1
    assert arbiter.choose(7) == NOBODY


def test_an_unknown_source_is_refused():
    arbiter = Arbiter()
    assert not arbiter.offer(command(5, "ghost"))
    assert arbiter.choose(5) == NOBODY


def test_clear_forgets_everything():
    arbiter = Arbiter()
    arbiter.offer(command(5, HUMAN))
    arbiter.offer(command(9, POLICY))
    arbiter.clear()
    assert arbiter.choose(5) == NOBODY
    assert arbiter.offer(command(1, POLICY))  # no order left to be out of
