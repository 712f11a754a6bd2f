"""Read roboverse's scripted trajectories (a pickled .npy), which are also COG's training data.

The file is an object array of trajectories. Each is a dict of seven lists of T entries
(``_KEYS``). Images are stored twice in the file (observations and next_observations) and once
here. Poses and actions are in roboverse's world frame.

Not converted: agent_infos, env_infos, and everything of an observation but image and state. Actions
become float32. The file has no times, seeds or simulator settings: stamps are those of roboverse's
control rate.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional, Tuple

import numpy as np

from ofrl_robot.data.convert.importing import Source
from ofrl_robot.data.convert.options import RoboverseImport
from ofrl_robot.data.convert.trajectory import converted_episode, converted_meta, trajectory_error
from ofrl_robot.data.convert.unpickle import load_npy_objects
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import (
    WIDOWX_ACTION,
    WIDOWX_STATE_NAMES,
    WIDOWX_STATE_UNITS,
    WORLD,
    CameraSpec,
    ObservationSpec,
)

LABEL_SOURCE = "roboverse reward at last step"
ROBOT, CAMERA = "roboverse", "image"
CONTROL_RATE_HZ = 24.0  # an ordinary roboverse step: 10 substeps of 1/240 s

_KEYS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminals",
    "agent_infos",
    "env_infos",
)
_RENDERING_NOISE = 2  # levels of 255
_TASK = re.compile(r"Widow250[A-Za-z0-9]*-v\d+")


class RoboverseFile(Source):
    """The trajectories in one file. It is loaded whole, as a pickle must be.

    Raises:
        ConfigError: the task is neither given nor in the file name.
        HostilePickleError: the file asks to run code.
        DatasetError: the file does not hold a list.
    """

    def __init__(self, path: Path, options: RoboverseImport) -> None:
        self._task = options.task or task_of(path)
        self.path = path
        self._trajectories = load_npy_objects(path)
        loaded = self._trajectories
        if not isinstance(loaded, (list, np.ndarray)) or getattr(loaded, "ndim", 1) != 1:
            raise DatasetError("does not hold a list of trajectories", "check the path", path)
        self.names = [f"{path}: trajectory {i}" for i in range(len(loaded))]
        self._budget = path.stat().st_size

    def read(self, number: int) -> Episode:
        """Return one trajectory."""
        episode = _episode(self._trajectories[number], self.names[number], self._task)
        # a small file can refer to one image a million times: that would fill the disk
        images = episode.images[CAMERA]
        self._budget -= sum(image.nbytes for image in images[: len(episode)])
        if self._budget < 0:
            raise DatasetError(
                "refers to the same images many times: more data than the file has",
                "get the file again",
                self.path,
            )
        return episode


def task_of(file: Path) -> str:
    """Return the task id in a file name such as ``scripted_Widow250PickTray-v0_2021-06-01.npy``.

    Raises:
        ConfigError: the name holds none.
    """
    found = _TASK.search(file.name)
    if not found:
        raise ConfigError(
            "no task id in the file name",
            "name the task, for example --task Widow250PickTray-v0",
            file,
        )
    return found.group()


def _episode(raw: Any, where: str, task: str) -> Episode:
    """Return one trajectory. Raise DatasetError, naming the step, if it is damaged."""
    if not isinstance(raw, dict):
        raise trajectory_error("is not a dict", where)
    missing = [key for key in _KEYS if key not in raw]
    if missing:
        raise trajectory_error(f"has no {', '.join(missing)}", where)
    lengths = {key: len(raw[key]) if isinstance(raw[key], list) else None for key in _KEYS}
    steps = lengths["actions"]
    if steps is None or set(lengths.values()) != {steps}:
        raise trajectory_error(f"its lists differ in length: {lengths}", where)

    before = [_observation(o, where, t) for t, o in enumerate(raw["observations"])]
    after = [_observation(o, where, t) for t, o in enumerate(raw["next_observations"])]
    for t in range(steps - 1):
        if not _same(after[t], before[t + 1]):
            raise trajectory_error(f"next_observations[{t}] is not observations[{t + 1}]", where)
    terminals = [_number(v, "terminal", where, t) for t, v in enumerate(raw["terminals"])]
    if any(terminals[:-1]):
        raise _bad_step("goes on after the terminal", where, int(np.flatnonzero(terminals)[0]))
    actions = [_action(a, where, t) for t, a in enumerate(raw["actions"])]
    rewards = np.array([_number(r, "reward", where, t) for t, r in enumerate(raw["rewards"])])
    observed = before + after[-1:]
    images = [image for image, _ in observed]
    spec = _observation_spec(images[0].shape if images else (0, 0, 3))
    meta = converted_meta(ROBOT, task, CONTROL_RATE_HZ, WIDOWX_ACTION, spec)
    if steps:
        meta.success = SUCCESS if rewards[-1] > 0 else FAILURE
        meta.label_source = LABEL_SOURCE
    return converted_episode(
        meta,
        {CAMERA: images},
        np.array([state for _, state in observed]),
        np.array(actions).reshape(steps, WIDOWX_ACTION.size),
        rewards,
        terminated=bool(terminals and terminals[-1]),
    )


def _observation(value: Any, where: str, step: int) -> Tuple[np.ndarray, np.ndarray]:
    if not isinstance(value, dict) or "image" not in value or "state" not in value:
        raise _bad_step("an observation has no image or no state", where, step)
    return (
        _image(value["image"], where, step),
        _vector(value["state"], len(WIDOWX_STATE_NAMES), "state", where, step),
    )


def _same(after: Tuple[np.ndarray, np.ndarray], before: Tuple[np.ndarray, np.ndarray]) -> bool:
    """Return whether two (image, state) show the same moment.

    roboverse renders each moment twice. In 1 of 15 recorded files a pixel was rounded to the other
    side, one level up or down.
    """
    if after[0].shape != before[0].shape or not np.array_equal(after[1], before[1]):
        return False
    return bool(np.abs(after[0].astype(np.int16) - before[0]).max() <= _RENDERING_NOISE)


def as_picture(value: Any) -> Optional[np.ndarray]:
    """Return a recorded image as uint8 (H, W, 3), None for anything else.

    A flat image is square, rows first, as the collectors store it.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.size > 0:
        if value.ndim == 3 and value.shape[2] == 3:
            return value
        side = int(round((value.size / 3) ** 0.5))
        if value.shape == (3 * side * side,):
            return value.reshape(side, side, 3)
    return None


def _image(value: Any, where: str, step: int) -> np.ndarray:
    picture = as_picture(value)
    if picture is not None:
        return picture
    shown = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value)
    raise _bad_step(f"image is {shown}, expected uint8 (H, W, 3)", where, step)


def _action(value: Any, where: str, step: int) -> np.ndarray:
    action = _vector(value, WIDOWX_ACTION.size, "action", where, step)
    if np.abs(action).max() > 1.0:
        what = f"action entry of {np.abs(action).max():.3g} is beyond [-1, 1]"
        raise _bad_step(what, where, step)
    return action


def _vector(value: Any, size: int, name: str, where: str, step: int) -> np.ndarray:
    if not (isinstance(value, np.ndarray) and value.shape == (size,) and value.dtype.kind in "fiu"):
        raise _bad_step(f"{name} is not a vector of {size} numbers", where, step)
    vector = value.astype(np.float64)
    if not np.isfinite(vector).all():
        raise _bad_step(f"{name} is not finite", where, step)
    return vector


def _number(value: Any, name: str, where: str, step: int) -> float:
    if not isinstance(value, (bool, int, float, np.integer, np.floating, np.bool_)):
        raise _bad_step(f"{name} is not a number", where, step)
    if not -1e300 < value < 1e300:  # also catches NaN, and integers that no float can hold
        raise _bad_step(f"{name} is not finite", where, step)
    return float(value)


def _bad_step(what: str, where: str, step: int) -> DatasetError:
    return trajectory_error(what, f"{where}, step {step}")


def _observation_spec(shape: Tuple[int, ...]) -> ObservationSpec:
    camera = CameraSpec(CAMERA, int(shape[0]), int(shape[1]))
    return ObservationSpec((camera,), WIDOWX_STATE_NAMES, WIDOWX_STATE_UNITS, WORLD)
