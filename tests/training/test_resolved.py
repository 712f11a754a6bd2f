"""What "auto" and 0 came to is written beside a run and compared when it goes on."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from ofrl_robot.training import loop
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.resolved import Resolved, changes, read_resolved, take_threads
from tests.training.small_run import StopAt, config, stopped

THEN = Resolved("bf16", 2, "cpu")


@pytest.fixture(autouse=True)
def threads():
    """Give back the number of threads that the process had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_run_writes_what_it_computes_with(make_dataset, tmp_path):
    folder = loop.train(config(make_dataset(), "bc"), tmp_path / "run")
    assert read_resolved(folder) == Resolved("fp32", 1, "cpu")


def test_a_run_that_goes_on_elsewhere_says_so_in_one_line(make_dataset, tmp_path):
    chosen = config(make_dataset(), "bc")
    folder = stopped(chosen, tmp_path / "run")
    (folder / "resolved.json").write_text(json.dumps(dataclasses.asdict(THEN)))
    display = StopAt()
    loop.train(chosen, folder, resume=True, display=display)
    (line,) = [line for line in display.said if "numbers differ" in line]
    assert "precision was bf16, now fp32, threads was 2, now 1" in line


def test_open_threads_are_those_that_the_run_began_with(make_dataset, tmp_path):
    """Others would round differently, and it would not go on to the bit."""
    chosen = config(make_dataset(), "bc", threads=0)
    torch.set_num_threads(1)
    folder = stopped(chosen, tmp_path / "run")
    torch.set_num_threads(2)
    assert Learner(chosen).resolved.threads == 2
    display = StopAt()
    loop.train(chosen, folder, resume=True, display=display)
    assert torch.get_num_threads() == 1
    assert not [line for line in display.said if "numbers differ" in line]


def test_threads_that_are_given_or_too_many_are_not_taken():
    torch.set_num_threads(1)
    take_threads(1, THEN)
    take_threads(0, Resolved("fp32", 10**6, "cpu"))
    take_threads(0, None)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("text", ["", "[]", '{"precision": "fp32"}', '{"a": 1}'])
def test_a_run_without_or_with_a_damaged_file_goes_on_silently(text, tmp_path):
    (tmp_path / "resolved.json").write_text(text)
    assert read_resolved(tmp_path) is None and changes(None, THEN) == []
    assert read_resolved(tmp_path / "nowhere") is None
