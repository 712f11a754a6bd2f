"""Between the arrays of somebody else's trajectory and an :class:`Episode`, in both directions."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

import numpy as np

from ofrl_robot.data.convert.options import FileOptions
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import UNKNOWN_FRAME, ActionSpec, CameraSpec, ObservationSpec

CONVERTED = "converted"  # the actor of every episode that was not recorded by this package
STEP_ROWS = ("actions", "rewards", "terminals", "timeouts")  # what all formats hold

_TOLERANCE = 1e-6  # of actions beyond 1: what float32 makes of 1
_FIX = "mend the source, or leave such trajectories out with --skip-bad"


def bad(what: str, where: object, fix: str = _FIX) -> DatasetError:
    """The error for a trajectory that cannot be used."""
    return DatasetError(what, fix, where)


@dataclasses.dataclass
class Observed:
    """Observations of a trajectory, sorted into what an episode holds.

    Attributes:
        images: uint8 (rows, H, W, 3) per camera. state: float64 (rows, D).
        spec: names of both; the units are not known.
        left_out: names of arrays that are neither (depth, text, images of one channel).
    """

    images: Dict[str, np.ndarray]
    state: np.ndarray
    spec: ObservationSpec
    left_out: List[str]


def sort_observations(arrays: Mapping[str, np.ndarray]) -> Observed:
    """uint8 (rows, H, W, 3) is a camera, any other numbers (rows,) or (rows, n) are state.

    The state is put together in the order of the names; entry i of ``eef_pos`` is ``eef_pos_i``.
    """
    images: Dict[str, np.ndarray] = {}
    columns: List[np.ndarray] = []
    names: List[str] = []
    left_out: List[str] = []
    rows = 0
    for name in sorted(arrays):
        array = arrays[name]
        rows = len(array)
        if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3:
            images[_camera_name(name, images)] = array
        elif array.dtype.kind in "fiub" and array.ndim <= 2:
            columns.append(array.reshape(rows, -1).astype(np.float64))
            width = columns[-1].shape[1]
            scalar = array.ndim == 1
            names += [name] if scalar else [f"{name}_{i}" for i in range(width)]
        else:
            left_out.append(name)
    state = np.concatenate(columns, axis=1) if columns else np.zeros((rows, 0))
    cameras = tuple(CameraSpec(n, *map(int, a.shape[1:3])) for n, a in images.items())
    spec = ObservationSpec(cameras, tuple(names), ("unknown",) * len(names), UNKNOWN_FRAME)
    return Observed(images, state, spec, left_out)


def _camera_name(name: str, taken: Iterable[str]) -> str:
    """A name that a topic and a dataset beside ``obs/state`` can have."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    name = "image" if name in ("state", "observations") else name
    while name in taken:
        name += "_"
    return name


def unit_actions(actions: Any, scale: np.ndarray, where: object) -> np.ndarray:
    """``actions / scale`` as float64 (T, A) in [-1, 1].

    Raises DatasetError where an action is beyond that, naming the scale that would do.
    """
    unit = numbers(actions, "actions", where) / scale
    if unit.ndim != 2:
        raise bad(f"actions are {unit.shape}, (steps, entries) expected", where)
    worst = float(np.abs(unit).max()) if unit.size else 0.0
    if worst > 1 + _TOLERANCE:
        needed = float(np.abs(unit * scale).max())
        fix = f"say what an action of 1 stands for: --action-scale {needed:.3g} or more"
        raise bad(f"an action of {worst:.4g} is beyond [-1, 1]", where, fix)
    return np.clip(unit, -1.0, 1.0)


def numbers(value: Any, name: str, where: object) -> np.ndarray:
    """``value`` as a finite float64 array, or DatasetError."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise bad(f"{name} are no numbers but {array.dtype}", where)
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise bad(f"{name} are not finite", where)
    return array


def flat(value: Any, name: str, where: object) -> np.ndarray:
    """Float64 (T,) from (T,) or (T, 1)."""
    array = numbers(value, name, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise bad(f"{name} are {array.shape}, one number per step expected", where)
    return array


def unnamed_actions(scale: np.ndarray) -> ActionSpec:
    """Spec of actions of which nothing is known but ``scale`` (A,)."""
    names = tuple(f"action_{i}" for i in range(len(scale)))
    return ActionSpec(
        names, ("unknown",) * len(scale), tuple(map(float, scale)), frame=UNKNOWN_FRAME
    )


def rate(options: FileOptions, found: Any, path: Path) -> float:
    """Control rate in Hz: as told, or as ``found`` in the source; raises ConfigError without."""
    value = options.rate or found
    if not isinstance(value, (int, float, np.integer, np.floating)) or not 0 < value < 1e6:
        raise ConfigError("does not say at what rate it was recorded", "pass --rate HZ", path)
    return float(value)


def refuse_for_own(options: FileOptions, path: Path) -> None:
    """Raise ConfigError where options are given that a file of this package answers itself."""
    if options.rate or options.action_scale:
        raise ConfigError("says its rate and its actions itself", "leave the flags out", path)


def converted_meta(
    robot: str, task: str, rate_hz: float, actions: ActionSpec, observations: ObservationSpec,
    **fields: Any,
) -> schema.EpisodeMeta:  # fmt: skip
    """Metadata of an episode that this package did not record."""
    return schema.EpisodeMeta(
        robot, task, actions, observations, float(rate_hz), actor=CONVERTED, **fields
    )


def converted_episode(
    meta: schema.EpisodeMeta, images: Dict[str, Any], state: np.ndarray, actions: np.ndarray,
    rewards: np.ndarray, terminated: bool, stamps: Optional[np.ndarray] = None,
    requested: Optional[np.ndarray] = None,
) -> Episode:  # fmt: skip
    """An episode of T steps that ends with its last one.

    Args:
        images: T+1 uint8 (H, W, 3) frames per camera. state: (T+1, D).
        actions: (T, A). rewards: (T,).
        terminated: the last step is a true terminal, not a timeout.
        stamps: int64 ns (T+1,); None for stamps at the control rate, starting at 0.
        requested: (T, A), what was asked for where that differs from ``actions``.
    """
    steps = len(actions)
    last = np.arange(steps) == steps - 1
    if stamps is None:
        stamps = np.round(np.arange(steps + 1) * 1e9 / meta.control_rate_hz).astype(np.int64)
    requested = actions if requested is None else requested
    return Episode(
        meta=meta,
        images=images,
        state=state,
        actions=actions,
        actions_requested=requested,
        rewards=rewards,
        terminals=last & terminated,
        timeouts=last & (not terminated),
        limited=(requested != actions).any(axis=1),
        intervention=np.zeros(steps, bool),
        timestamps={"obs": stamps},
        held=np.zeros(steps, bool),
    )


def without_last_observation(
    observed: Observed, actions: np.ndarray, rewards: np.ndarray, terminated: bool
) -> Tuple[Observed, np.ndarray, np.ndarray]:
    """(observations of T+1 rows, actions, rewards) where the source has but T observations.

    After a terminal nothing counts, so there the last observation is repeated. After a timeout
    the observation is needed and missing, so there the last transition is dropped.
    """
    if not terminated:
        return observed, actions[:-1], rewards[:-1]
    return (
        dataclasses.replace(
            observed,
            images={name: _repeat_last(rows) for name, rows in observed.images.items()},
            state=_repeat_last(observed.state),
        ),
        actions,
        rewards,
    )


def _repeat_last(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, rows[-1:]])


def sparse_label(rewards: np.ndarray, sparse: bool, source: str) -> Dict[str, Any]:
    """Fields ``success`` and ``label_source``: by the last reward, or unknown.

    Args:
        sparse: the rewards of the whole source are 0 or 1, and not all 0; of others nothing
            can be told.
    """
    if not sparse or not len(rewards):
        return {}
    success = schema.SUCCESS if rewards[-1] > 0 else schema.FAILURE
    return {"success": success, "label_source": f"{source} reward at last step"}


def is_sparse(values: Iterable[float]) -> bool:
    """Whether rewards (their distinct values) say by themselves what success is."""
    rewarded = False
    for value in values:
        if value not in (0.0, 1.0):
            return False
        rewarded = rewarded or value == 1.0
    return rewarded


# An episode of this package that went through another format and comes back. Its arrays keep the
# names that they have in an episode file.


def arrays_of(episode: Episode) -> Dict[str, np.ndarray]:
    """All arrays of an episode by their names in its file, ``obs/*`` with T+1 rows."""
    arrays = {f"obs/{name}": images for name, images in episode.images.items()}
    arrays["obs/state"] = episode.state
    arrays.update({name: getattr(episode, name) for name in STEP_ROWS})
    for name in ("actions_requested", "limited", "intervention", "held"):
        if getattr(episode, name) is not None:
            arrays[name] = getattr(episode, name)
    arrays.update({f"timestamps/{name}": rows for name, rows in episode.timestamps.items()})
    return arrays


def has_final_row(name: str) -> bool:
    """Whether an array has a row for the observation after the last action."""
    room, _, leaf = name.partition("/")
    return room == "obs" or (room == "timestamps" and leaf not in schema.ACTION_STAMPS)


def is_own(attributes: Mapping[str, Any]) -> bool:
    """Whether a trajectory carries the metadata of an episode of this package."""
    return "format_version" in attributes


def require_own(attributes: Mapping[str, Any], own: bool, where: object) -> None:
    """Raise DatasetError where one trajectory is from this package and the first is not."""
    if is_own(attributes) != own:
        raise bad("some episodes are from this package, some are not", where)


def own_episode(
    attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: object
) -> Episode:
    """Inverse of :func:`arrays_of`. Raises DatasetError naming what is missing."""
    meta = schema.EpisodeMeta.from_attrs(dict(attributes), where)
    cameras = [camera.name for camera in meta.observation_spec.cameras]
    needed = [*STEP_ROWS, "obs/state", *(f"obs/{name}" for name in cameras)]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise bad(f"has no {', '.join(missing)}", where)
    none = np.zeros(len(arrays["actions"]), bool)
    return Episode(
        meta=meta,
        images={name: arrays[f"obs/{name}"] for name in cameras},
        state=arrays["obs/state"],
        actions_requested=arrays.get("actions_requested", arrays["actions"]),
        limited=arrays.get("limited", none),
        intervention=arrays.get("intervention", none),
        held=arrays.get("held", none),
        timestamps={
            name.partition("/")[2]: rows
            for name, rows in arrays.items()
            if name.startswith("timestamps/")
        },
        **{name: arrays[name] for name in STEP_ROWS},
    )
