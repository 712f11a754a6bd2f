"""Read and write D4RL's format: all transitions in flat arrays in one .hdf5 or .npz file.

Written: ``observations`` and ``next_observations`` (the state, or one camera), ``actions``,
``rewards``, ``terminals``, ``timeouts``. The other arrays of an episode are stored by their names
below ``infos/`` (one row per step). An array with one row more than there are actions has its
last row below ``metadata/last/`` (one row per episode). The attributes are JSON in
``metadata/episodes``. A file written here comes back exactly, except for ``created``, splits, and
rewards from before a relabelling.

Not converted from a foreign file: ``infos`` and ``metadata``. Actions become float32. The format
has no times, so stamps are those of the control rate. Episodes end at ``terminals`` and
``timeouts``; without ``timeouts`` also where ``next_observations`` is not the next observation.
Without ``next_observations`` the last observation of an episode is missing, so the last
transition is dropped unless it is a terminal, as in ``d4rl.qlearning_dataset``.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from ofrl_robot.data.convert import native, trajectory
from ofrl_robot.data.convert.closing import close_on_error
from ofrl_robot.data.convert.importing import Progress, Source
from ofrl_robot.data.convert.options import D4rlExport, D4rlImport
from ofrl_robot.data.convert.tables import NewTable, new_table, open_table
from ofrl_robot.data.convert.trajectory import trajectory_error
from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.errors import ConfigError
from ofrl_robot.files import new_file
from ofrl_robot.specs import STATE

ROBOT = "d4rl"
_EPISODES, _LENGTHS = "metadata/episodes", "metadata/lengths"
_OBSERVED = "metadata/observations"  # name of the array that is stored as ``observations``
_CHANNELS_FIRST = "metadata/channels_first"  # present if it holds images as (N, 3, H, W)
_INFOS, _LAST, _NEXT = "infos/", "metadata/last/", "next_"
_BLOCK = 4096  # rows compared at a time
_log = logging.getLogger(__name__)


class D4rlFile(Source):
    """The episodes in one flat file.

    Raises:
        DatasetError: the file is not a D4RL file.
        ConfigError: the control rate is not given.
    """

    def __init__(self, path: Path, options: D4rlImport) -> None:
        self.path = path
        self._options = options
        self._warnings = trajectory.LeftOutWarnings("observations/")
        self._table = open_table(path)
        with close_on_error(self):
            self._open()

    def _open(self) -> None:
        shapes = self._table.shapes
        missing = [name for name in ("actions", "rewards") if name not in shapes]
        if not _below(shapes, "observations"):
            missing.append("observations")
        if missing:
            raise trajectory_error(f"has no {', '.join(missing)}", self.path, "check the path")
        self._rows = shapes["actions"][0]
        for name in _flat_names(shapes):
            if shapes[name][:1] != (self._rows,):
                raise trajectory_error(f"{name} does not fit {self._rows} actions", self.path)
        self._native = _EPISODES in shapes
        if self._native:
            native.refuse_flags(self._options, self.path)
            self._metadata = [json.loads(text) for text in self._table.read(_EPISODES)]
            ends = np.cumsum(self._table.read(_LENGTHS).astype(np.int64))
        else:
            self._rate = trajectory.control_rate(self._options, None, self.path)
            rewards = trajectory.flat(self._table.read("rewards"), "rewards", self.path)
            self._sparse = trajectory.is_sparse(np.unique(rewards))
            self._terminals = self._flag("terminals")
            ends = self._ends()
        self._starts = np.concatenate([[0], ends])
        self.names = [f"{self.path}: episode {i}" for i in range(len(ends))]

    def close(self) -> None:
        """Close the file."""
        self._table.close()

    def read(self, number: int) -> Episode:
        """Return one episode."""
        rows = slice(int(self._starts[number]), int(self._starts[number + 1]))
        if self._native:
            return self._native_episode(number, rows)
        return self._foreign(rows, self.names[number])

    def _flag(self, name: str) -> np.ndarray:
        if name not in self._table.shapes:
            return np.zeros(self._rows, bool)
        return trajectory.flat(self._table.read(name), name, self.path).astype(bool)

    def _ends(self) -> np.ndarray:
        """Return one past the last row of each episode."""
        last = self._terminals | self._flag("timeouts")
        if "timeouts" not in self._table.shapes:
            _log.warning("%s has no timeouts: episodes may run into each other", self.path)
            last |= self._jumps()
        last[-1:] = True
        return np.flatnonzero(last) + 1

    def _jumps(self) -> np.ndarray:
        """Return bool (N,): the next observation of a row is not the observation of the next."""
        jumps = np.zeros(self._rows, bool)
        for name in _below(self._table.shapes, "next_observations"):
            for start in range(0, self._rows - 1, _BLOCK):
                end = min(start + _BLOCK, self._rows - 1)
                after = self._table.read(name, slice(start, end))
                before = self._table.read(name[len(_NEXT) :], slice(start + 1, end + 1))
                differ = (after != before).reshape(len(after), -1).any(axis=1)
                jumps[start:end] |= differ
        return jumps

    def _foreign(self, rows: slice, where: str) -> Episode:
        before = {
            name: self._table.read(name, rows)
            for name in _below(self._table.shapes, "observations")
        }
        last = self._last_observations(rows, before, where)
        arrays = {}
        for name, array in before.items():
            leaf = name[len("observations/") :] or "observations"
            arrays[leaf] = np.concatenate([array, last[name]]) if last else array
        observed = trajectory.sort_observations(arrays, self._options.frame)
        self._warnings.warn(observed.left_out)
        actions = self._table.read("actions", rows)
        scale = np.full(actions.shape[-1], self._options.action_scale or 1.0)
        unit = trajectory.unit_actions(actions, scale, where)
        rewards = trajectory.flat(self._table.read("rewards", rows), "rewards", where)
        terminated = bool(self._terminals[rows][-1])
        label = trajectory.sparse_label(rewards, self._sparse, ROBOT)
        if not last:
            observed, unit, rewards = trajectory.without_last_observation(
                observed, unit, rewards, terminated
            )
        meta = trajectory.converted_meta(
            ROBOT,
            self.path.stem,
            self._rate,
            trajectory.unnamed_actions(scale, self._options.frame),
            observed.spec,
            **label,
        )
        return trajectory.converted_episode(
            meta, observed.images, observed.state, unit, rewards, terminated
        )

    def _last_observations(
        self, rows: slice, before: Mapping[str, np.ndarray], where: str
    ) -> Dict[str, np.ndarray]:
        """Return the last row of each ``next_observations``, by the name in ``observations``."""
        last = {}
        for name in _below(self._table.shapes, "next_observations"):
            after = self._table.read(name, rows)
            observed = name[len(_NEXT) :]
            if observed not in before:
                continue
            if len(after) and not np.array_equal(after[:-1], before[observed][1:]):
                raise trajectory_error(
                    "next_observations are not the observations that follow", where
                )
            last[observed] = after[-1:]
        if last and set(last) != set(before):
            raise trajectory_error("next_observations lack some arrays of observations", where)
        return last

    def _native_episode(self, number: int, rows: slice) -> Episode:
        observed = "obs/" + str(self._table.read(_OBSERVED)[0], "ascii")
        arrays = {name: self._table.read(name, rows) for name in native.STEP_ROWS}
        names = {observed: "observations"}
        names.update({n[len(_INFOS) :]: n for n in self._table.shapes if n.startswith(_INFOS)})
        for name, stored_name in names.items():
            arrays[name] = self._table.read(stored_name, rows)
            if name == observed and _CHANNELS_FIRST in self._table.shapes:
                arrays[name] = np.moveaxis(arrays[name], 1, -1)
            if native.has_final_row(name):
                last = self._table.read(_LAST + name, slice(number, number + 1))
                arrays[name] = np.concatenate([arrays[name], last])
        return native.native_episode(self._metadata[number], arrays, self.names[number])


def _below(names: Mapping[str, Any], prefix: str) -> List[str]:
    """Return ``prefix`` itself and all names below it."""
    return sorted(name for name in names if name == prefix or name.startswith(f"{prefix}/"))


def _flat_names(shapes: Mapping[str, Any]) -> List[str]:
    """Return the names of the arrays with one row per transition."""
    names = [name for name in native.STEP_ROWS if name in shapes]
    return names + _below(shapes, "observations") + _below(shapes, "next_observations")


def export(
    dataset: Dataset, out: Path, options: D4rlExport, progress: Optional[Progress] = None
) -> int:
    """Write ``dataset`` as flat arrays: an .npz if ``out`` ends in .npz, else HDF5.

    Returns:
        The number of episodes.

    Raises:
        ConfigError: ``options.observations`` is not an observation of the dataset.
        OutputError: ``out`` exists or cannot be written.
        DatasetError: an episode is damaged.
    """
    _require_observation(dataset, options)
    paths = dataset.paths[: options.num_traj or None]
    with new_file(out) as path:
        table = new_table(path)
        texts: List[bytes] = []
        with contextlib.closing(table):
            for number, source in enumerate(paths):
                episode = read_episode(source)
                _append(table, episode, options)
                texts.append(json.dumps(episode.meta.to_attrs()).encode("ascii"))
                table.flush()
                if progress is not None:
                    progress(number + 1, len(paths))
            table.append(_LENGTHS, np.array(dataset.lengths[: len(paths)], np.int64))
            table.append(_EPISODES, np.array(texts))
            table.append(_OBSERVED, np.array([options.observations.encode("ascii")]))
            if options.channels_first:
                table.append(_CHANNELS_FIRST, np.array([True]))
            table.finish()
    return len(paths)


def _require_observation(dataset: Dataset, options: D4rlExport) -> None:
    cameras = [camera.name for camera in dataset.observation_spec.cameras]
    if options.observations not in [STATE, *cameras]:
        raise ConfigError(
            f"--observations is {options.observations!r}", f"pass {' or '.join([STATE, *cameras])}"
        )
    if options.channels_first and options.observations == STATE:
        raise ConfigError(
            "--channels-first needs images",
            f"pass --observations {' or '.join(cameras) or 'CAMERA'}",
        )


def _append(table: NewTable, episode: Episode, options: D4rlExport) -> None:
    for name, rows in native.arrays_of(episode).items():
        if name == f"obs/{options.observations}":
            shown = np.moveaxis(rows, -1, 1) if options.channels_first else rows
            table.append("observations", shown[:-1])
            table.append("next_observations", shown[1:])
        elif name in native.STEP_ROWS:
            table.append(name, rows)
        else:
            table.append(_INFOS + name, rows[: len(episode)])
        if native.has_final_row(name):
            table.append(_LAST + name, rows[-1:])
