"""Convert the trajectories of any source into a dataset folder, one at a time."""

from __future__ import annotations

import abc
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence

import numpy as np

from ofrl_robot.data.convert.options import ImportOptions
from ofrl_robot.data.convert.trajectory import ACTION_TOLERANCE, trajectory_error
from ofrl_robot.data.convert.writing import write_episode
from ofrl_robot.data.datasets.splits import SPLITS
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.errors import DatasetError, HostilePickleError, OfrlError, SpecMismatchError
from ofrl_robot.files import new_folder, write_whole
from ofrl_robot.images import prepare
from ofrl_robot.specs import CameraSpec, require_same

Progress = Callable[[int, int], None]  # called with (trajectories done, in all)
_ROWS_PER_STEP = ("rewards", "terminals", "timeouts", "actions_requested", "limits", "source")
_log = logging.getLogger(__name__)


class Source(abc.ABC):
    """Trajectories in a foreign format, read one at a time.

    Attributes:
        path: file or folder of the source.
        names: one per trajectory, in order, for messages.
    """

    path: Path
    names: Sequence[str]

    @abc.abstractmethod
    def read(self, number: int) -> Episode:
        """Return one trajectory. If it has no step, only its length is used."""

    def splits(self) -> Dict[str, List[str]]:
        """Return the names of trajectories by split; empty if the format has no splits."""
        return {}

    def close(self) -> None:  # noqa: B027 (most sources have nothing to close)
        """Close the files."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """Counts of an import: episodes written, trajectories without a step, unusable ones."""

    episodes: int
    empty: int
    bad: int


def import_episodes(
    source: Source, out: Path, options: ImportOptions, progress: Optional[Progress] = None
) -> Imported:
    """Write the trajectories of ``source`` as episodes into ``out``, a new or empty folder.

    ``out`` is complete or is not created. Trajectories without a step are skipped.

    Raises:
        DatasetError: a trajectory cannot be used (skipped with ``options.skip_bad``), or none has
            a step.
        SpecMismatchError: two trajectories have different actions or observations (skipped with
            ``options.skip_bad``).
        HostilePickleError: a trajectory asks to run code; never skipped.
        OutputError: ``out`` is not empty or cannot be written.
    """
    names = list(source.names)[: options.num_traj or None]
    done: Dict[str, str] = {}  # trajectory: episode file
    empty = bad = 0
    first: Optional[schema.EpisodeMeta] = None
    with new_folder(out) as folder:
        for number, name in enumerate(names):
            try:
                episode = _read(source, number)
                if len(episode):
                    episode = _apply_options(episode, options)
                    first = first or episode.meta
                    _require_same_specs(episode.meta, first, name)
            except HostilePickleError:
                raise
            except (DatasetError, SpecMismatchError) as error:
                if not options.skip_bad:
                    raise
                _log.warning("left out: %s", error)
                bad += 1
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
            raise DatasetError("has no trajectory with a step", "check the path", source.path)
        _write_splits(source.splits(), done, folder)
    return Imported(len(done), empty, bad)


def _read(source: Source, number: int) -> Episode:
    """Return a trajectory. Raise DatasetError, naming it, if it is damaged in any way."""
    where = source.names[number]
    try:
        episode = source.read(number)
        if len(episode):
            _require_usable(episode, where)
        return episode
    except OfrlError:
        raise
    except Exception as error:  # a damaged file makes h5py, Pillow and numpy raise anything
        text = f"{type(error).__name__}: {ascii(str(error)):.100}"
        raise trajectory_error(f"cannot be read ({text})", where) from error


def _require_usable(episode: Episode, where: str) -> None:
    """Raise DatasetError for an episode that ``ofrl data verify`` would call damaged."""
    wrong = list(_wrong_lengths(episode))
    if wrong:
        text = f"{', '.join(wrong)} do not fit its {len(episode)} actions"
        raise trajectory_error(text, where)
    widths = {
        "actions": (episode.actions, episode.meta.action_spec.size),
        "actions_requested": (episode.actions_requested, episode.meta.action_spec.size),
        "state": (episode.state, len(episode.meta.observation_spec.state_names)),
    }
    for name, (rows, width) in widths.items():
        if np.shape(rows)[1:] != (width,):
            raise trajectory_error(f"{name} is {np.shape(rows)}, {width} entries expected", where)
    for camera in episode.meta.observation_spec.cameras:
        shapes = {np.shape(frame) for frame in episode.images[camera.name]}
        if shapes != {camera.shape}:
            raise trajectory_error(f"images of {camera.name} are {sorted(shapes)}", where)
    for name in ("state", "actions", "rewards"):
        if not np.isfinite(getattr(episode, name)).all():
            raise trajectory_error(f"{name} not finite", where)
    worst = float(np.abs(episode.actions).max(initial=0.0))
    if worst > 1 + ACTION_TOLERANCE:
        raise trajectory_error(f"an action of {worst:.4g} is beyond [-1, 1]", where)
    rate = episode.meta.control_rate_hz
    if not (isinstance(rate, (int, float)) and 0 < rate < np.inf):
        raise trajectory_error(f"its control rate is {ascii(rate):.40} Hz", where)
    ends = episode.terminals | episode.timeouts
    if ends[:-1].any():
        raise trajectory_error("goes on after its end", f"{where}, step {int(np.argmax(ends))}")


def _wrong_lengths(episode: Episode) -> Iterator[str]:
    """Yield the names of arrays that do not fit the number of actions."""
    steps = len(episode)
    for name, frames in episode.images.items():
        if len(frames) != steps + 1:
            yield f"images of {name}"
    if len(episode.state) != steps + 1:
        yield "states"
    for name in _ROWS_PER_STEP:
        if len(getattr(episode, name)) != steps:
            yield name
    for name, stamps in episode.timestamps.items():
        if len(stamps) != steps + (name not in schema.ACTION_STAMPS):
            yield f"timestamps of {name}"


def _apply_options(episode: Episode, options: ImportOptions) -> Episode:
    """Return the episode with the task, rewards and image size that the options ask for."""
    meta = dataclasses.replace(episode.meta, task=options.task or episode.meta.task)
    episode = dataclasses.replace(episode, meta=meta)
    if options.zero_rewards:
        # a success at the source's task is not one at the task that this is prior data for
        meta.success = schema.UNKNOWN
        meta.label_source = ""
        episode.rewards = np.zeros(len(episode))
    if options.image_size:
        side, spec = options.image_size, meta.observation_spec
        cameras = tuple(dataclasses.replace(c, height=side, width=side) for c in spec.cameras)
        meta.observation_spec = dataclasses.replace(spec, cameras=cameras)
        episode.images = {
            name: _resized(name, frames, side) for name, frames in episode.images.items()
        }
    return episode


def _resized(name: str, frames: Iterable[np.ndarray], side: int) -> np.ndarray:
    spec = CameraSpec(name, side, side)
    return np.stack([prepare(frame, spec) for frame in frames])


def _require_same_specs(meta: schema.EpisodeMeta, first: schema.EpisodeMeta, name: str) -> None:
    fix = "convert trajectories with equal specs only, or skip the others with --skip-bad"
    require_same(meta.action_spec, first.action_spec, name, "those before", fix)
    require_same(meta.observation_spec, first.observation_spec, name, "those before", fix)


def _write_splits(splits: Dict[str, List[str]], done: Dict[str, str], folder: Path) -> None:
    """Write the splits of the source by the names of the episode files."""
    files: Dict[str, Any] = {
        split: [done[name] for name in names if name in done] for split, names in splits.items()
    }
    if files:
        write_whole(folder / SPLITS, json.dumps(files, indent=1))
