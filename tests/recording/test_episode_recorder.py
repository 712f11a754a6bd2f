"""EpisodeRecorder gives the same episode in whatever order ticks and applied actions arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofrl_robot.control.signals import HUMAN, AppliedAction, Tick
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import SUCCESS, UNKNOWN, EpisodeMeta, episode_paths
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import CameraStoppedError
from ofrl_robot.recording.episode_recorder import PENDING, Dropped, EpisodeRecorder, Written
from tests.conftest import ACTION, PERIOD_NS, observation_spec

STEPS = 5
FOLDERS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tick(step, last_step=STEPS):
    return Tick(
        stamp_ns=(step + 1) * PERIOD_NS,
        step=step,
        images={"front": np.full((4, 4, 3), step, np.uint8)},
        state=np.array([step, -step], float),
        reward=0.1 * step,
        terminated=step == last_step,
    )


def applied(step):
    action = np.full(ACTION.size, step / 100)
    stamp = (step + 1) * PERIOD_NS
    return AppliedAction(stamp, action, 2 * action, HUMAN, applied_ns=stamp + step)


TICKS = [tick(step) for step in range(STEPS + 1)]
ANSWERS = [applied(step) for step in range(STEPS)]


@pytest.fixture
def new_recorder(tmp_path):
    """Function that begins an episode in ``tmp_path``."""
    meta = EpisodeMeta("fake", "nothing", ACTION, observation_spec(4), 5.0)

    def make(steps=None):
        return EpisodeRecorder(EpisodeWriter(tmp_path, meta), steps)

    return make


def feed(recorder, *messages):
    for message in messages:
        if isinstance(message, Tick):
            recorder.take_tick(message)
        else:
            recorder.take_applied(message)
    return recorder


def require_whole(recorder):
    """Finish the episode, and compare it with ``TICKS`` and ``ANSWERS``."""
    assert recorder.complete and recorder.missing() == "" and recorder.steps == STEPS
    assert recorder.last_tick.step == STEPS
    result = recorder.finish(SUCCESS, "test")
    assert isinstance(result, Written) and (result.success, result.steps) == (SUCCESS, STEPS)
    episode = read_episode(result.path)
    assert len(episode) == STEPS
    assert episode.images["front"][:, 0, 0, 0].tolist() == list(range(STEPS + 1))
    assert np.array_equal(episode.state, [t.state for t in TICKS])
    assert np.array_equal(episode.actions, np.array([a.action for a in ANSWERS], np.float32))
    assert episode.rewards.tolist() == [t.reward for t in TICKS[1:]]
    assert episode.timestamps["applied"].tolist() == [a.applied_ns for a in ANSWERS]
    assert episode.terminals.tolist() == [False] * (STEPS - 1) + [True]


@pytest.mark.slow
@FOLDERS
@given(ticks_first=st.permutations([True] * len(TICKS) + [False] * len(ANSWERS)))
def test_two_streams_may_be_interleaved_in_any_way(new_recorder, ticks_first):
    ticks, answers = iter(TICKS), iter(ANSWERS)
    require_whole(feed(new_recorder(), *(next(ticks if t else answers) for t in ticks_first)))


@pytest.mark.slow
@FOLDERS
@given(messages=st.permutations(TICKS + ANSWERS))
def test_messages_may_arrive_in_any_order(new_recorder, messages):
    require_whole(feed(new_recorder(), *messages))


@pytest.mark.slow
@FOLDERS
@given(
    messages=st.permutations(TICKS + ANSWERS),
    repeats=st.lists(st.sampled_from(TICKS + ANSWERS), max_size=10),
    data=st.data(),
)
def test_repeated_messages_change_nothing(new_recorder, messages, repeats, data):
    messages = list(messages)
    for message in repeats:
        messages.insert(data.draw(st.integers(0, len(messages))), message)
    require_whole(feed(new_recorder(), *messages))


@pytest.mark.parametrize("steps", [1, 3, STEPS])
def test_an_episode_of_known_length_is_complete_there(new_recorder, steps):
    recorder = feed(new_recorder(steps), *TICKS[:steps], *ANSWERS)
    assert not recorder.complete
    feed(recorder, *TICKS[steps:], *ANSWERS)
    assert recorder.complete and recorder.missing() == ""
    written = recorder.finish(UNKNOWN, "")
    assert written.steps == steps
    assert len(read_episode(written.path)) == steps


def test_the_last_tick_does_not_end_an_episode_of_another_known_length(new_recorder):
    recorder = feed(new_recorder(STEPS + 1), *TICKS, *ANSWERS)
    assert not recorder.complete
    feed(recorder, tick(STEPS + 1), applied(STEPS))
    assert recorder.complete and recorder.steps == STEPS + 1


def test_a_tick_after_the_end_is_ignored(new_recorder):
    recorder = feed(new_recorder(), *TICKS, *ANSWERS, applied(STEPS), tick(STEPS + 1))
    require_whole(recorder)


def test_nothing_is_complete_before_the_first_tick(new_recorder):
    for steps in (None, 0, 1):
        recorder = feed(new_recorder(steps), applied(0))
        assert not recorder.complete and recorder.steps == 0 and recorder.last_tick is None


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], ""),
        ([applied(0)], ""),
        ([tick(0)], ""),
        ([tick(1)], "tick 0 or an image of it is missing"),
        ([tick(0), applied(0)], ""),
        ([tick(0), tick(1)], "the action applied to tick 0 is missing"),
        ([tick(0), applied(0), tick(2)], "tick 1 or an image of it is missing"),
        ([tick(0), tick(2)], "the action applied to tick 0 is missing"),
        ([tick(0), applied(0), tick(1), applied(2), tick(2)],
         "the action applied to tick 1 is missing"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(new_recorder, messages, text):
    assert feed(new_recorder(), *messages).missing() == text


def test_dropped_and_discarded_episodes_leave_nothing(new_recorder, tmp_path):
    recorder = feed(new_recorder(), *TICKS, *ANSWERS)
    assert recorder.drop("no longer wanted") == Dropped("no longer wanted")
    feed(new_recorder(), *TICKS[:3], *ANSWERS).discard()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_episode_cannot_be_discarded(new_recorder, tmp_path):
    recorder = feed(new_recorder(), *TICKS, *ANSWERS)
    written = recorder.finish(SUCCESS, "test")
    recorder.discard()
    assert [written.path] == episode_paths(tmp_path) == list(tmp_path.iterdir())


@pytest.mark.parametrize("messages", [[], [tick(0)], [tick(0), applied(0)], [tick(1), applied(0)]])
def test_an_episode_without_a_transition_is_dropped(new_recorder, tmp_path, messages):
    recorder = feed(new_recorder(), *messages)
    assert recorder.finish(UNKNOWN, "") == Dropped("it has no transition")
    assert list(tmp_path.iterdir()) == []
    recorder = feed(new_recorder(), *messages)
    assert recorder.finish(UNKNOWN, "", "camera front stopped") == Dropped("camera front stopped")


def test_what_was_written_is_kept_when_a_camera_stops(new_recorder):
    recorder = feed(new_recorder(), *TICKS[:3], *ANSWERS)
    without = tick(3)
    without.images.clear()
    with pytest.raises(CameraStoppedError, match="front"):
        recorder.take_tick(without)
    written = recorder.finish(UNKNOWN, "", "camera front stopped")
    assert written.steps == 2 and len(read_episode(written.path)) == 2


def test_waiting_ticks_are_bounded(new_recorder):
    recorder = feed(new_recorder(), *(tick(step, 1000) for step in range(1, PENDING + 1)))
    assert not recorder.overdue
    assert feed(recorder, tick(PENDING + 1, 1000)).overdue
    assert recorder.missing() == "tick 0 or an image of it is missing"


def test_of_waiting_actions_the_newest_are_kept(new_recorder):
    """Old ones are answers to ticks that were lost, such as those of an episode before."""
    answers = [applied(step) for step in range(PENDING + STEPS)]
    recorder = feed(new_recorder(STEPS), *answers)
    assert len(recorder._applied) == PENDING
    feed(recorder, tick(0), tick(1))
    assert recorder.missing() == "the action applied to tick 0 is missing"
