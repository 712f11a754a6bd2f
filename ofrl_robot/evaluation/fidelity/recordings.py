"""Reads roboverse's recorded trajectories for replaying: all but the images, and forgivingly.

The converter (``data/convert/roboverse.py``) makes training data and is strict about every
field; here an episode needs what a replay compares, in whatever sequences it was stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import numpy as np

from ofrl_robot import specs
from ofrl_robot.data.convert.unpickle import load_npy_objects
from ofrl_robot.errors import DatasetError
from ofrl_robot.evaluation.fidelity.replay import Recording


def load_trajectories(file: Path) -> Sequence[Any]:
    """The trajectories in ``file``, still unchecked; see :func:`parse_recording`.

    Raises:
        HostilePickleError: the file asks to run code.
        DatasetError: damaged, or not a list with at least one entry.
    """
    loaded = load_npy_objects(file)
    if not _is_sequence(loaded):
        raise DatasetError("not a list of trajectories", "give a roboverse .npy file", file)
    if not len(loaded):
        raise DatasetError("holds no trajectory", "give a file with episodes", file)
    return loaded


def parse_recording(raw: Any) -> Recording:
    """Check one trajectory. Actions of 7 entries are padded with 0, as the collectors do.

    Raises:
        DatasetError: something that a replay needs is missing, ragged, or not finite.
    """
    if not isinstance(raw, dict):
        raise DatasetError("no dict of lists")
    before, after = (_sequence(raw, key) for key in ("observations", "next_observations"))
    actions = _rows(_sequence(raw, "actions"), "actions")
    rewards = _rows(_sequence(raw, "rewards"), "rewards", 1)
    infos = _infos(raw.get("env_infos"))
    lengths = {len(part) for part in (before, after, actions, rewards, *infos.values())}
    if len(lengths) != 1:
        raise DatasetError("its lists differ in length")
    if lengths == {0}:
        raise DatasetError("no step")
    if actions.shape[1] == specs.WIDOWX_ACTION.size - 1:
        actions = np.pad(actions, ((0, 0), (0, 1)))
    if actions.shape[1] != specs.WIDOWX_ACTION.size:
        raise DatasetError(f"actions of {actions.shape[1]} entries")
    observed = [before[0], *after]
    return Recording(
        actions=np.clip(actions, -1.0, 1.0),
        ee_positions=_observed(observed, "state", len(specs.WIDOWX_STATE_NAMES))[:, :3],
        object_positions=_observed(observed, "object_position", 3),
        object_orientation=_observed(observed[:1], "object_orientation", 4)[0],
        rewards=rewards[:, 0],
        infos=infos,
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _sequence(raw: Dict[str, Any], key: str) -> Sequence[Any]:
    if key not in raw:
        raise DatasetError(f"no {key}")
    if not _is_sequence(raw[key]):
        raise DatasetError(f"{key} is no list")
    return raw[key]


def _observed(observations: Sequence[Any], key: str, size: int) -> np.ndarray:
    """Column ``key`` of the observations, float64 (len, size)."""
    if not all(isinstance(o, dict) and key in o for o in observations):
        raise DatasetError(f"observations without {key}")
    return _rows([o[key] for o in observations], key, size)


def _infos(values: Any) -> Dict[str, np.ndarray]:
    """The info entries that are one finite number at every step, float64 (T,) each."""
    if not (_is_sequence(values) and len(values) and all(isinstance(v, dict) for v in values)):
        return {}
    columns = {}
    for key in values[0]:
        if all(key in info and np.size(info[key]) == 1 for info in values):
            column = _numbers([info[key] for info in values])
            if column is not None and np.isfinite(column).all():
                columns[key] = column[:, 0]
    return columns


def _rows(values: Sequence[Any], name: str, size: int = 0) -> np.ndarray:
    """Float64 (len, size), finite; any size when 0."""
    rows = _numbers(values)
    if rows is None or (size and len(rows) and rows.shape[1] != size):
        raise DatasetError(f"{name} are no equal rows of numbers")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise DatasetError(f"{name} not finite at step {int(np.argmin(finite))}")
    return rows


def _numbers(values: Sequence[Any]) -> Optional[np.ndarray]:
    """Float64 (len, width) from scalars or vectors, None when they are not numbers."""
    try:
        rows = [np.asarray(value, np.float64).reshape(-1) for value in values]
        return np.array(rows, np.float64).reshape(len(rows), -1 if rows else 0)
    except (TypeError, ValueError, OverflowError):
        return None
