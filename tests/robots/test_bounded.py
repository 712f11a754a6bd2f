"""Calls that may never return."""

from __future__ import annotations

import threading
import time

import pytest

from ofrl_robot.errors import RobotError
from ofrl_robot.robots.bounded import BoundedCalls


@pytest.fixture
def hang():
    """A call that returns 'late' when ``release`` is set."""
    release = threading.Event()
    yield release
    release.set()


def late(release):
    release.wait(10.0)
    return "late"


def test_it_returns_what_the_call_returns_and_raises_what_it_raises():
    calls = BoundedCalls("the service")
    assert calls.call(lambda: 3, 1.0) == 3
    with pytest.raises(KeyError, match="here"):
        calls.call(lambda: {}["here"], 1.0)
    assert calls.call(lambda: None, 1.0) is None


def test_a_call_that_hangs_is_given_up_and_the_next_refused_at_once(hang):
    calls, asked = BoundedCalls("the service"), []
    with pytest.raises(RobotError, match="the service did not answer within 0.05 s"):
        calls.call(lambda: late(hang), 0.05)
    begun = time.monotonic()
    with pytest.raises(RobotError, match="still has not answered"):
        calls.call(lambda: asked.append(1), 1.0)
    assert time.monotonic() - begun < 0.05 and asked == [] and calls.hangs


def test_once_it_has_returned_calls_go_on_and_its_answer_is_lost(hang):
    calls = BoundedCalls("the service")
    with pytest.raises(RobotError):
        calls.call(lambda: late(hang), 0.02)
    hang.set()
    deadline = time.monotonic() + 2.0
    while calls.hangs and time.monotonic() < deadline:
        time.sleep(0.005)
    assert calls.call(lambda: "new", 1.0) == "new"


def test_a_call_that_hangs_can_be_forgotten(hang):
    calls = BoundedCalls("the service")
    with pytest.raises(RobotError):
        calls.call(lambda: late(hang), 0.02)
    calls.forget()
    assert not calls.hangs and calls.call(lambda: "new", 1.0) == "new"


def test_a_call_that_ends_the_process_is_an_error():
    def leave():
        raise SystemExit(1)

    with pytest.raises(RobotError, match=r"SystemExit\(1\)"):
        BoundedCalls("the client").call(leave, 1.0)


def test_two_threads_take_turns(hang):
    calls = BoundedCalls("the service")
    thread = threading.Thread(target=lambda: calls.call(lambda: late(hang), 5.0))
    thread.start()
    time.sleep(0.02)
    with pytest.raises(RobotError, match="busy"):
        calls.call(lambda: 1, 0.05)
    hang.set()
    thread.join(2.0)
    assert calls.call(lambda: 1, 1.0) == 1
