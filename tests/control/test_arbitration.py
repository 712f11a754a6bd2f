"""Who commands a tick: human over policy, and only an answer to that very tick."""

from __future__ import annotations

import numpy as np
import pytest

from ofrl_robot.control.arbitration import Arbiter
from ofrl_robot.control.signals import HUMAN, POLICY, Command


def command(stamp, source=POLICY, value=0.5):
    return Command(stamp, np.full(4, value), source)


@pytest.mark.parametrize("order", [(HUMAN, POLICY), (POLICY, HUMAN)])
def test_human_beats_policy_in_either_order_of_arrival(order):
    arbiter = Arbiter()
    for source in order:
        assert arbiter.offer(command(5, source))
    chosen, intervention = arbiter.choose(5)
    assert chosen.source == HUMAN and intervention


@pytest.mark.parametrize("source", [HUMAN, POLICY])
def test_one_source_alone_is_no_intervention(source):
    arbiter = Arbiter()
    arbiter.offer(command(5, source))
    chosen, intervention = arbiter.choose(5)
    assert chosen.source == source and not intervention


def test_a_stale_human_does_not_block_the_policy():
    arbiter = Arbiter()
    arbiter.offer(command(4, HUMAN))
    arbiter.offer(command(5, POLICY))
    chosen, intervention = arbiter.choose(5)
    assert chosen.source == POLICY and not intervention


@pytest.mark.parametrize("stamp", [4, 6])
def test_an_answer_to_another_tick_is_never_chosen(stamp):
    arbiter = Arbiter()
    arbiter.offer(command(stamp))
    assert arbiter.choose(5) == (None, False)


def test_out_of_order_is_refused_and_the_newer_kept():
    arbiter = Arbiter()
    assert arbiter.offer(command(6, value=0.1))
    assert not arbiter.offer(command(5, value=0.9))
    assert arbiter.choose(6)[0].action[0] == 0.1


def test_a_correction_of_the_same_tick_replaces_the_first_answer():
    arbiter = Arbiter()
    arbiter.offer(command(5, value=0.1))
    assert arbiter.offer(command(5, value=0.2))
    assert arbiter.choose(5)[0].action[0] == 0.2


def test_one_command_from_the_future_neither_waits_for_its_tick_nor_jams_its_source():
    """A clock that jumped once must not silence an actor, nor act unseen later on."""
    arbiter = Arbiter()
    arbiter.offer(command(7, value=0.9))
    assert arbiter.choose(5) == (None, False)
    assert arbiter.offer(command(6, value=0.1))
    assert arbiter.choose(6)[0].action[0] == 0.1
    assert arbiter.choose(7) == (None, False)


def test_an_unknown_source_is_refused():
    arbiter = Arbiter()
    assert not arbiter.offer(command(5, "ghost"))
    assert arbiter.choose(5) == (None, False)


def test_clear_forgets_everything():
    arbiter = Arbiter()
    arbiter.offer(command(5, HUMAN))
    arbiter.offer(command(9, POLICY))
    arbiter.clear()
    assert arbiter.choose(5) == (None, False)
    assert arbiter.offer(command(1, POLICY))  # no order left to be out of
