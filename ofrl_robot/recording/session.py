"""Record episodes in one process, without ROS: reset, run, label, save, for any action source.

The ROS nodes run the same :class:`~ofrl_robot.control.loop.ControlLoop` and the same
:class:`~ofrl_robot.recording.episode_recorder.EpisodeRecorder`; only the transport differs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numpy as np

from ofrl_robot.control.arbitration import PRIORITY
from ofrl_robot.control.loop import ControlLoop
from ofrl_robot.control.protocols import ActionSource, Remarks
from ofrl_robot.control.rig import Rig
from ofrl_robot.control.signals import Command, Tick
from ofrl_robot.control.stops import StopReason
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.schema import (
    LABEL_FROM_SIMULATOR,
    NO_LABEL_SOURCE,
    UNKNOWN,
    EpisodeMeta,
    simulator_label,
)
from ofrl_robot.data.episodes.writer import EpisodeWriter, prepare_folder
from ofrl_robot.errors import CameraStoppedError, ConfigError, RobotError
from ofrl_robot.recording.episode_recorder import EpisodeRecorder

OnEpisode = Callable[[int, int], None]
Confirm = Callable[[str], None]


class Session:
    """One rig, one action source, one control loop: records one episode after the other.

    Args:
        rig: source of ticks.
        actor: answers them.
        confirm: asks a person whether the scene is ready (real scenes); None in simulation.

    Raises:
        ConfigError: the source of the actor is unknown, so that every command would be ignored.
    """

    def __init__(self, rig: Rig, actor: ActionSource, confirm: Optional[Confirm] = None) -> None:
        if actor.source not in PRIORITY:
            raise ConfigError(
                f"the actor's source is {actor.source!r}", f"use {' or '.join(PRIORITY)}"
            )
        self.rig, self.actor, self.confirm = rig, actor, confirm
        self.loop = ControlLoop(rig.arm, sources=(actor.source,))

    def record(self, folder: Path, number: int, first_seed: int, meta: EpisodeMeta) -> int:
        """Record episode ``number`` of ``folder`` with seed ``first_seed + number``.

        The arm is stopped whatever is raised, and nothing of the episode stays, unless the arm
        or a camera stopped: then it is saved up to there, as aborted and without a label.

        Returns:
            The label: schema.SUCCESS, FAILURE or UNKNOWN.

        Raises:
            DatasetError: the number is taken, or the disk refuses.
            CameraStoppedError: a camera gives no more frames.
            RobotError: the arm stopped.
        """
        seed = first_seed + number
        writer = EpisodeWriter(folder, dataclasses.replace(meta, seed=seed), number)
        recorder = EpisodeRecorder(writer)
        try:
            try:
                tick = self._run(recorder, seed)
            except CameraStoppedError as error:
                self.loop.stop(StopReason.CAMERA, error.what)
                recorder.finish(UNKNOWN, NO_LABEL_SOURCE, error.what)
                raise
            except RobotError:
                self.loop.stop(StopReason.ROBOT_FAULT)
                recorder.finish(UNKNOWN, NO_LABEL_SOURCE, self.loop.stop_reason)
                raise
            if self.rig.task.rewards_known:
                label, source = simulator_label(tick), LABEL_FROM_SIMULATOR
            else:
                label, source = UNKNOWN, NO_LABEL_SOURCE
            recorder.finish(label, source)
        except BaseException:
            self.loop.stop(StopReason.OPERATOR)
            recorder.discard()
            raise
        return label

    def _run(self, recorder: EpisodeRecorder, seed: int) -> Tick:
        """Run one episode from reset to its end; return its last tick."""
        loop, actor = self.loop, self.actor
        loop.begin()
        tick = self.rig.reset(seed, self.confirm)
        actor.reset(seed)
        recorder.take_tick(tick)
        while not tick.last:
            action = actor.act(tick)
            if action is not None:
                # float32, as actions travel over ROS: both then record the same episode to the bit
                rounded = np.asarray(action, np.float32).astype(np.float64)
                loop.offer(Command(tick.stamp_ns, rounded, actor.source))
            recorder.take_applied(loop.apply(tick))
            if isinstance(actor, Remarks):
                recorder.note_pictures(actor.remarks())
            if loop.stopped:
                raise RobotError(f"the robot stopped ({loop.fault})", "see why, run it again")
            tick = self.rig.observe()
            recorder.take_tick(tick)
        return tick


def episode_meta(
    rig: Rig, environment: Optional[Dict[str, Any]] = None, **fields: Any
) -> EpisodeMeta:
    """Return the metadata of an episode on ``rig``.

    Args:
        environment: settings to store beside those of the rig itself.
        **fields: further :class:`EpisodeMeta` values.
    """
    return EpisodeMeta(
        robot=rig.name,
        task=rig.task.name,
        action_spec=rig.action_spec,
        observation_spec=rig.observation_spec,
        control_rate_hz=rig.control_rate_hz,
        environment={**rig.environment, **(environment or {})},
        **fields,
    )


def record_episodes(
    rig: Rig,
    actor: ActionSource,
    folder: Path,
    count: int,
    first_seed: int,
    meta: EpisodeMeta,
    on_episode: Optional[OnEpisode] = None,
    confirm: Optional[Confirm] = None,
    mixed_tasks: bool = False,
) -> None:
    """Record ``count`` episodes, numbered on from the highest number in ``folder``.

    Number i has seed ``first_seed + i``, so that adding to a dataset never repeats a seed. Ctrl-C
    drops the running episode, stops the arm and is raised again: whole episodes stay.

    Args:
        on_episode: called with (episodes saved so far, label of the last) after each.
        confirm: asks a person whether the scene is ready (real scenes).
        mixed_tasks: allow a folder that holds episodes of another task or robot.

    Raises:
        DatasetError: another recorder is at work in ``folder``, or the disk refuses.
        CameraStoppedError, RobotError: as :meth:`Session.record`.
    """
    with one_writer(folder):
        first = prepare_folder(folder, meta, mixed_tasks)
        session = Session(rig, actor, confirm)
        for done in range(count):
            label = session.record(folder, first + done, first_seed, meta)
            if on_episode is not None:
                on_episode(done + 1, label)
