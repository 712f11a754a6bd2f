"""Whether an arm's faults were rehearsed with this very code."""

from __future__ import annotations

import json

import pytest

from ofrl_robot.robots import rehearsed


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def remember(kept=2, code=None):
    results = [{}, {}]
    code = rehearsed.code_fingerprint() if code is None else code
    return rehearsed.remember("arm", dict(code=code, kept=kept, results=results, when="yesterday"))


def test_without_a_rehearsal_somebody_is_told():
    assert "never rehearsed" in rehearsed.complaint("arm")


def test_a_rehearsal_with_this_code_and_nothing_broken_counts():
    remember()
    assert rehearsed.complaint("arm") == "" and rehearsed.complaint("other")


def test_other_code_and_broken_promises_do_not_count():
    remember(code="older")
    assert "changed since" in rehearsed.complaint("arm")
    remember(kept=1)
    assert "1 promises were broken" in rehearsed.complaint("arm")


def test_a_record_that_is_damaged_does_not_count():
    remember().write_text(json.dumps([1]))
    assert rehearsed.complaint("arm")
