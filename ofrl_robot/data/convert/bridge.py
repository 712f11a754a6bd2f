"""BridgeData: folders of raw trajectories, as the WidowX collectors of Berkeley's lab write them.

``<...>/2022-01-01_00-00-00/raw/traj_group0/traj0/`` holds ``images0/im_0.jpg`` and so on (one
folder per camera, T+1 images), ``obs_dict.pkl`` (a dict of arrays of T+1 rows) and
``policy_out.pkl`` (a list of T dicts). The pickles are read, never executed; those of ROS objects
(``agent_data.pkl``) are not looked at.

Actions come in m and rad per step and a gripper from 0 (closed) to 1 (open); the robot clipped
them to +-0.05 m and +-0.25 rad, and so they are stored, the unclipped as ``actions_requested``.
Until 2021-07-23 images came one step late: of such trajectories the first observation and the last
action are left out, as the lab does.

Lost: depth, joint positions, velocities and efforts (of the state only ``full_state`` is taken),
language, cameras that not all trajectories have, and whole trajectories kept in lmdb. There are no
rewards and no word on success: rewards are 0 and success is unknown.
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
from ofrl_robot.data.convert.trajectory import bad, converted_episode, converted_meta, numbers
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
    """All trajectories below a folder, whatever lies between.

    Raises DatasetError where there is none.
    """

    def __init__(self, path: Path, _: BridgeImport) -> None:
        self.path = path
        self._folders = _trajectories(path)
        if not self._folders:
            raise DatasetError("no folder traj0 or the like below", "check the path", path)
        self.names = [str(folder) for folder in self._folders]
        cameras = [_cameras(folder) for folder in self._folders]
        self._cameras = sorted(set.intersection(*cameras))
        left_out = sorted(set.union(*cameras) - set(self._cameras))
        if left_out:
            _log.warning("not all trajectories have %s, left out", ", ".join(left_out))

    def read(self, number: int) -> Episode:
        folder, where = self._folders[number], self.names[number]
        observed, asked = (load_npy_objects(folder / name) for name in _PICKLES)
        if not isinstance(observed, dict) or not isinstance(asked, list):
            raise bad("its pickles are no dict and no list", where)
        if "full_state" not in observed:
            raise bad("obs_dict.pkl has no full_state", where)
        state = numbers(observed["full_state"], "full_state", where)
        actions = numbers([_action(entry, where) for entry in asked], "actions", where)
        steps = len(actions)
        if state.shape != (steps + 1, len(STATE_NAMES)) or actions.shape[1:] != (ACTION.size,):
            text = "{} states for {} actions, 7 entries each and one more state expected"
            raise bad(text.format(state.shape, actions.shape), where)
        stamps = _stamps(observed.get("time_stamp"), steps, where)
        late = int(_is_late(folder))
        images = {name: _images(folder / name, steps, late) for name in self._cameras}
        cameras = tuple(
            CameraSpec(name, *map(int, frames.shape[1:3])) for name, frames in images.items()
        )
        requested = _unit(actions)[: steps - late]
        meta = converted_meta(
            ROBOT, _task(folder), CONTROL_RATE_HZ, ACTION,
            ObservationSpec(cameras, STATE_NAMES, STATE_UNITS, BASE),
        )  # fmt: skip
        return converted_episode(
            meta, images, state[late:], np.clip(requested, -1.0, 1.0), np.zeros(len(requested)),
            terminated=False, stamps=None if stamps is None else stamps[late:],
            requested=requested,
        )  # fmt: skip


def _trajectories(path: Path) -> List[Path]:
    """Folders ``traj*``, in order of their names, numbers in these as numbers."""
    found = []
    for folder, below, _ in os.walk(str(path)):
        if _TRAJECTORY.fullmatch(os.path.basename(folder)):
            found.append(Path(folder))
            below.clear()  # thousands of images
        if "lmdb" in below:
            _log.warning("%s/lmdb left out", folder)
            below.remove("lmdb")
    return sorted(found, key=lambda folder: _by_numbers(str(folder)))


def _by_numbers(text: str) -> List[Any]:
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _cameras(folder: Path) -> set:
    return {entry.name for entry in folder.iterdir() if _CAMERA.fullmatch(entry.name)}


def _action(entry: Any, where: str) -> Any:
    action = entry.get("actions") if isinstance(entry, dict) else entry
    if not isinstance(action, np.ndarray):
        raise bad("policy_out.pkl has an entry without actions", where)
    return action


def _unit(actions: np.ndarray) -> np.ndarray:
    """In units of the action spec, (T, 7); not clipped yet."""
    unit = actions / np.array(ACTION.scale)
    unit[:, -1] = 2.0 * actions[:, -1] - 1.0
    return unit


def _stamps(value: Any, steps: int, where: str) -> Any:
    """int64 ns (T+1,) from seconds; None where there are none."""
    if value is None:
        return None
    seconds = numbers(value, "time_stamp", where)
    if seconds.shape != (steps + 1,) or np.abs(seconds).max() > 9e9:
        raise bad(f"time_stamp is {seconds.shape}, ({steps + 1},) expected", where)
    return np.round(seconds * 1e9).astype(np.int64)


def _images(folder: Path, steps: int, late: int) -> np.ndarray:
    files = [folder / f"im_{i}.jpg" for i in range(late, steps + 1)]
    if (folder / f"im_{steps + 1}.jpg").exists():
        raise bad("more images than observations", folder)
    try:
        return decode_jpegs([file.read_bytes() for file in files], folder)
    except FileNotFoundError as error:
        raise bad(f"no {Path(error.filename).name}", folder) from error


def _is_late(folder: Path) -> bool:
    for parent in folder.parents:
        date = _DATE.fullmatch(parent.name)
        if date:
            return datetime.date(*map(int, date.groups())) < LATE_UNTIL
    return False


def _task(folder: Path) -> str:
    """The folder two above the dated one, e.g. set_table in toykitchen2/set_table/00/2022-..."""
    for parent in folder.parents:
        if _DATE.fullmatch(parent.name):
            return parent.parent.parent.name or "bridge"
    return "bridge"
