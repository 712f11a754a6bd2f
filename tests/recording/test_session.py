"""Recording in one process: what lies on disk is what the robot was told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ofrl_robot.control.limiter import NOT_FINITE, SHAPE, limit_names
from ofrl_robot.control.loop import ControlLoop
from ofrl_robot.control.rig import Rig
from ofrl_robot.control.signals import HUMAN
from ofrl_robot.control.stops import StopReason
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode, read_meta
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS, UNKNOWN, episode_paths
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.recording import session as runner
from ofrl_robot.recording.session import episode_meta, record_episodes
from ofrl_robot.robots.operator_task import OperatorTask


class FullScale:
    """Asks for too much on every axis; raises ``error`` at action number ``fail_at``."""

    source = HUMAN

    def __init__(self, fail_at=-1, error=KeyboardInterrupt, action=(1.0, 1.0, 1.0, 1.0)):
        self.fail_at, self.error, self.action = fail_at, error, action
        self.acts, self.seeds = 0, []

    def reset(self, seed):
        self.seeds.append(seed)

    def act(self, tick):
        self.acts += 1
        if self.acts == self.fail_at:
            raise self.error
        return np.array(self.action)


def record(rig, actor, folder, count, seed=0, **more):
    record_episodes(rig, actor, folder, count, seed, episode_meta(rig, actor="test"), **more)


def test_applied_is_recorded_not_what_was_asked_for(fake_rig, fake_robot, tmp_path):
    record(fake_rig, FullScale(), tmp_path, 1)
    episode = read_episode(episode_paths(tmp_path)[0])
    assert len(episode) == fake_robot.horizon and episode.limited.all()
    assert np.array_equal(episode.actions, np.array(fake_robot.received, np.float32))
    assert np.allclose(np.linalg.norm(episode.actions[:, :3] * 0.1, axis=1), 0.12)
    assert (episode.actions_requested == 1.0).all()
    assert not episode.intervention.any()
    # observation t is the one before action t: the frame shows the step number
    assert episode.images["front"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert episode.rewards.tolist() == [0, 0, 0, 1] and episode.meta.success == SUCCESS
    assert episode.timeouts.tolist() == [False] * 3 + [True] and not episode.terminals.any()


def test_unusable_actions_are_held_and_recorded_as_such(fake_rig, fake_robot, tmp_path):
    fake_robot.horizon = 2  # at the third one the arm would stop
    record(fake_rig, FullScale(action=(np.nan, 0, 0, 0)), tmp_path / "nan", 1)
    record(fake_rig, FullScale(action=(0.1, 0.1)), tmp_path / "short", 1)
    assert not np.any(fake_robot.received)
    for folder in ("nan", "short"):
        episode = read_episode(episode_paths(tmp_path / folder)[0])
        assert not episode.actions.any() and episode.limited.all() and episode.held.all()
        assert np.isnan(episode.actions_requested[:, 0]).all()
    name = {"nan": NOT_FINITE, "short": SHAPE}
    for folder, limit in name.items():
        bits = read_episode(episode_paths(tmp_path / folder)[0]).limits
        assert {limit_names(int(b)) for b in bits} == {(limit,)}


def test_an_arm_that_stops_ends_the_episode_as_aborted(fake_rig, fake_robot, tmp_path):
    fake_robot.horizon = 9
    with pytest.raises(RobotError, match="actor_silent"):
        record(fake_rig, FullScale(action=(np.nan, 0, 0, 0)), tmp_path, 1)
    (path,) = episode_paths(tmp_path)
    meta, steps = read_meta(path)
    assert meta.abort_reason == "actor_silent" and meta.success == UNKNOWN and steps == 2


def test_a_reward_that_was_lost_again_is_a_failure(fake_rig, fake_robot, tmp_path):
    outcome = fake_robot.outcome
    fake_robot.outcome = lambda step: dataclasses.replace(outcome(step), reward=float(step == 2))
    record(fake_rig, FullScale(), tmp_path, 1)
    assert open_dataset(tmp_path).metas[0].success == FAILURE


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("driver gone")])
def test_an_end_in_mid_episode_keeps_earlier_ones_whole_and_leaves_no_partial(
    fake_rig, fake_robot, tmp_path, error
):
    saved = []
    actor = FullScale(fail_at=2 * fake_robot.horizon + 2, error=error)
    with pytest.raises(error if isinstance(error, type) else RuntimeError):
        record(fake_rig, actor, tmp_path, 5, on_episode=lambda n, label: saved.append((n, label)))
    names = ["episode_000000.h5", "episode_000001.h5"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == names
    assert all(len(read_episode(tmp_path / n)) == fake_robot.horizon for n in names)
    assert saved == [(1, SUCCESS), (2, SUCCESS)]
    assert fake_robot.stops == 1


def test_the_stop_reason_after_an_interrupt_is_the_operator(
    fake_rig, fake_robot, tmp_path, monkeypatch
):
    loops = []

    def remember(arm, sources):
        loops.append(ControlLoop(arm, sources=sources))
        return loops[0]

    monkeypatch.setattr(runner, "ControlLoop", remember)
    with pytest.raises(KeyboardInterrupt):
        record(fake_rig, FullScale(fail_at=1), tmp_path, 1)
    assert loops[0].stop_reason == StopReason.OPERATOR


def test_adding_to_a_dataset_goes_on_with_the_seeds(fake_rig, fake_robot, tmp_path):
    actor = FullScale()
    record(fake_rig, actor, tmp_path, 2, seed=10)
    record(fake_rig, actor, tmp_path, 2, seed=10)
    assert fake_robot.seeds == actor.seeds == [10, 11, 12, 13]
    assert [m.seed for m in open_dataset(tmp_path).metas] == [10, 11, 12, 13]


def test_a_removed_episode_makes_no_seed_come_twice(fake_rig, fake_robot, tmp_path):
    """Episode number i has seed first + i, also when a bad episode was taken out."""
    record(fake_rig, FullScale(), tmp_path, 3)
    (tmp_path / "episode_000001.h5").unlink()
    record(fake_rig, FullScale(), tmp_path, 2)
    dataset = open_dataset(tmp_path)
    assert [int(p.stem.split("_")[1]) for p in dataset.paths] == [0, 2, 3, 4]
    assert [m.seed for m in dataset.metas] == [0, 2, 3, 4]


def test_episodes_of_one_session_do_not_share_metadata(fake_rig, fake_robot, tmp_path):
    meta = episode_meta(fake_rig, actor="test", operator="me")
    record_episodes(fake_rig, FullScale(), tmp_path, 2, 0, meta)
    assert meta.seed == -1 and meta.created == ""
    assert {m.operator for m in open_dataset(tmp_path).metas} == {"me"}


def test_a_command_that_is_refused_is_said_and_not_recorded_as_silence(fake_rig, tmp_path):
    actor = FullScale()
    actor.source = "robot"
    with pytest.raises(ConfigError, match="source is 'robot'; use human or policy"):
        record(fake_rig, actor, tmp_path, 1)
    assert not episode_paths(tmp_path)


def test_an_actor_that_says_nothing_is_held_and_then_stops_the_arm(fake_rig, fake_robot, tmp_path):
    actor = FullScale()
    actor.act = lambda tick: None if tick.step else np.zeros(4)
    fake_robot.horizon = 10
    with pytest.raises(RobotError, match=StopReason.ACTOR_SILENT):
        record(fake_rig, actor, tmp_path, 1)
    assert len(fake_robot.received) == 3 and fake_robot.stops >= 1


def test_a_scene_that_a_person_arranges_is_confirmed_and_stays_unlabelled(
    fake_rig, fake_robot, tmp_path
):
    asked = []
    rig = Rig(fake_robot, fake_robot, OperatorTask("wipe", 3, "wipe the table"))
    meta = episode_meta(rig, actor="test")
    with pytest.raises(RobotError, match="a person has to prepare the scene"):
        record_episodes(rig, FullScale(), tmp_path, 1, 0, meta)
    record_episodes(rig, FullScale(), tmp_path, 2, 0, meta, confirm=asked.append)
    assert asked == ["arrange the scene for: wipe the table"] * 2
    metas = open_dataset(tmp_path).metas
    assert [m.success for m in metas] == [UNKNOWN] * 2
    assert metas[0].environment["instruction"] == "wipe the table"


class Remarking(FullScale):
    """Says something of the pictures from its second action on."""

    def remarks(self):
        return {} if self.acts < 2 else {"score": self.acts / 2, "words": "left side 30 darker"}


def test_what_the_policy_says_of_the_pictures_is_in_the_episode(fake_rig, fake_robot, tmp_path):
    record(fake_rig, Remarking(), tmp_path, 2)
    first, second = (read_meta(path)[0].pictures for path in episode_paths(tmp_path))
    assert first == {"score": 2.0, "words": "left side 30 darker"} and second["score"] == 4.0
    record(fake_rig, FullScale(), tmp_path, 1)
    assert read_meta(episode_paths(tmp_path)[2])[0].pictures == {}


def test_an_aborted_episode_keeps_what_was_said(fake_rig, tmp_path):
    with pytest.raises(RobotError):
        record(fake_rig, Remarking(fail_at=4, error=RobotError("motor", "look")), tmp_path, 1)
    (path,) = episode_paths(tmp_path)
    assert read_meta(path)[0].pictures["score"] == 1.5
