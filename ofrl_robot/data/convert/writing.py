"""Write an episode that is in memory: as ticks and applied actions, through the recorder's writer.

The same ticks and actions fill a ROS bag.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ofrl_robot.control.limiter import limit_names
from ofrl_robot.control.signals import SOURCES, AppliedAction, Tick
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.data.episodes.writer import EpisodeWriter


def write_episode(episode: Episode, folder: Path, index: int) -> Path:
    """Write an episode under number ``index`` as if it were recorded now.

    Returns:
        The path of the episode file.
    """
    meta = episode.meta
    meta = dataclasses.replace(meta, recorded=meta.recorded or meta.created)
    writer = EpisodeWriter(folder, meta, index)
    try:
        for step in range(len(episode)):
            tick = tick_at(episode, step)
            writer.observe(tick)
            writer.act(applied_at(episode, step, tick))
        writer.observe(tick_at(episode, len(episode)))
        path = writer.finish(meta.success, meta.label_source, meta.abort_reason)
    except BaseException:
        writer.discard()
        raise
    assert path is not None  # it has a step
    return path


def tick_at(episode: Episode, step: int) -> Tick:
    """Return the tick of ``step`` (0 to T) from the rows of an episode."""
    stamps = {
        name: int(rows[step])
        for name, rows in episode.timestamps.items()
        if name not in schema.ACTION_STAMPS
    }
    return Tick(
        stamp_ns=stamps.get("obs", 0),
        step=step,
        images={name: frames[step] for name, frames in episode.images.items()},
        state=episode.state[step],
        reward=float(episode.rewards[step - 1]) if step else 0.0,
        terminated=bool(step and episode.terminals[step - 1]),
        truncated=bool(step and episode.timeouts[step - 1]),
        image_stamps_ns={name: stamps[name] for name in episode.images if name in stamps},
        state_stamp_ns=stamps.get("state"),
    )


def applied_at(episode: Episode, step: int, tick: Tick) -> AppliedAction:
    """Return the action that was applied in answer to the tick of ``step`` (0 to T-1)."""
    applied = episode.timestamps.get("applied")
    return AppliedAction(
        stamp_ns=tick.stamp_ns,
        action=episode.actions[step],
        requested=episode.actions_requested[step],
        source=SOURCES[int(episode.source[step])],
        reasons=limit_names(int(episode.limits[step])),
        intervention=bool(episode.intervention[step]),
        late=bool(episode.late[step]),
        applied_ns=None if applied is None else int(applied[step]),
    )
