"""Trajectories of any source into a dataset folder, one at a time; the source says how to read."""

from __future__ import annotations

import abc
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from ofrl_robot.control.signals import HOLD, HUMAN, POLICY, AppliedAction, Tick
from ofrl_robot.data.convert.options import ImportOptions
from ofrl_robot.data.convert.trajectory import bad
from ofrl_robot.data.datasets.splits import SPLITS
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import DatasetError, HostilePickleError, OfrlError, SpecMismatchError
from ofrl_robot.files import new_folder
from ofrl_robot.images import prepare
from ofrl_robot.specs import CameraSpec, require_same

Progress = Callable[[int, int], None]  # called with (trajectories done, in all)
_log = logging.getLogger(__name__)


class Source(abc.ABC):
    """Trajectories in somebody else's format, read one at a time.

    Attributes:
        path: where it lies. names: one per trajectory, in order, for messages.
    """

    path: Path
    names: Sequence[str]

    @abc.abstractmethod
    def read(self, number: int) -> Episode:
        """One trajectory. Where it has no step, nothing but that is looked at."""

    def splits(self) -> Dict[str, List[str]]:
        """Names of trajectories by split, where the format knows such."""
        return {}

    def close(self) -> None:  # noqa: B027 (most have nothing to let go)
        """Let go of the files."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """What came of an import: episodes written; trajectories without a step; bad ones."""

    episodes: int
    empty: int
    bad: int


def import_episodes(
    source: Source, out: Path, options: ImportOptions, progress: Optional[Progress] = None
) -> Imported:
    """Write the trajectories of ``source`` as episodes into ``out``, a new or empty folder.

    ``out`` appears complete or not at all. Trajectories without a single step are left out.

    Raises DatasetError naming the trajectory that cannot be used (unless ``options.skip_bad``),
    SpecMismatchError where two have different actions or observations, HostilePickleError in any
    case where one asks to run code.
    """
    names = list(source.names)[: options.num_traj or None]
    done: Dict[str, str] = {}  # trajectory: episode file
    empty = bad_ones = 0
    first: Optional[schema.EpisodeMeta] = None
    with new_folder(out) as folder:
        for number, name in enumerate(names):
            try:
                episode = _read(source, number)
                if len(episode):
                    _check(episode, name)
                    episode = _changed(episode, options)
                    first = first or episode.meta
                    _require_same_specs(episode.meta, first, name)
            except HostilePickleError:
                raise
            except (DatasetError, SpecMismatchError) as error:
                if not options.skip_bad:
                    raise
                _log.warning("left out: %s", error)
                bad_ones += 1
            else:
                if len(episode):
                    done[name] = write_episode(episode, folder, len(done)).name
                else:
                    empty += 1
            if progress is not None:
                progress(number + 1, len(names))
        if empty:
            _log.warning("%s: skipped %d trajectories without a step", source.path, empty)
        if not done:
            raise DatasetError("no trajectory with a single step", "check the path", source.path)
        _write_splits(source.splits(), done, folder)
    return Imported(len(done), empty, bad_ones)


def write_episode(episode: Episode, folder: Path, index: int) -> Path:
    """Write an episode under number ``index``, as if it were recorded now; returns its path."""
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


def _read(source: Source, number: int) -> Episode:
    try:
        return source.read(number)
    except OfrlError:
        raise
    except Exception as error:  # what is damaged makes h5py, Pillow and numpy raise nearly anything
        raise bad(
            f"unreadable ({type(error).__name__}: {ascii(str(error)):.100})",
            source.names[number],
        ) from error


def _check(episode: Episode, where: str) -> None:
    """Refuse what ``ofrl data verify`` would call damage."""
    steps = len(episode)
    rows: Dict[str, Sequence[Any]] = {f"images of {k}": v for k, v in episode.images.items()}
    rows["states"] = episode.state
    wrong = [name for name, found in rows.items() if len(found) != steps + 1]
    wrong += [
        name
        for name in ("rewards", "terminals", "timeouts", "actions_requested", "limited")
        if len(getattr(episode, name)) != steps
    ]
    wrong += [
        f"timestamps of {name}"
        for name, stamps in episode.timestamps.items()
        if len(stamps) != steps + (name not in schema.ACTION_STAMPS)
    ]
    if wrong:
        raise bad(f"{', '.join(wrong)} do not fit its {steps} actions", where)
    for camera in episode.meta.observation_spec.cameras:
        shapes = {np.shape(frame) for frame in episode.images[camera.name]}
        if shapes != {camera.shape}:
            raise bad(f"images of {camera.name} are {sorted(shapes)}", where)
    for name in ("state", "actions", "rewards"):
        if not np.isfinite(getattr(episode, name)).all():
            raise bad(f"{name} not finite", where)
    ends = episode.terminals | episode.timeouts
    if ends[:-1].any():
        raise bad("goes on after its end", f"{where}, step {int(np.argmax(ends))}")


def _changed(episode: Episode, options: ImportOptions) -> Episode:
    """The episode with what the options ask for."""
    meta = dataclasses.replace(episode.meta, task=options.task or episode.meta.task)
    episode = dataclasses.replace(episode, meta=meta)
    if options.zero_rewards:
        # what was a success at the source's task is none at the task that this is prior data for
        meta.success, meta.label_source = schema.UNKNOWN, ""
        episode.rewards = np.zeros(len(episode))
    if options.image_size:
        side, spec = options.image_size, meta.observation_spec
        cameras = tuple(dataclasses.replace(c, height=side, width=side) for c in spec.cameras)
        meta.observation_spec = dataclasses.replace(spec, cameras=cameras)
        episode.images = {
            name: np.stack([prepare(frame, CameraSpec(name, side, side)) for frame in frames])
            for name, frames in episode.images.items()
        }
    return episode


def _require_same_specs(meta: schema.EpisodeMeta, first: schema.EpisodeMeta, name: str) -> None:
    fix = "convert those that are alike, or leave the others out with --skip-bad"
    require_same(meta.action_spec, first.action_spec, name, "those before", fix)
    require_same(meta.observation_spec, first.observation_spec, name, "those before", fix)


def tick_at(episode: Episode, step: int) -> Tick:
    """The tick of a step, from the rows of an episode."""
    stamps = {name: int(rows[step]) for name, rows in episode.timestamps.items()
              if name not in schema.ACTION_STAMPS}  # fmt: skip
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
    """What was applied in answer to the tick of a step."""
    held = episode.held is not None and bool(episode.held[step])
    human = bool(episode.intervention[step])
    applied = episode.timestamps.get("applied")
    return AppliedAction(
        stamp_ns=tick.stamp_ns,
        action=episode.actions[step],
        requested=episode.actions_requested[step],
        source=HOLD if held else HUMAN if human else POLICY,
        reasons=("limited at the source",) if episode.limited[step] else (),
        intervention=human,
        applied_ns=None if applied is None else int(applied[step]),
    )


def _write_splits(splits: Dict[str, List[str]], done: Dict[str, str], folder: Path) -> None:
    files = {split: [done[n] for n in names if n in done] for split, names in splits.items()}
    if files:
        (folder / SPLITS).write_text(json.dumps(files, indent=1))
