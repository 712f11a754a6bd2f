"""Read BridgeData: folders of raw trajectories, as Berkeley's WidowX collectors write them.

``<...>/2022-01-01_00-00-00/raw/traj_group0/traj0/`` holds ``images0/im_0.jpg`` and so on (one
folder per camera, T+1 images), ``obs_dict.pkl`` (a dict of arrays of T+1 rows) and
``policy_out.pkl`` (a list of T dicts). The pickles are read, never executed. Pickles of ROS
objects (``agent_data.pkl``) are not opened.

Actions are in m and rad per step in the frame of the arm's base; the gripper goes from 0 (closed)
to 1 (open). The robot clipped actions to +-0.05 m and +-0.25 rad, so the clipped ones are stored
as ``actions`` and the unclipped ones as ``actions_requested``. Until 2021-07-23 images came one
step late: the first observation and the last action of such trajectories are dropped, as the
authors do.

Not converted: depth, joint positions, velocities and efforts (the state is ``full_state``),
language, cameras that some trajectories lack, and trajectories stored in lmdb. The data has neither
rewards nor success labels: rewards are 0 and success is unknown.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
from pathlib import Path
from typing import Any, List

import numpy as np

from ofrl_robot.data.convert.importing import Source
from ofrl_robot.data.convert.jpeg import decode_jpegs
from ofrl_robot.data.convert.options import BridgeImport
from ofrl_robot.data.convert.trajectory import (
    converted_episode,
    converted_meta,
    numbers,
    trajectory_error,
)
from ofrl_robot.data.convert.unpickle import load_npy_objects
from ofrl_robot.data.episodes.reader import Episode
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import BASE, ActionSpec, CameraSpec, ObservationSpec

ROBOT = "widowx250"
CONTROL_RATE_HZ = 5.0
ACTION = ActionSpec(
    names=("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper"),
    units=("m", "m", "m", "rad", "rad", "rad", "1"),
    scale=(0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0),
    frame=BASE,
)
STATE_NAMES = ("ee_x", "ee_y", "ee_z", "ee_roll", "ee_pitch", "ee_yaw", "gripper_open")
STATE_UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")
LATE_UNTIL = datetime.date(2021, 7, 23)

_PICKLES = ("obs_dict.pkl", "policy_out.pkl")
_TRAJECTORY = re.compile(r"traj\d+")
_CAMERA = re.compile(r"images\d+")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})_\d{2}-\d{2}-\d{2}")
_log = logging.getLogger(__name__)


class BridgeFolder(Source):
    """All trajectories below a folder, at any depth.

    Raises:
        DatasetError: there are none.
    """

    def __init__(self, path: Path, _: BridgeImport) -> None:
        self.path = path
        self._folders = _trajectories(path)
        if not self._folders:
            raise DatasetError("contains no folder traj0 (or traj1, ...)", "check the path", path)
        self.names = [str(folder) for folder in self._folders]
        cameras = [_cameras(folder) for folder in self._folders]
        self._cameras = sorted(set.intersection(*cameras))
        left_out = sorted(set.union(*cameras) - set(self._cameras))
        if left_out:
            _log.warning("some trajectories lack %s, left out", ", ".join(left_out))

    def read(self, number: int) -> Episode:
        """Return one trajectory."""
        folder, where = self._folders[number], self.names[number]
        observed, asked = (load_npy_objects(folder / name) for name in _PICKLES)
        if not isinstance(observed, dict) or not isinstance(asked, list):
            raise trajectory_error("obs_dict.pkl must hold a dict and policy_out.pkl a list", where)
        if "full_state" not in observed:
            raise trajectory_error("obs_dict.pkl has no full_state", where)
        state = numbers(observed["full_state"], "full_state", where)
        actions = numbers([_action(entry, where) for entry in asked], "actions", where)
        steps = len(actions)
        if state.shape != (steps + 1, len(STATE_NAMES)) or actions.shape[1:] != (ACTION.size,):
            raise trajectory_error(
                f"full_state is {state.shape} and actions are {actions.shape}, "
                "7 entries each and one more state expected",
                where,
            )
        stamps = _stamps(observed.get("time_stamp"), steps, where)
        late = int(_is_late(folder))
        images = {name: _images(folder / name, steps, late) for name in self._cameras}
        cameras = tuple(
            CameraSpec(name, frames.shape[1], frames.shape[2]) for name, frames in images.items()
        )
        requested = _unit(actions)[: steps - late]
        observations = ObservationSpec(cameras, STATE_NAMES, STATE_UNITS, BASE)
        return converted_episode(
            converted_meta(ROBOT, _task(folder), CONTROL_RATE_HZ, ACTION, observations),
            images,
            state[late:],
            np.clip(requested, -1.0, 1.0),
            np.zeros(len(requested)),
            terminated=False,
            stamps=None if stamps is None else stamps[late:],
            requested=requested,
        )


def _trajectories(path: Path) -> List[Path]:
    """Return the folders ``traj*`` below ``path``; traj2 comes before traj10."""
    found = []
    for folder, below, _ in os.walk(path):
        if _TRAJECTORY.fullmatch(os.path.basename(folder)):
            found.append(Path(folder))
            below.clear()  # nothing but thousands of images
        if "lmdb" in below:
            _log.warning("%s/lmdb left out", folder)
            below.remove("lmdb")
    return sorted(found, key=lambda folder: _by_numbers(str(folder)))


def _by_numbers(text: str) -> List[Any]:
    """Return a sort key that compares the numbers in a text as numbers."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _cameras(folder: Path) -> set:
    return {entry.name for entry in folder.iterdir() if _CAMERA.fullmatch(entry.name)}


def _action(entry: Any, where: str) -> Any:
    action = entry.get("actions") if isinstance(entry, dict) else entry
    if not isinstance(action, np.ndarray):
        raise trajectory_error("an entry of policy_out.pkl has no array of actions", where)
    return action


def _unit(actions: np.ndarray) -> np.ndarray:
    """Return actions (T, 7) in units of the action spec, not clipped."""
    unit = actions / np.array(ACTION.scale)
    unit[:, -1] = 2.0 * actions[:, -1] - 1.0
    return unit


def _stamps(value: Any, steps: int, where: str) -> Any:
    """Return int64 ns (T+1,) from seconds, or None from None."""
    if value is None:
        return None
    seconds = numbers(value, "time_stamp", where)
    if seconds.shape != (steps + 1,):
        raise trajectory_error(f"time_stamp is {seconds.shape}, ({steps + 1},) expected", where)
    if np.abs(seconds).max() > 9e9:
        raise trajectory_error("time_stamp is beyond the year 2255", where)
    return np.round(seconds * 1e9).astype(np.int64)


def _images(folder: Path, steps: int, late: int) -> np.ndarray:
    files = [folder / f"im_{i}.jpg" for i in range(late, steps + 1)]
    if (folder / f"im_{steps + 1}.jpg").exists():
        raise trajectory_error("has more images than observations", folder)
    for file in files:
        if not file.is_file():
            raise trajectory_error(f"lacks {file.name}", folder)
    return decode_jpegs([file.read_bytes() for file in files], folder)


def _is_late(folder: Path) -> bool:
    """Return whether the images of a trajectory came one step late, by its dated folder."""
    for parent in folder.parents:
        date = _DATE.fullmatch(parent.name)
        if date:
            return datetime.date(*map(int, date.groups())) < LATE_UNTIL
    return False


def _task(folder: Path) -> str:
    """Return the folder two above the dated one: set_table in toykitchen2/set_table/00/2022-..."""
    for parent in folder.parents:
        if _DATE.fullmatch(parent.name):
            return parent.parent.parent.name or "bridge"
    return "bridge"
