"""robomimic: all demonstrations in one HDF5 file, ``data/demo_0`` and so on.

Written: all that an episode file has, under the same names, except that ``obs/*`` ends before the
last observation, as robomimic has it; that one is the last row of ``next_obs/*``. Splits become
``mask/*``. What was written here comes back exactly, but for ``created`` and rewards from before a
relabelling.

Lost from a foreign file: ``states``, ``action_dict``, ``model_file`` and observations that are
neither RGB images nor vectors. Actions become float32. It has no times, so stamps are those of the
control rate; and no difference between a terminal and a timeout, see :func:`_foreign`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any, Dict, List, Optional

import h5py
import numpy as np

from ofrl_robot.data.convert import trajectory
from ofrl_robot.data.convert.hdf5 import ForeignFile, NewFile, store
from ofrl_robot.data.convert.importing import Progress, Source
from ofrl_robot.data.convert.options import RobomimicExport, RobomimicImport
from ofrl_robot.data.convert.trajectory import bad
from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.datasets.splits import SPLITS, read_splits
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.files import new_file

ROBOT = "robomimic"
_NOT_CARRIED = ("obs/", "next_obs/", "last_obs/", "dones", "states")
_MAX_ENVIRONMENT = 2**15  # characters; HDF5 stores attributes of up to 64 kB
_log = logging.getLogger(__name__)


class RobomimicFile(Source):
    """The demonstrations of one file, in the order of their numbers.

    Raises DatasetError where it is no such file, ConfigError where it does not say its rate.
    """

    def __init__(self, path: Path, options: RobomimicImport) -> None:
        self.path = path
        self._file = ForeignFile(path)
        try:
            data = self._file.group("data")
            self._demos = sorted((name for name in data if name.startswith("demo_")), key=_number)
            self.names = [f"{path}: {demo}" for demo in self._demos]
            if not self._demos:
                raise bad("no data/demo_0", path, "check the path")
            self._environment = _environment(data.attrs.get("env_args", "{}"))
            self._options, self._left_out = options, set()
            self._own = trajectory.is_own(data[self._demos[0]].attrs)
            self._rate = _rate(options, self._environment, self._own, path)
            self._sparse = not self._own and trajectory.is_sparse(
                value for demo in self._demos for value in np.unique(self._rewards(data[demo]))
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def read(self, number: int) -> Episode:
        group = self._file.group(f"data/{self._demos[number]}")
        where = self.names[number]
        trajectory.require_own(group.attrs, self._own, where)
        if not self._own:
            return self._foreign(group, where)
        datasets = self._file.datasets(group)
        arrays = {
            name: self._file.read(data)
            for name, data in datasets.items()
            if not name.startswith(_NOT_CARRIED)
        }
        steps = len(arrays.get("actions", ()))
        observations = self._observations(group, steps, where)
        arrays.update({f"obs/{name}": rows for name, rows in observations.items()})
        return trajectory.own_episode(group.attrs, arrays, where)

    def splits(self) -> Dict[str, List[str]]:
        """Names by filter key (``mask/*``)."""
        masks = self._file.root.get("mask")
        if not isinstance(masks, h5py.Group):
            return {}
        by_demo = dict(zip(self._demos, self.names))
        found = {}
        for key, data in self._file.datasets(masks).items():
            demos = [
                d.decode("utf-8", "replace") if isinstance(d, bytes) else str(d)
                for d in self._file.read(data)
            ]
            found[key] = [by_demo[demo] for demo in demos if demo in by_demo]
        return found

    def _rewards(self, group: h5py.Group) -> np.ndarray:
        if "rewards" not in group:
            return np.zeros(len(group["actions"]))
        return trajectory.flat(self._file.read(group["rewards"]), "rewards", group.name)

    def _foreign(self, group: h5py.Group, where: str) -> Episode:
        """A demonstration of somebody else.

        Of ``dones`` the last counts, where the success it stands for is rewarded: then it is a
        terminal. All else ends in a timeout, and earlier ones (success held for some steps) say
        nothing. Without next_obs see :func:`~.trajectory.without_last_observation`.
        """
        actions = self._file.read(group["actions"])
        rewards, steps = self._rewards(group), len(actions)
        observed = trajectory.sort_observations(self._observations(group, steps, where))
        self._mention(observed.left_out)
        done = bool(self._file.read(group["dones"])[-1]) if "dones" in group and steps else True
        terminated = bool(done and steps and rewards[-1] > 0)
        scale = np.full(actions.shape[-1], self._options.action_scale or 1.0)
        unit = trajectory.unit_actions(actions, scale, where)
        label = trajectory.sparse_label(rewards, self._sparse, ROBOT)
        if len(observed.state) == steps and steps:
            observed, unit, rewards = trajectory.without_last_observation(
                observed, unit, rewards, terminated
            )
        task = str(self._environment.get("env_name", self.path.stem))
        meta = trajectory.converted_meta(
            ROBOT, task, self._rate, trajectory.unnamed_actions(scale), observed.spec,
            environment=self._environment, **label,
        )  # fmt: skip
        return trajectory.converted_episode(
            meta, observed.images, observed.state, unit, rewards, terminated
        )

    def _observations(self, group: h5py.Group, steps: int, where: str) -> Dict[str, np.ndarray]:
        """Observations by name: T+1 rows, or T where the file has no more."""
        before = self._file.datasets(self._file.group(f"{group.name}/obs"))
        after = self._file.datasets(group["next_obs"]) if "next_obs" in group else {}
        found = {}
        for name, data in before.items():
            if not data.shape or len(data) not in (steps, steps + 1):
                raise bad(f"obs/{name} does not fit {steps} actions", where)
            found[name] = self._file.read(data)
            if len(data) == steps and name in after:
                last = self._file.read(after[name], slice(-1, None))
                found[name] = np.concatenate([found[name], last])
        if len({len(rows) for rows in found.values()}) > 1:
            raise bad("next_obs lacks some of obs", where)
        return found

    def _mention(self, left_out: List[str]) -> None:
        for name in sorted(set(left_out) - self._left_out):
            _log.warning("obs/%s is neither an RGB image nor a vector, left out", name)
            self._left_out.add(name)


def _number(demo: str) -> Any:
    number = demo[len("demo_") :]
    return (0, int(number), "") if number.isdigit() else (1, 0, demo)


def _environment(text: Any) -> Dict[str, Any]:
    """env_args, or nothing where it is not JSON of a dict, or too long for an attribute."""
    try:
        found = json.loads(text) if len(text) < _MAX_ENVIRONMENT else {}
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _rate(options: RobomimicImport, environment: Dict[str, Any], own: bool, path: Path) -> float:
    if own:
        trajectory.refuse_for_own(options, path)
        return 0.0
    kwargs = environment.get("env_kwargs")
    found = kwargs.get("control_freq") if isinstance(kwargs, dict) else None
    return trajectory.rate(options, found, path)


def export(
    dataset: Dataset, out: Path, options: RobomimicExport, progress: Optional[Progress] = None
) -> int:
    """Write ``dataset`` as one robomimic file; returns how many demonstrations.

    Raises DatasetError where ``out`` exists or cannot be written, or an episode is damaged.
    """
    paths = dataset.paths[: options.num_traj or None]
    with new_file(out) as path, contextlib.closing(NewFile(path)) as file:
        data = file.root.create_group("data")
        total = 0
        for number, source in enumerate(paths):
            episode = read_episode(source)
            _write(data.create_group(f"demo_{number}"), episode, options.link_next_obs)
            total += len(episode)
            file.flush()
            if progress is not None:
                progress(number + 1, len(paths))
        data.attrs["total"] = total
        # type 0 is none of robomimic's own environments: it reads the data, and cannot roll out
        data.attrs["env_args"] = json.dumps(
            {
                "env_name": dataset.metas[0].task,
                "type": 0,
                "env_kwargs": dataset.metas[0].environment,
            }
        )
        _write_masks(file.root, dataset.folder, [source.name for source in paths])
    return len(paths)


def _write(group: h5py.Group, episode: Episode, link_next_obs: bool) -> None:
    arrays = trajectory.arrays_of(episode)
    arrays["dones"] = episode.terminals | episode.timeouts
    for name, rows in arrays.items():
        if not name.startswith("obs/"):
            store(group, name, rows)
            continue
        before = store(group, name, rows[:-1])
        if not link_next_obs or len(episode) == 1 or not rows.size:
            store(group, f"next_{name}", rows[1:])
            continue
        last = store(group, f"last_{name}", rows[-1:])
        layout = h5py.VirtualLayout(before.shape, rows.dtype)
        layout[:-1] = h5py.VirtualSource(".", before.name, before.shape)[1:]
        layout[-1:] = h5py.VirtualSource(".", last.name, last.shape)
        group.create_virtual_dataset(f"next_{name}", layout)
    group.attrs.update(episode.meta.to_attrs())
    group.attrs["num_samples"] = len(episode)


def _write_masks(root: h5py.File, folder: Path, names: List[str]) -> None:
    """``mask/<split>``: the demonstrations in each split of the dataset, as bytes."""
    if not (folder / SPLITS).exists():
        return
    demos = {name: f"demo_{number}" for number, name in enumerate(names)}
    for split, episodes in read_splits(folder).items():
        chosen = [demos[name].encode() for name in episodes if name in demos]
        if chosen:
            root.create_dataset(f"mask/{split}", data=np.array(chosen, "S"))
