"""Turns roboverse's scripted trajectories (a pickled .npy) into episodes.

Such a file is an object array of trajectories; each is a dict of seven lists of T entries
(``_KEYS``). Images are stored twice there (observations and next_observations) and once here.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from ofrl_robot.control.signals import POLICY, Applied, Tick
from ofrl_robot.data.convert.unpickle import load_npy_objects
from ofrl_robot.data.schema import FAILURE, SUCCESS, EpisodeMeta, episode_paths
from ofrl_robot.data.writer import EpisodeWriter
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import (
    WIDOWX_ACTION,
    WIDOWX_STATE_NAMES,
    WIDOWX_STATE_UNITS,
    CameraSpec,
    ObservationSpec,
)

LABEL_SOURCE = "roboverse reward at last step"
ROBOT, ACTOR, CAMERA = "roboverse", "converted", "image"
CONTROL_RATE_HZ = 24.0  # an ordinary roboverse step: 10 substeps of 1/240 s

_KEYS = ("observations", "actions", "rewards", "next_observations", "terminals", "agent_infos",
         "env_infos")  # fmt: skip
_TASK = re.compile(r"Widow250[A-Za-z0-9]*-v\d+")
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Trajectory:
    """One checked trajectory of T steps.

    Attributes:
        images: T+1 arrays, uint8 (H, W, 3) each; the file's own arrays, not copies.
        states: float64 (T+1, 10). actions: float64 (T, 8) in [-1, 1]. rewards: float64 (T,).
        terminated: the last step is a true terminal (roboverse itself never sets one).
    """

    images: List[np.ndarray]
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool

    def __len__(self) -> int:
        return len(self.actions)


def convert(file: Path, out: Path, task: str = "") -> int:
    """Convert ``file`` into episodes in ``out``; returns how many.

    The whole file is parsed and checked before anything is written, and ``out`` appears
    complete or not at all. Trajectories without a single step are skipped with a warning.

    Raises ConfigError when ``task`` is neither given nor in the file name, HostilePickleError
    when the file asks to run code, DatasetError when it is anything but roboverse trajectories
    or ``out`` is not new or empty.
    """
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise DatasetError("is a file", "choose a new folder", out)
    if out.is_dir() and any(out.iterdir()):
        what = "holds episodes already" if episode_paths(out) else "is not empty"
        raise DatasetError(what, "choose a new folder", out)
    task = task or task_of(file)
    trajectories = parse(load_npy_objects(file), file)
    _require_plausible_size(trajectories, file)
    meta = EpisodeMeta(
        robot=ROBOT,
        task=task,
        action_spec=WIDOWX_ACTION,
        observation_spec=_observation_spec(trajectories[0].images[0].shape),
        control_rate_hz=CONTROL_RATE_HZ,
        actor=ACTOR,
    )
    _write_all(trajectories, meta, out)
    return len(trajectories)


def task_of(file: Path) -> str:
    """Task id in a file name such as ``scripted_Widow250PickTray-v0_2021-06-01.npy``."""
    found = _TASK.search(file.name)
    if not found:
        raise ConfigError("no task id in the file name", "pass --task Widow250...-v0", file)
    return found.group()


def parse(loaded: Any, file: Path) -> List[Trajectory]:
    """Check the content of a file, raising DatasetError that names trajectory and step."""
    if not isinstance(loaded, (list, np.ndarray)) or getattr(loaded, "ndim", 1) != 1:
        raise DatasetError("not a list of trajectories", "check the path", file)
    trajectories = []
    for number, raw in enumerate(loaded):
        where = "{}: trajectory {}".format(file, number)
        trajectory = _trajectory(raw, where)
        if len(trajectory):
            trajectories.append(trajectory)
    if not trajectories:
        raise DatasetError("no trajectory with a single step", "check the path", file)
    if len(trajectories) < len(loaded):
        _log.warning("%s: skipped %d trajectories without a step", file,
                     len(loaded) - len(trajectories))  # fmt: skip
    sizes = sorted({image.shape for t in trajectories for image in t.images})
    if len(sizes) > 1:
        raise DatasetError("images of several sizes {}".format(sizes), "split the file", file)
    return trajectories


def _trajectory(raw: Any, where: str) -> Trajectory:
    if not isinstance(raw, dict):
        raise _bad("is no dict", where)
    missing = [key for key in _KEYS if key not in raw]
    if missing:
        raise _bad("has no {}".format(", ".join(missing)), where)
    lengths = {key: len(raw[key]) if isinstance(raw[key], list) else None for key in _KEYS}
    steps = lengths["actions"]
    if steps is None or set(lengths.values()) != {steps}:
        raise _bad("its lists differ in length: {}".format(lengths), where)

    before = [_observation(o, where, t) for t, o in enumerate(raw["observations"])]
    after = [_observation(o, where, t) for t, o in enumerate(raw["next_observations"])]
    for t in range(steps - 1):
        if not all(np.array_equal(a, b) for a, b in zip(after[t], before[t + 1])):
            raise _bad("next_observations[{}] is not observations[{}]".format(t, t + 1), where)
    observed = before + after[-1:]
    terminals = [_number(v, "terminal", where, t) for t, v in enumerate(raw["terminals"])]
    if any(terminals[:-1]):
        raise _bad("goes on after the terminal", where, int(np.flatnonzero(terminals)[0]))
    return Trajectory(
        images=[image for image, _ in observed],
        states=np.array([state for _, state in observed]),
        actions=np.array([_action(a, where, t) for t, a in enumerate(raw["actions"])]),
        rewards=np.array([_number(r, "reward", where, t) for t, r in enumerate(raw["rewards"])]),
        terminated=bool(terminals and terminals[-1]),
    )


def _observation(value: Any, where: str, step: int) -> Tuple[np.ndarray, np.ndarray]:
    if not isinstance(value, dict) or "image" not in value or "state" not in value:
        raise _bad("observation without image and state", where, step)
    return (
        _image(value["image"], where, step),
        _vector(value["state"], len(WIDOWX_STATE_NAMES), "state", where, step),
    )


def _image(value: Any, where: str, step: int) -> np.ndarray:
    """uint8 (H, W, 3); a flat image is taken as square, rows first, as the collectors set it."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.size > 0:
        if value.ndim == 3 and value.shape[2] == 3:
            return value
        side = int(round((value.size / 3) ** 0.5))
        if value.shape == (3 * side * side,):
            return value.reshape(side, side, 3)
    shown = "{0.dtype} {0.shape}".format(value) if isinstance(value, np.ndarray) else type(value)
    raise _bad("image is {}, expected uint8 (H, W, 3)".format(shown), where, step)


def _action(value: Any, where: str, step: int) -> np.ndarray:
    action = _vector(value, WIDOWX_ACTION.size, "action", where, step)
    if np.abs(action).max() > 1.0:
        raise _bad("action entry of {:.3g} is beyond [-1, 1]".format(np.abs(action).max()), where,
                   step)  # fmt: skip
    return action


def _vector(value: Any, size: int, name: str, where: str, step: int) -> np.ndarray:
    if not (isinstance(value, np.ndarray) and value.shape == (size,) and value.dtype.kind in "fiu"):
        raise _bad("{} is no vector of {} numbers".format(name, size), where, step)
    vector = value.astype(np.float64)
    if not np.isfinite(vector).all():
        raise _bad("{} is not finite".format(name), where, step)
    return vector


def _number(value: Any, name: str, where: str, step: int) -> float:
    if not isinstance(value, (bool, int, float, np.integer, np.floating, np.bool_)):
        raise _bad("{} is no number".format(name), where, step)
    if not abs(value) < 1e300:  # also catches NaN, and integers that no float can hold
        raise _bad("{} is not finite".format(name), where, step)
    return float(value)


def _bad(what: str, where: str, step: int = -1) -> DatasetError:
    where = where if step < 0 else "{}, step {}".format(where, step)
    return DatasetError(what, "nothing was written; mend or regenerate the file", where)


def _require_plausible_size(trajectories: List[Trajectory], file: Path) -> None:
    """Refuse a small file that refers to one image a million times: it would fill the disk."""
    size = sum(len(t) * t.images[0].nbytes for t in trajectories)
    if size > file.stat().st_size:
        raise DatasetError(
            "declares {} bytes of images, more than the file has".format(size),
            "nothing was written; get the file again",
            file,
        )


def _observation_spec(shape: Tuple[int, ...]) -> ObservationSpec:
    camera = CameraSpec(CAMERA, int(shape[0]), int(shape[1]))
    return ObservationSpec((camera,), WIDOWX_STATE_NAMES, WIDOWX_STATE_UNITS)


def _write_all(trajectories: List[Trajectory], meta: EpisodeMeta, out: Path) -> None:
    """Write beside ``out``, then rename: ``out`` has all episodes or is as it was."""
    building = out.parent / ".{}.converting-{}".format(out.name, os.getpid())
    try:
        shutil.rmtree(str(building), ignore_errors=True)  # of a process killed long ago
        building.mkdir(parents=True)
        for trajectory in trajectories:
            _write(trajectory, dataclasses.replace(meta), building)
        os.rename(str(building), str(out))  # replaces an empty folder, never a filled one
    except OSError as error:
        raise DatasetError(
            "cannot be written ({})".format(error.strerror or error), "choose another folder", out
        ) from error
    finally:
        shutil.rmtree(str(building), ignore_errors=True)


def _write(trajectory: Trajectory, meta: EpisodeMeta, folder: Path) -> None:
    writer = EpisodeWriter(folder, meta)
    try:
        for step in range(len(trajectory)):
            tick = _tick(trajectory, step)
            writer.observe(tick)
            action = trajectory.actions[step]
            writer.act(Applied(tick.stamp_ns, action, action, POLICY))
        writer.observe(_tick(trajectory, len(trajectory)))
        writer.finish(SUCCESS if trajectory.rewards[-1] > 0 else FAILURE, LABEL_SOURCE)
    except BaseException:
        writer.discard()
        raise


def _tick(trajectory: Trajectory, step: int) -> Tick:
    stamp, last = int(round(step * 1e9 / CONTROL_RATE_HZ)), step == len(trajectory)
    images: Dict[str, np.ndarray] = {CAMERA: trajectory.images[step]}
    return Tick(
        stamp_ns=stamp,  # synthetic: the file has no times
        step=step,
        images=images,
        state=trajectory.states[step],
        reward=float(trajectory.rewards[step - 1]) if step else 0.0,
        terminated=last and trajectory.terminated,
        truncated=last and not trajectory.terminated,
        image_stamps_ns={CAMERA: stamp},
    )
