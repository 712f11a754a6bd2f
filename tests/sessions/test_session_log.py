"""What nodes note, and what whoever started them makes of it."""

from __future__ import annotations

import pytest

from ofrl_robot.sessions import session_log


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv(session_log.FILE_VARIABLE, str(path))
    return path


def test_what_is_noted_is_read(file):
    assert session_log.note(asked=3)
    session_log.note(saved=2, aborted=1)
    session_log.note(error="robot: fell over")
    session_log.note(error="episode: the robot node ended")
    session_log.note(ended=True)
    with file.open("a") as stream:
        stream.write('{"saved": 3')  # of a node that was killed
    outcome = session_log.read(file)
    errors = ["robot: fell over", "episode: the robot node ended"]
    assert outcome == session_log.Outcome(3, 2, 1, True, errors)
    assert outcome.line() == "2 of 3 episodes saved, 1 more aborted: robot: fell over"


def test_nobody_reads(monkeypatch, file):
    file.unlink()
    assert not session_log.note(asked=3) and not file.exists()
    monkeypatch.delenv(session_log.FILE_VARIABLE)
    assert not session_log.note(asked=3)


@pytest.mark.parametrize(
    ("notes", "complete", "line"),
    [
        ({}, False, "the session ended before it began"),
        ({"errors": ["robot: no"]}, False, "robot: no"),
        ({"asked": 3, "saved": 3, "ended": True}, True, "3 of 3 episodes saved"),
        ({"asked": 3, "saved": 3}, False, "3 of 3 episodes saved: the recorder was killed"),
        (
            {"asked": 3, "saved": 2, "aborted": 1, "ended": True},
            False,
            "2 of 3 episodes saved, 1 more aborted",
        ),
        # one that a stop cut short was run again
        ({"asked": 3, "saved": 3, "aborted": 1, "ended": True}, True, ""),
    ],
)
def test_only_a_session_that_saved_everything_is_complete(notes, complete, line):
    outcome = session_log.Outcome(**notes)
    assert outcome.complete == complete
    assert complete or outcome.line() == line
