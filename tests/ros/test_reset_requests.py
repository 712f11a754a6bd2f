"""Reset requests between service threads and the control thread."""

from __future__ import annotations

import threading

from ofrl_ros.reset_requests import ResetRequests
from tests.ros.waiting import wait_for


def ask(requests, seed, answers):
    thread = threading.Thread(target=lambda: answers.append((seed, requests.ask(seed))))
    thread.start()
    return thread


def test_the_first_answer_counts_also_when_the_thread_that_asked_wakes_up_late():
    changed = threading.Condition(threading.RLock())
    requests, answers = ResetRequests(changed), []
    thread = ask(requests, 7, answers)
    wait_for(lambda: requests.superseded, "the request")
    with changed:  # the thread that asked cannot wake up before both answers are there
        assert requests.wait(0.0) == 7
        requests.answer(True, "")
        requests.answer(False, "the episode is over")
    thread.join(10)
    assert answers == [(7, (True, ""))]


def test_a_newer_request_takes_the_place_of_one_that_waits():
    changed = threading.Condition(threading.RLock())
    requests, answers = ResetRequests(changed), []
    first = ask(requests, 1, answers)
    wait_for(lambda: requests.superseded, "the first request")
    second = ask(requests, 2, answers)
    first.join(10)
    assert requests.wait(1.0) == 2
    requests.answer(True, "")
    second.join(10)
    assert answers == [(1, (False, "another reset was asked for")), (2, (True, ""))]
