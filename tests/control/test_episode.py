"""The episode's states: every pair that is not on the list is refused and changes nothing."""

from __future__ import annotations

import itertools

import pytest

from ofrl_robot.control.episode import IDLE, RESETTING, RUNNING, SAVING, EpisodeState
from ofrl_robot.errors import RobotError

ALLOWED = {
    (IDLE, RESETTING), (RESETTING, SAVING), (RESETTING, RUNNING), (RESETTING, IDLE),
    (RUNNING, SAVING), (RUNNING, IDLE), (SAVING, IDLE),
}  # fmt: skip
WAY = {
    IDLE: (), RESETTING: (RESETTING,), RUNNING: (RESETTING, RUNNING),
    SAVING: (RESETTING, RUNNING, SAVING),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), list(itertools.product(WAY, WAY)))
def test_transitions(old, new):
    state = EpisodeState()
    for name in WAY[old]:
        state.to(name)
    if (old, new) in ALLOWED:
        state.to(new)
        assert state.name == new
    else:
        with pytest.raises(RobotError, match=f"{old} cannot become {new}"):
            state.to(new)
        assert state.name == old
