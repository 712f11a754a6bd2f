"""What the recorder makes of a camera that stops, and of what lies in its folder.

The other nodes are played by hand.
"""

from __future__ import annotations

import contextlib
import types

import episode_node
import numpy as np
import pytest

from ofrl_robot.control.signals import POLICY, AppliedAction, Tick
from ofrl_robot.control.stops import StopReason
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.numbering import partial_path
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.recording.episode_recorder import EpisodeRecorder
from ofrl_robot.specs import WIDOWX_ACTION, widowx_observation
from ofrl_ros import messages
from ofrl_ros.assembler import TickAssembler
from ofrl_ros.description import RobotDescription
from ofrl_ros.diagnostics import status_message
from ofrl_ros.events import Events

SPEC = widowx_observation(6)
PERIOD_NS = 200_000_000
STEPS = 3


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setattr(episode_node, "TICK_TIMEOUT", 0.2)
    node = episode_node.EpisodeNode.__new__(episode_node.EpisodeNode)
    node._events, node._seed, node._episode_number = Events(), 7, 0
    node._assembler = TickAssembler(SPEC, node._events)
    node._to = lambda state: None
    node._state = types.SimpleNamespace(name="running")
    node._robot = RobotDescription(
        robot="r", task="t", instruction="t", horizon=9, control_rate_hz=5.0, environment={},
        rewards_known=True, ground_truth=False, action_spec=WIDOWX_ACTION, observation_spec=SPEC,
    )  # fmt: skip
    node._policy, node._environment = {}, {}
    return node


def play(node):
    """Ticks 0 to 3 with their frames and answers, then a tick whose frame never comes."""
    for step in range(STEPS + 2):
        stamp = (step + 1) * PERIOD_NS
        pixels = np.full((6, 6, 3), step, np.uint8)
        tick = Tick(stamp, step, {"image": pixels}, np.zeros(10), image_stamps_ns={"image": stamp})
        if step <= STEPS:
            node._assembler.take(messages.image_message(pixels, stamp, "image"), "image")
        node._assembler.take(messages.tick_message(tick, SPEC, messages.TickInfo(7, 1)), "tick")
        if step <= STEPS:
            applied = AppliedAction(stamp, np.zeros(8), np.zeros(8), POLICY)
            node._events.put("applied", messages.applied_message(applied))


def stop(node, reason):
    node._events.put("status", status_message("robot", 2, "stopped", {"reason": reason}))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, "camera image stopped"),  # nothing at all is heard any more
        (StopReason.ACTOR_SILENT, "camera image stopped"),  # the actor waits for the frame too
        (StopReason.OPERATOR, StopReason.OPERATOR),
    ],
)
def test_a_camera_that_stops_leaves_the_episode_up_to_there(node, tmp_path, told, expected):
    meta = schema.EpisodeMeta("fake", "nothing", WIDOWX_ACTION, SPEC, 5.0)
    writer = EpisodeWriter(tmp_path, meta)
    play(node)
    if told:
        stop(node, told)
    label, source, reason = node._record(EpisodeRecorder(writer))
    assert (label, source, reason) == (schema.UNKNOWN, "", expected)
    episode = read_episode(writer.finish(label, source, reason))
    assert len(episode) == STEPS and episode.images["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_without_a_tick_it_is_lost(node, tmp_path):
    meta = schema.EpisodeMeta("fake", "nothing", WIDOWX_ACTION, SPEC, 5.0)
    writer = EpisodeWriter(tmp_path, meta)
    with pytest.raises(episode_node.LostTickError):
        node._record(EpisodeRecorder(writer))
    writer.discard()


def test_trials_go_on_beside_an_unfinished_episode_but_not_beside_finished_ones(node, tmp_path):
    node._actor, node._folder = "policy", tmp_path
    partial_path(tmp_path, 4).write_bytes(b"of a dead recorder")
    with contextlib.ExitStack() as node._held:
        assert node._prepare() == 5
        with pytest.raises(DatasetError, match="another recorder"):
            one_writer(tmp_path).__enter__()
    writer = EpisodeWriter(tmp_path, schema.EpisodeMeta("r", "t", WIDOWX_ACTION, SPEC, 5.0))
    play(node)
    stop(node, StopReason.OPERATOR)
    writer.finish(*node._record(EpisodeRecorder(writer)))
    with contextlib.ExitStack() as node._held, pytest.raises(ConfigError, match="already"):
        node._prepare()
