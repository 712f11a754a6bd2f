"""Read roboverse's recorded trajectories for a replay.

The converter (``data/convert/roboverse.py``) makes training data and is strict about every field.
Here an episode only needs the fields that a replay compares, in lists, tuples or arrays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Sized

import numpy as np

from ofrl_robot import specs
from ofrl_robot.data.convert.roboverse import as_picture
from ofrl_robot.data.convert.unpickle import load_npy_objects
from ofrl_robot.errors import DatasetError
from ofrl_robot.evaluation.fidelity.replay import Recording


def load_trajectories(file: Path) -> Sequence[Any]:
    """Return the trajectories in ``file``, not yet checked; see :func:`parse_recording`.

    Raises:
        HostilePickleError: the file asks to run code.
        DatasetError: the file is damaged, or is not a list with at least one entry.
    """
    loaded = load_npy_objects(file)
    if not _is_sequence(loaded):
        raise DatasetError("not a list of trajectories", "give a roboverse .npy file", file)
    if not len(loaded):
        raise DatasetError("holds no trajectory", "give a file with episodes", file)
    return loaded


def parse_recording(raw: Any) -> Recording:
    """Check one trajectory and return it as arrays.

    Actions of 7 entries are padded with 0, as roboverse's collection scripts do.

    Raises:
        DatasetError: a field that a replay needs is missing, ragged, or not finite.
    """
    if not isinstance(raw, dict):
        raise DatasetError("it is not a dict of lists")
    before, after = (_sequence(raw, key) for key in ("observations", "next_observations"))
    actions = _rows(_sequence(raw, "actions"), "actions")
    rewards = _rows(_sequence(raw, "rewards"), "rewards", 1)
    infos = _infos(raw.get("env_infos"))
    parts: List[Sized] = [before, after, actions, rewards, *infos.values()]
    lengths = {len(part) for part in parts}
    if len(lengths) != 1:
        raise DatasetError("its lists differ in length")
    if lengths == {0}:
        raise DatasetError("it has no steps")
    if actions.shape[1] == specs.WIDOWX_ACTION.size - 1:
        actions = np.pad(actions, ((0, 0), (0, 1)))
    if actions.shape[1] != specs.WIDOWX_ACTION.size:
        raise DatasetError(f"its actions have {actions.shape[1]} entries, not 7 or 8")
    observed = [before[0], *after]
    return Recording(
        actions=np.clip(actions, -1.0, 1.0),
        ee_positions=_observed(observed, "state", len(specs.WIDOWX_STATE_NAMES))[:, :3],
        object_positions=_observed(observed, "object_position", 3),
        object_orientation=_observed(observed[:1], "object_orientation", 4)[0],
        rewards=rewards[:, 0],
        infos=infos,
        images=_images(observed),
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _sequence(raw: Dict[str, Any], key: str) -> Sequence[Any]:
    if key not in raw:
        raise DatasetError(f"it has no {key}")
    if not _is_sequence(raw[key]):
        raise DatasetError(f"field {key} is not a list")
    return raw[key]


def _observed(observations: Sequence[Any], key: str, size: int) -> np.ndarray:
    """Return column ``key`` of the observations, float64 (len, size)."""
    if not all(isinstance(o, dict) and key in o for o in observations):
        raise DatasetError(f"its observations have no {key}")
    return _rows([o[key] for o in observations], key, size)


def _images(observed: Sequence[Any]) -> Optional[np.ndarray]:
    """Return the pictures uint8 (len, H, H, 3), None unless all are there, alike and square."""
    pictures = [as_picture(one.get("image")) for one in observed]
    found = [picture for picture in pictures if picture is not None]
    shapes = {picture.shape for picture in found}
    if len(found) < len(pictures) or len(shapes) != 1:
        return None
    height, width, _ = shapes.pop()
    return np.array(found) if height == width else None


def _infos(values: Any) -> Dict[str, np.ndarray]:
    """Return the info entries that are one finite number at every step, float64 (T,) each."""
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
    """Return values as finite float64 (len, size); ``size`` 0 allows any."""
    rows = _numbers(values)
    if rows is None or (size and len(rows) and rows.shape[1] != size):
        raise DatasetError(f"field {name} is not rows of numbers of equal length")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise DatasetError(f"field {name} is not finite at step {int(np.argmin(finite))}")
    return rows


def _numbers(values: Sequence[Any]) -> Optional[np.ndarray]:
    """Return scalars or vectors as float64 (len, width), None if they are not numbers."""
    try:
        rows = [np.asarray(value, np.float64).reshape(-1) for value in values]
        return np.array(rows, np.float64).reshape(len(rows), -1 if rows else 0)
    except (TypeError, ValueError, OverflowError):
        return None
