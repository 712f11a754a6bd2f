"""The loop in one process, without ROS: reset -> run -> label -> save, for any actor.

The ROS nodes run the same :class:`~ofrl_robot.control.loop.ControlLoop` and the same
:class:`~ofrl_robot.data.episodes.writer.EpisodeWriter`; only the wires differ.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numpy as np

from ofrl_robot.control.loop import OPERATOR, ROBOT_FAULT, ControlLoop, Robot
from ofrl_robot.control.signals import Command
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.schema import (
    LABEL_FROM_SIMULATOR,
    NO_LABEL_SOURCE,
    UNKNOWN,
    EpisodeMeta,
    simulator_label,
)
from ofrl_robot.data.episodes.writer import EpisodeWriter, prepare_folder
from ofrl_robot.errors import CameraStoppedError
from ofrl_robot.teleop.scripted import Actor


def episode_meta(
    robot: Robot, environment: Optional[Dict[str, Any]] = None, **fields: object
) -> EpisodeMeta:
    """Metadata of an episode on ``robot``.

    Args:
        environment: settings to store beside those of the robot itself.
        **fields: further :class:`EpisodeMeta` values.
    """
    return EpisodeMeta(
        robot=robot.name,
        task=robot.task,
        action_spec=robot.action_spec,
        observation_spec=robot.observation_spec,
        control_rate_hz=robot.control_rate_hz,
        environment={**robot.environment, **(environment or {})},
        **fields,  # type: ignore[arg-type]
    )


def record_episodes(
    robot: Robot,
    actor: Actor,
    folder: Path,
    count: int,
    first_seed: int,
    meta: EpisodeMeta,
    on_episode: Optional[Callable[[int, int], None]] = None,
) -> None:
    """Record ``count`` episodes, numbered on from the highest number in ``folder``.

    Number i has seed ``first_seed + i``, so that adding to a dataset never repeats a seed.

    Args:
        on_episode: called with (episodes saved so far, label of the last) after each.

    Ctrl-C drops the running episode, stops the robot and is raised again: whole episodes stay.
    Raises DatasetError while another recorder is at work in ``folder``.
    """
    with one_writer(folder):
        first = prepare_folder(folder, meta)
        loop = ControlLoop(robot)
        for done in range(count):
            label = record_episode(loop, actor, folder, first + done, first_seed, meta)
            if on_episode is not None:
                on_episode(done + 1, label)


def record_episode(
    loop: ControlLoop, actor: Actor, folder: Path, number: int, first_seed: int, meta: EpisodeMeta
) -> int:
    """Record episode ``number`` of ``folder`` with seed ``first_seed + number``; its label.

    Raises DatasetError when the number is taken, CameraStoppedError when a camera gives no more
    frames: the episode is saved up to there, as aborted and without a label. Whatever else is
    raised, nothing of the episode stays. The robot is stopped in any case.
    """
    seed = first_seed + number
    writer = EpisodeWriter(folder, dataclasses.replace(meta, seed=seed), number)
    try:
        try:
            label = run_episode(loop, actor, writer, seed)
        except CameraStoppedError as error:
            loop.stop(ROBOT_FAULT)
            writer.finish(UNKNOWN, NO_LABEL_SOURCE, error.what)
            raise
        writer.finish(label, LABEL_FROM_SIMULATOR)
    except BaseException:
        loop.stop(OPERATOR)
        writer.discard()
        raise
    return label


def run_episode(loop: ControlLoop, actor: Actor, writer: EpisodeWriter, seed: int) -> int:
    """One episode from reset to its end; returns the simulator's label."""
    tick = loop.reset(seed)
    actor.reset(seed)
    writer.observe(tick)
    while not tick.last:
        # float32, as actions travel over ROS: both worlds then record the same episode to the bit
        action = np.asarray(actor.act(tick), np.float32).astype(np.float64)
        loop.arbiter.offer(Command(tick.stamp_ns, action, actor.source))
        writer.act(loop.apply(tick))
        tick = loop.robot.observe()
        writer.observe(tick)
    return simulator_label(tick)
