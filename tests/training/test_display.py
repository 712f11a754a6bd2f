"""What a log file shows while a run trains."""

from __future__ import annotations

import pytest

from ofrl_robot.training.display import LogLines, Terminal, default_display


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def test_a_log_file_gets_a_line_soon_and_then_one_per_minute(clock, capsys):
    display = LogLines(clock)
    display.start("cql", 100, 8000)
    steps = []
    for step in range(101, 300):
        clock.now += 1.0
        display.losses(step, {"data_q": 1.5, "td_error": 0.25})
        display.progress(step)
        lines = capsys.readouterr().out.splitlines()
        steps += [(clock.now, line) for line in lines]
    assert [now for now, _ in steps] == [10.0, 70.0, 130.0, 190.0]
    assert steps[0][1] == "step    110 of 8000  1.0 steps/s  2 h 11 min left  Q 1.5  TD 0.25"


def test_a_checkpoint_is_a_line_and_postpones_the_next_one(clock, capsys):
    display = LogLines(clock)
    display.start("bc", 0, 400)
    clock.now = 50.0
    display.checkpoint(100, {"data_log_prob": -2.0})
    clock.now = 109.0
    display.progress(101)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "checkpoint    100 of 400  2.0 steps/s  2 min 30 s left  log pi(data) -2"


def test_a_pipe_gets_lines_and_a_terminal_a_bar(monkeypatch):
    assert isinstance(default_display(), LogLines)  # pytest captures the output
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert isinstance(default_display(), Terminal)
