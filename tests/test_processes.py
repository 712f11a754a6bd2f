"""Work in child processes that crash, hang or raise costs its own item and no other."""

import os
import signal
import time

import pytest

from ofrl_robot.processes import Lost, watched_map

_done = []


def work(item):
    _done.append(item)
    if item == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "dies after another" and len(_done) > 1:
        os.abort()
    if item == "hangs":
        time.sleep(600)
    if item == "raises":
        raise ValueError("bad item")
    return item.upper()


@pytest.mark.slow
def test_an_item_that_kills_its_process_costs_no_other():
    items = ["a", "dies", "hangs", "b", "raises", "c"]
    seconds = {"hangs": 1.0}
    found = dict(watched_map(work, items, lambda item: seconds.get(item, 60.0), workers=2))
    assert sorted(found) == list(range(len(items)))
    lost = {items[k]: v.reason for k, v in found.items() if isinstance(v, Lost)}
    assert sorted(lost) == ["dies", "hangs", "raises"]
    assert "SIGSEGV" in lost["dies"] and "within 1 s" in lost["hangs"]
    assert lost["raises"] == "ValueError: bad item"
    assert [found[k] for k in (0, 3, 5)] == ["A", "B", "C"]


@pytest.mark.slow
def test_what_an_item_before_it_did_to_the_process_is_not_its_fault():
    items = ["a", "dies after another", "c"]
    found = dict(watched_map(work, items, lambda item: 60.0, workers=1))
    assert found == {0: "A", 1: "DIES AFTER ANOTHER", 2: "C"}


def test_nothing_to_do_starts_nothing():
    assert list(watched_map(work, [], lambda item: 1.0, workers=4)) == []


def process_of(item):
    return os.getpid()


def test_ending_early_leaves_no_process():
    results = watched_map(process_of, [0, 1, 2], lambda item: 60.0, workers=1)
    _, pid = next(results)
    os.kill(pid, 0)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
