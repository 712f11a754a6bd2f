"""What the recorder makes of what it hears, and of what lies in its folder.

The other nodes are played by hand.
"""

from __future__ import annotations

import contextlib
import threading
import time
import types

import episode_node
import numpy as np
import pytest
from sensor_msgs.msg import Joy

from ofrl_robot.control.signals import POLICY, AppliedAction, Tick
from ofrl_robot.control.stops import StopReason
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.numbering import partial_path
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import ConfigError, DatasetError, RobotError
from ofrl_robot.recording.episode_recorder import EpisodeRecorder
from ofrl_robot.specs import WIDOWX_ACTION, widowx_observation
from ofrl_ros import episode_input, messages
from ofrl_ros.description import RobotDescription
from ofrl_ros.diagnostics import status_message
from ofrl_ros.episode_input import LABEL, EpisodeInput, LostTickError, SessionLostError

SPEC = widowx_observation(6)
PERIOD_NS = 200_000_000
STEPS = 3


@pytest.fixture
def robot():
    return RobotDescription(
        robot="r", task="t", instruction="t", horizon=9, control_rate_hz=5.0, environment={},
        rewards_known=True, ground_truth=False, action_spec=WIDOWX_ACTION, observation_spec=SPEC,
    )  # fmt: skip


@pytest.fixture
def heard(master, monkeypatch, robot):
    """What the recorder hears, without a connection to anybody."""
    monkeypatch.setattr(episode_input, "TICK_TIMEOUT", 0.2)
    heard = EpisodeInput(robot, "policy", lambda: None)
    heard._heartbeat = types.SimpleNamespace(publish=lambda: None)
    return heard


@pytest.fixture
def writer(tmp_path):
    writer = EpisodeWriter(tmp_path, schema.EpisodeMeta("r", "t", WIDOWX_ACTION, SPEC, 5.0, seed=7))
    yield writer
    writer.discard()


def play(heard, episode=1):
    """Ticks 0 to 3 with their frames and answers, then a tick whose frame never comes."""
    for step in range(STEPS + 2):
        stamp = (step + 1) * PERIOD_NS
        pixels = np.full((6, 6, 3), step, np.uint8)
        tick = Tick(stamp, step, {"image": pixels}, np.zeros(10), image_stamps_ns={"image": stamp})
        if step <= STEPS:
            heard.assembler.take(messages.image_message(pixels, stamp, "image"), "image")
        info = messages.TickInfo(7, episode)
        heard.assembler.take(messages.tick_message(tick, SPEC, info), "tick")
        if step <= STEPS:
            applied = AppliedAction(stamp, np.zeros(8), np.zeros(8), POLICY)
            heard.events.put("applied", messages.applied_message(applied))


def status(heard, reason="", paused=0):
    values = {"reason": reason, "paused": paused}
    heard.events.put("status", status_message("robot", 2, "it says", values))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, "camera: image stopped"),  # nothing at all is heard any more
        (StopReason.ACTOR_SILENT, "camera: image stopped"),  # the actor waits for the frame too
        (StopReason.OPERATOR, StopReason.OPERATOR),
    ],
)
def test_a_camera_that_stops_leaves_the_episode_up_to_there(heard, writer, told, expected):
    play(heard)
    if told:
        status(heard, told)
    end = heard.record(EpisodeRecorder(writer), 7)
    assert (end.label, end.source, end.aborted) == (schema.UNKNOWN, "", expected)
    assert not end.session_over and not end.discarded
    episode = read_episode(writer.finish(end.label, end.source, end.aborted))
    assert len(episode) == STEPS and episode.images["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_without_a_tick_it_is_lost(heard, writer):
    with pytest.raises(LostTickError, match="no tick for"):
        heard.record(EpisodeRecorder(writer), 7)


def test_a_pause_is_waited_out(heard, writer):
    play(heard)
    status(heard, paused=1)
    threading.Timer(0.7, status, (heard, StopReason.OPERATOR)).start()  # three times the timeout
    began = time.monotonic()
    assert heard.record(EpisodeRecorder(writer), 7).aborted == StopReason.OPERATOR
    assert time.monotonic() - began > 0.6


def test_a_stop_stays_noted_when_a_rearm_follows_at_once(heard, writer):
    status(heard, StopReason.OPERATOR)
    status(heard)
    play(heard)
    assert heard.settle() == StopReason.OPERATOR and heard.armed
    assert heard.record(EpisodeRecorder(writer), 7).aborted == StopReason.OPERATOR


def test_a_stop_that_is_on_its_way_is_waited_for(heard):
    threading.Timer(0.1, status, (heard, StopReason.OPERATOR)).start()
    assert heard.settle(5.0) == StopReason.OPERATOR
    assert not heard.wait_armed(0.05)


def test_a_label_counts_for_the_episode_in_which_it_was_given(heard, tmp_path):
    meta = schema.EpisodeMeta("r", "t", WIDOWX_ACTION, SPEC, 5.0, seed=7)
    labels = []
    for attempt in (1, 2):
        writer = EpisodeWriter(tmp_path, meta)
        play(heard, attempt)
        if attempt == 1:
            heard._attempt = 1  # as record() has it by the time an operator can speak
            heard.say(LABEL, schema.SUCCESS)
            heard.say(LABEL, schema.SUCCESS)  # he presses twice
            heard._attempt = 0
        end = heard.record(EpisodeRecorder(writer), 7)
        labels.append((end.label, end.source, end.aborted))
        writer.finish(*labels[-1])
    assert labels == [(schema.SUCCESS, "operator", ""), (-1, "", "camera: image stopped")]


def test_an_applied_action_that_is_none_is_said(heard, writer):
    heard.events.put("applied", Joy(axes=[0.0] * 16))
    with pytest.raises(RobotError, match="no usable applied action"):
        heard.record(EpisodeRecorder(writer), 7)


def test_a_node_that_is_gone_ends_the_episode_and_every_waiting(heard, writer):
    play(heard)
    heard.events.put("lost", "the policy node ended")
    end = heard.record(EpisodeRecorder(writer), 7)
    assert (end.aborted, end.session_over) == ("the policy node ended", True)
    for wait in (heard.settle, lambda: heard.wait(lambda: False)):
        heard.events.put("lost", "the policy node ended")
        with pytest.raises(SessionLostError, match="the policy node ended"):
            wait()


def test_trials_go_on_beside_an_unfinished_episode_but_not_beside_finished_ones(
    heard, robot, tmp_path
):
    node = episode_node.EpisodeNode.__new__(episode_node.EpisodeNode)
    node._actor, node._folder, node._robot = "policy", tmp_path, robot
    node._policy, node._environment, node._device, node._operator = {}, {}, "", ""
    partial_path(tmp_path, 4).write_bytes(b"of a dead recorder")
    with contextlib.ExitStack() as node._held:
        assert node._prepare() == 5
        with pytest.raises(DatasetError, match="another recorder"):
            one_writer(tmp_path).__enter__()
    writer = EpisodeWriter(tmp_path, schema.EpisodeMeta("r", "t", WIDOWX_ACTION, SPEC, 5.0))
    play(heard)
    status(heard, StopReason.OPERATOR)
    end = heard.record(EpisodeRecorder(writer), 7)
    writer.finish(end.label, end.source, end.aborted)
    with contextlib.ExitStack() as node._held, pytest.raises(ConfigError, match="already"):
        node._prepare()
