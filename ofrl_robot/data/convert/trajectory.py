"""Build an :class:`Episode` from the arrays of a foreign trajectory."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple

import numpy as np

from ofrl_robot.control import signals
from ofrl_robot.control.limiter import OTHER, limit_bits
from ofrl_robot.data.convert.options import RATE_RANGE, FileOptions, is_rate
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import UNKNOWN_FRAME, ActionSpec, CameraSpec, ObservationSpec

CONVERTED = "converted"  # the actor of every episode that was not recorded by this package
ACTION_TOLERANCE = 1e-6  # rounding a 1 to float32 and back may exceed 1 by less than this

_FIX = "repair the source, or skip such trajectories with --skip-bad"
_log = logging.getLogger(__name__)


def trajectory_error(what: str, where: object, fix: str = _FIX) -> DatasetError:
    """Return the error to raise for a trajectory that cannot be used.

    Args:
        what: what is wrong, with the offending value.
        where: file and trajectory.
        fix: what the user can do.
    """
    return DatasetError(what, fix, where)


# -- observations ----------------------------------------------------------------------------


@dataclasses.dataclass
class Observed:
    """Observations of one trajectory, sorted into cameras and state.

    Attributes:
        images: uint8 (rows, H, W, 3) per camera.
        state: float64 (rows, D).
        spec: names of both; units are unknown.
        left_out: names of arrays that are neither (depth, text, images of one channel).
    """

    images: Dict[str, np.ndarray]
    state: np.ndarray
    spec: ObservationSpec
    left_out: List[str]


def sort_observations(arrays: Mapping[str, np.ndarray], frame: str = UNKNOWN_FRAME) -> Observed:
    """Sort arrays into cameras and state.

    An array of uint8 (rows, H, W, 3) is a camera. Any other numbers of shape (rows,) or (rows, n)
    are joined to the state in the order of their names; entry i of ``eef_pos`` becomes
    ``eef_pos_i``.

    Args:
        arrays: observations by name, each with one row per observation.
        frame: frame of reference of the poses in the state.
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
    cameras = tuple(CameraSpec(n, a.shape[1], a.shape[2]) for n, a in images.items())
    spec = ObservationSpec(cameras, tuple(names), ("unknown",) * len(names), frame)
    return Observed(images, state, spec, left_out)


def _camera_name(name: str, taken: Iterable[str]) -> str:
    """Return a name that is valid for a ROS topic and for a dataset beside ``obs/state``."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    name = "image" if name in ("state", "observations") else name
    while name in taken:
        name += "_"
    return name


class LeftOutWarnings:
    """Warnings about observations that an episode cannot hold, one per name.

    Args:
        prefix: where the observations are stored in the source, for the message ("obs/").
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._done: Set[str] = set()

    def warn(self, names: Iterable[str]) -> None:
        """Log a warning for each name that has not been named before."""
        for name in sorted(set(names) - self._done):
            _log.warning("%s%s is neither an RGB image nor a vector, left out", self._prefix, name)
            self._done.add(name)


# -- actions, numbers ------------------------------------------------------------------------


def unit_actions(actions: Any, scale: np.ndarray, where: object) -> np.ndarray:
    """Return ``actions / scale`` as float64 (T, A) in [-1, 1].

    Args:
        actions: (T, A) in the units of the source.
        scale: (A,), the amount that an action of 1 stands for.
        where: trajectory, for the message.

    Raises:
        DatasetError: an action is beyond [-1, 1]; the message names a sufficient scale.
    """
    unit = numbers(actions, "actions", where) / scale
    if unit.ndim != 2:
        raise trajectory_error(f"actions are {unit.shape}, (steps, entries) expected", where)
    worst = float(np.abs(unit).max()) if unit.size else 0.0
    if worst > 1 + ACTION_TOLERANCE:
        needed = float(np.abs(unit * scale).max())
        fix = f"pass the amount that an action of 1 stands for: --action-scale {needed:.3g} or more"
        raise trajectory_error(f"an action of {worst:.4g} is beyond [-1, 1]", where, fix)
    return np.clip(unit, -1.0, 1.0)


def numbers(value: Any, name: str, where: object) -> np.ndarray:
    """Return ``value`` as float64. Raise DatasetError unless it is all finite numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise trajectory_error(f"{name} are {array.dtype}, numbers expected", where)
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise trajectory_error(f"{name} are not finite", where)
    return array


def flat(value: Any, name: str, where: object) -> np.ndarray:
    """Return float64 (T,) from (T,) or (T, 1). Raise DatasetError for other shapes."""
    array = numbers(value, name, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise trajectory_error(f"{name} are {array.shape}, one number per step expected", where)
    return array


def unnamed_actions(scale: np.ndarray, frame: str = UNKNOWN_FRAME) -> ActionSpec:
    """Return the spec of actions with unknown names and units, from their ``scale`` (A,)."""
    names = tuple(f"action_{i}" for i in range(len(scale)))
    return ActionSpec(names, ("unknown",) * len(scale), tuple(map(float, scale)), frame=frame)


def control_rate(options: FileOptions, found: Any, path: Path) -> float:
    """Return the control rate in Hz: the option if given, else ``found`` in the source.

    Raises:
        ConfigError: neither is there, or the one in the source is not a possible rate.
    """
    value = options.rate if options.rate is not None else found
    if value is None:
        raise ConfigError("does not store its control rate", "pass --rate HZ", path)
    if not isinstance(value, (int, float, np.integer, np.floating)) or not is_rate(value):
        text = ascii(str(value))[1:-1]
        raise ConfigError(
            f"stores a control rate of {text:.40} Hz, {RATE_RANGE} expected", "pass --rate HZ", path
        )
    return float(value)


# -- rewards and labels ----------------------------------------------------------------------


def sparse_label(rewards: np.ndarray, sparse: bool, source: str) -> Dict[str, Any]:
    """Return the fields ``success`` and ``label_source`` by the last reward, or none.

    Args:
        rewards: (T,) of one trajectory.
        sparse: result of :func:`is_sparse` for the rewards of the whole source.
        source: name of the format, for ``label_source``.
    """
    if not sparse or not len(rewards):
        return {}
    success = schema.SUCCESS if rewards[-1] > 0 else schema.FAILURE
    return {"success": success, "label_source": f"{source} reward at last step"}


def is_sparse(values: Iterable[float]) -> bool:
    """Return whether rewards are all 0 or 1, and not all 0, so that they mark success.

    Args:
        values: the distinct rewards of the whole source.
    """
    rewarded = False
    for value in values:
        if value not in (0.0, 1.0):
            return False
        rewarded = rewarded or value == 1.0
    return rewarded


# -- episodes --------------------------------------------------------------------------------


def converted_meta(
    robot: str,
    task: str,
    rate_hz: float,
    actions: ActionSpec,
    observations: ObservationSpec,
    **fields: Any,
) -> schema.EpisodeMeta:
    """Return the metadata of an episode that this package did not record."""
    return schema.EpisodeMeta(
        robot, task, actions, observations, float(rate_hz), actor=CONVERTED, **fields
    )


def converted_episode(
    meta: schema.EpisodeMeta,
    images: Dict[str, Any],
    state: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    terminated: bool,
    stamps: Optional[np.ndarray] = None,
    requested: Optional[np.ndarray] = None,
) -> Episode:
    """Return an episode of T steps that ends with its last step.

    Args:
        meta: attributes of the episode.
        images: T+1 frames uint8 (H, W, 3) per camera.
        state: (T+1, D).
        actions: (T, A) in [-1, 1].
        rewards: (T,).
        terminated: whether the last step is a true terminal and not a timeout.
        stamps: int64 ns (T+1,); None for stamps at the control rate, starting at 0.
        requested: (T, A), the requested actions; None if they equal ``actions``.
    """
    steps = len(actions)
    last = np.arange(steps) == steps - 1
    if stamps is None:
        stamps = np.round(np.arange(steps + 1) * 1e9 / meta.control_rate_hz).astype(np.int64)
    requested = actions if requested is None else requested
    limited = (requested != actions).any(axis=1)
    return Episode(
        meta=meta,
        images=images,
        state=state,
        actions=actions,
        actions_requested=requested,
        rewards=rewards,
        terminals=last & terminated,
        timeouts=last & (not terminated),
        limits=np.where(limited, limit_bits([OTHER]), 0).astype(np.uint32),
        source=unknown_source(steps),
        intervention=np.zeros(steps, bool),
        timestamps={"obs": stamps},
        late=np.zeros(steps, bool),
    )


def unknown_source(steps: int) -> np.ndarray:
    """Return the column ``source`` of data that does not say who commanded: uint8 (steps,)."""
    return np.full(steps, signals.SOURCES.index(signals.UNKNOWN_SOURCE), np.uint8)


def without_last_observation(
    observed: Observed, actions: np.ndarray, rewards: np.ndarray, terminated: bool
) -> Tuple[Observed, np.ndarray, np.ndarray]:
    """Complete a trajectory of T actions whose source stores only T observations.

    After a terminal no value is bootstrapped, so the last observation is repeated there. After a
    timeout the missing observation would be needed, so the last transition is dropped.

    Returns:
        Observations with one row more than there are actions, actions, rewards.
    """
    if not terminated:
        return observed, actions[:-1], rewards[:-1]
    images = {name: _repeat_last(rows) for name, rows in observed.images.items()}
    complete = dataclasses.replace(observed, images=images, state=_repeat_last(observed.state))
    return complete, actions, rewards


def _repeat_last(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, rows[-1:]])
