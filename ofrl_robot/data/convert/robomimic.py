"""Read and write robomimic's format: all demonstrations in one HDF5 file, ``data/demo_0`` etc.

Written: every array of an episode file under the same name. ``obs/*`` has T rows, as robomimic
has it; the last observation is the last row of ``next_obs/*``. Splits become ``mask/*``. A file
written here comes back exactly, except for ``created`` and rewards from before a relabelling.

Not converted from a foreign file: ``states``, ``action_dict``, ``model_file`` and observations
that are neither RGB images nor vectors. Actions become float32. The format has no times, so
stamps are those of the control rate. It does not tell a terminal from a timeout, see
:meth:`RobomimicFile.read`.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.data.convert import native, trajectory
from ofrl_robot.data.convert.closing import close_on_error
from ofrl_robot.data.convert.hdf5 import ForeignFile, NewFile, store
from ofrl_robot.data.convert.importing import Progress, Source
from ofrl_robot.data.convert.options import RobomimicExport, RobomimicImport
from ofrl_robot.data.convert.trajectory import trajectory_error
from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.datasets.splits import SPLITS, read_splits
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.files import new_file

ROBOT = "robomimic"
_NOT_IN_AN_EPISODE = ("obs/", "next_obs/", "last_obs/", "dones", "states")
_MAX_ENVIRONMENT = 2**15  # characters; HDF5 stores attributes of up to 64 kB


class RobomimicFile(Source):
    """The demonstrations of one file, in the order of their numbers.

    Raises:
        DatasetError: the file is not a robomimic file.
        ConfigError: the control rate is neither given nor in the file.
    """

    def __init__(self, path: Path, options: RobomimicImport) -> None:
        self.path = path
        self._options = options
        self._warnings = trajectory.LeftOutWarnings("obs/")
        self._file = ForeignFile(path)
        with close_on_error(self):
            self._open()

    def _open(self) -> None:
        data = self._file.group("data")
        self._demos = sorted((name for name in data if name.startswith("demo_")), key=_number)
        self.names = [f"{self.path}: {demo}" for demo in self._demos]
        if not self._demos:
            raise trajectory_error("has no data/demo_0", self.path, "check the path")
        self._environment = _environment(data.attrs.get("env_args", "{}"))
        self._native = native.is_native(data[self._demos[0]].attrs)
        if self._native:
            native.refuse_flags(self._options, self.path)
            return
        kwargs = self._environment.get("env_kwargs")
        found = kwargs.get("control_freq") if isinstance(kwargs, dict) else None
        self._rate = trajectory.control_rate(self._options, found, self.path)
        self._sparse = trajectory.is_sparse(
            value for demo in self._demos for value in np.unique(self._rewards(data[demo]))
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, number: int) -> Episode:
        """Return one demonstration.

        The last step of a foreign one is a terminal if it is done and rewarded, else a timeout.
        Earlier ``dones`` are ignored: they mark steps at which success held. For a file without
        next_obs see :func:`~.trajectory.without_last_observation`.
        """
        group = self._file.group(f"data/{self._demos[number]}")
        where = self.names[number]
        native.require_all_native(group.attrs, self._native, where)
        return self._native_demo(group, where) if self._native else self._foreign(group, where)

    def splits(self) -> Dict[str, List[str]]:
        """Return the names of demonstrations by filter key (``mask/*``)."""
        masks = self._file.root.get("mask")
        if not isinstance(masks, h5py.Group):
            return {}
        by_demo = dict(zip(self._demos, self.names))
        found = {}
        for key, data in self._file.datasets(masks).items():
            demos = [_text(demo) for demo in self._file.read(data)]
            found[key] = [by_demo[demo] for demo in demos if demo in by_demo]
        return found

    def _native_demo(self, group: h5py.Group, where: str) -> Episode:
        arrays = {
            name: self._file.read(data)
            for name, data in self._file.datasets(group).items()
            if not name.startswith(_NOT_IN_AN_EPISODE)
        }
        observations = self._observations(group, len(arrays.get("actions", ())), where)
        arrays.update({f"obs/{name}": rows for name, rows in observations.items()})
        return native.native_episode(group.attrs, arrays, where)

    def _foreign(self, group: h5py.Group, where: str) -> Episode:
        actions = self._file.read(group["actions"])
        rewards, steps = self._rewards(group), len(actions)
        observations = self._observations(group, steps, where)
        observed = trajectory.sort_observations(observations, self._options.frame)
        self._warnings.warn(observed.left_out)
        done = bool(self._file.read(group["dones"])[-1]) if "dones" in group and steps else True
        terminated = bool(done and steps and rewards[-1] > 0)
        scale = np.full(actions.shape[-1], self._options.action_scale or 1.0)
        unit = trajectory.unit_actions(actions, scale, where)
        label = trajectory.sparse_label(rewards, self._sparse, ROBOT)
        if len(observed.state) == steps and steps:
            observed, unit, rewards = trajectory.without_last_observation(
                observed, unit, rewards, terminated
            )
        meta = trajectory.converted_meta(
            ROBOT,
            str(self._environment.get("env_name", self.path.stem)),
            self._rate,
            trajectory.unnamed_actions(scale, self._options.frame),
            observed.spec,
            environment=self._environment,
            **label,
        )
        return trajectory.converted_episode(
            meta, observed.images, observed.state, unit, rewards, terminated
        )

    def _rewards(self, group: h5py.Group) -> np.ndarray:
        if "rewards" not in group:
            return np.zeros(len(group["actions"]))
        return trajectory.flat(self._file.read(group["rewards"]), "rewards", group.name)

    def _observations(self, group: h5py.Group, steps: int, where: str) -> Dict[str, np.ndarray]:
        """Return the observations by name: T+1 rows, or T if the file has no next_obs."""
        before = self._file.datasets(self._file.group(f"{group.name}/obs"))
        after = self._file.datasets(group["next_obs"]) if "next_obs" in group else {}
        found = {}
        for name, data in before.items():
            if not data.shape or len(data) not in (steps, steps + 1):
                raise trajectory_error(f"obs/{name} does not fit {steps} actions", where)
            found[name] = self._file.read(data)
            if len(data) == steps and name in after:
                last = self._file.read(after[name], slice(-1, None))
                found[name] = np.concatenate([found[name], last])
        if len({len(rows) for rows in found.values()}) > 1:
            raise trajectory_error("next_obs lacks some arrays of obs", where)
        return found


def _number(demo: str) -> Tuple[int, int, str]:
    """Return a sort key: demo_2 before demo_10, other names last."""
    number = demo[len("demo_") :]
    return (0, int(number), "") if number.isdigit() else (1, 0, demo)


def _text(demo: Any) -> str:
    return demo.decode("utf-8", "replace") if isinstance(demo, bytes) else str(demo)


def _environment(text: Any) -> Dict[str, Any]:
    """Return env_args; empty if it is not a JSON object or too long for an attribute."""
    try:
        found = json.loads(text) if len(text) < _MAX_ENVIRONMENT else {}
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def export(
    dataset: Dataset, out: Path, options: RobomimicExport, progress: Optional[Progress] = None
) -> int:
    """Write ``dataset`` as one robomimic file.

    Returns:
        The number of demonstrations.

    Raises:
        OutputError: ``out`` exists or cannot be written.
        DatasetError: an episode is damaged.
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
        environment = {
            "env_name": dataset.metas[0].task,
            "type": 0,  # not one of robomimic's own: it can train on the data, not roll out
            "env_kwargs": dataset.metas[0].environment,
        }
        data.attrs["env_args"] = json.dumps(environment)
        _write_masks(file.root, dataset.folder, [source.name for source in paths])
    return len(paths)


def _write(group: h5py.Group, episode: Episode, link_next_obs: bool) -> None:
    arrays = native.arrays_of(episode)
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
    """Write ``mask/<split>``: the demonstrations in each split of the dataset, as bytes."""
    if not (folder / SPLITS).exists():
        return
    demos = {name: f"demo_{number}" for number, name in enumerate(names)}
    for split, episodes in read_splits(folder).items():
        chosen = [demos[name].encode() for name in episodes if name in demos]
        if chosen:
            root.create_dataset(f"mask/{split}", data=np.array(chosen, "S"))
