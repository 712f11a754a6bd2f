"""Carry an episode of this package through another format and back without loss.

A native trajectory is one that this package exported. Its arrays keep the names that they have in
an episode file, and its metadata is stored as the attributes of an episode file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping

import numpy as np

from ofrl_robot.data.convert.options import FileOptions
from ofrl_robot.data.convert.trajectory import trajectory_error, unknown_source
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import UNKNOWN_FRAME

STEP_ROWS = ("actions", "rewards", "terminals", "timeouts")  # the arrays that every format has
_FLAGS = ("actions_requested", "limits", "source", "intervention", "late")
_OBSERVATIONS, _TIMESTAMPS = "obs/", "timestamps/"


def arrays_of(episode: Episode) -> Dict[str, np.ndarray]:
    """Return all arrays of an episode by their names in its file; ``obs/*`` have T+1 rows."""
    arrays = {_OBSERVATIONS + name: images for name, images in episode.images.items()}
    arrays["obs/state"] = episode.state
    arrays.update({name: getattr(episode, name) for name in STEP_ROWS})
    for name in _FLAGS:
        if getattr(episode, name) is not None:
            arrays[name] = getattr(episode, name)
    arrays.update({_TIMESTAMPS + name: rows for name, rows in episode.timestamps.items()})
    return arrays


def has_final_row(name: str) -> bool:
    """Return whether an array of :func:`arrays_of` has a row for the last observation."""
    if name.startswith(_TIMESTAMPS):
        return name[len(_TIMESTAMPS) :] not in schema.ACTION_STAMPS
    return name.startswith(_OBSERVATIONS)


def native_episode(
    attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: object
) -> Episode:
    """Return the episode of :func:`arrays_of` and its attributes; other arrays are ignored.

    Raises:
        DatasetError: the attributes are damaged, or an array is missing.
    """
    meta = schema.EpisodeMeta.from_attrs(dict(attributes), where)
    cameras = [camera.name for camera in meta.observation_spec.cameras]
    needed = [*STEP_ROWS, "obs/state", *(_OBSERVATIONS + name for name in cameras)]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise trajectory_error(f"has no {', '.join(missing)}", where)
    none = np.zeros(len(arrays["actions"]), bool)
    stamps = {
        name[len(_TIMESTAMPS) :]: rows
        for name, rows in arrays.items()
        if name.startswith(_TIMESTAMPS)
    }
    return Episode(
        meta=meta,
        images={name: arrays[_OBSERVATIONS + name] for name in cameras},
        state=arrays["obs/state"],
        actions_requested=arrays.get("actions_requested", arrays["actions"]),
        limits=arrays.get("limits", none.astype(np.uint32)),
        source=arrays.get("source", unknown_source(len(none))),
        intervention=arrays.get("intervention", none),
        late=arrays.get("late", none),
        timestamps=stamps,
        **{name: arrays[name] for name in STEP_ROWS},
    )


def is_native(attributes: Mapping[str, Any]) -> bool:
    """Return whether a trajectory has the attributes of an episode of this package."""
    return "format_version" in attributes


def require_all_native(attributes: Mapping[str, Any], native: bool, where: object) -> None:
    """Raise DatasetError unless a trajectory is native exactly if ``native``, as the first is."""
    if is_native(attributes) != native:
        raise trajectory_error("only some of the episodes were exported by ofrl", where)


def refuse_flags(options: FileOptions, path: Path) -> None:
    """Raise ConfigError if options are given that a native file already answers."""
    given = {
        "--rate": options.rate is not None,
        "--action-scale": options.action_scale is not None,
        "--frame": options.frame != UNKNOWN_FRAME,
    }
    flags = [flag for flag, is_given in given.items() if is_given]
    if flags:
        raise ConfigError(
            f"was exported by ofrl and stores its rate, actions and frames; "
            f"{' and '.join(flags)} cannot change them",
            "drop the flags",
            path,
        )
