"""D4RL: all transitions in flat arrays, one after another, in a .hdf5 or an .npz file.

Written: ``observations`` and ``next_observations`` (state, or one camera), ``actions``,
``rewards``, ``terminals``, ``timeouts``; everything else of an episode by its name there below
``infos/`` (a row per step) and ``metadata/last/`` (a row per episode, for what has one more row
than there are actions), its metadata as JSON in ``metadata/episodes``. So it comes back exactly,
but for ``created``, splits, and rewards from before a relabelling.

Lost from a foreign file: ``infos`` and ``metadata``. Actions become float32. It has no times, so
stamps are those of the control rate. Episodes end at ``terminals`` and ``timeouts``; without
``timeouts`` also where ``next_observations`` is not the next observation. Without
``next_observations`` the last observation of an episode is missing, and with it, unless it is a
terminal, its last transition, as in ``d4rl.qlearning_dataset``.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any, List, Mapping, Optional

import numpy as np

from ofrl_robot.data.convert import trajectory
from ofrl_robot.data.convert.importing import Progress, Source
from ofrl_robot.data.convert.options import D4rlExport, D4rlImport
from ofrl_robot.data.convert.tables import NewTable, new_table, open_table
from ofrl_robot.data.convert.trajectory import bad
from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.errors import ConfigError
from ofrl_robot.files import new_file

ROBOT = "d4rl"
_EPISODES, _LENGTHS = "metadata/episodes", "metadata/lengths"
_OBSERVED = "metadata/observations"  # which of our arrays went to ``observations``
_INFOS, _LAST = "infos/", "metadata/last/"
_BLOCK = 4096  # rows compared at a time
_log = logging.getLogger(__name__)


class D4rlFile(Source):
    """The episodes in one flat file.

    Raises DatasetError where it is no such file, ConfigError where the rate is not told.
    """

    def __init__(self, path: Path, options: D4rlImport) -> None:
        self.path = path
        self._table = open_table(path)
        try:
            self._options = options
            missing = [name for name in ("actions", "rewards") if name not in self._table.shapes]
            if missing or not _below(self._table.shapes, "observations"):
                raise bad(
                    f"has no {', '.join(missing or ['observations'])}", path,
                    "check the path",
                )  # fmt: skip
            self._rows = self._table.shapes["actions"][0]
            for name in _flat_names(self._table.shapes):
                if self._table.shapes[name][:1] != (self._rows,):
                    raise bad(f"{name} does not fit {self._rows} actions", path)
            self._own = _EPISODES in self._table.shapes
            if self._own:
                trajectory.refuse_for_own(options, path)
                self._metadata = [json.loads(text) for text in self._table.read(_EPISODES)]
                ends = np.cumsum(self._table.read(_LENGTHS).astype(np.int64))
            else:
                self._rate = trajectory.rate(options, None, path)
                rewards = trajectory.flat(self._table.read("rewards"), "rewards", path)
                self._sparse = trajectory.is_sparse(np.unique(rewards))
                self._terminals = self._flag("terminals")
                ends = self._ends()
            self._starts = np.concatenate([[0], ends])
            self.names = [f"{path}: episode {i}" for i in range(len(ends))]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._table.close()

    def read(self, number: int) -> Episode:
        rows = slice(int(self._starts[number]), int(self._starts[number + 1]))
        if self._own:
            return self._own_episode(number, rows)
        return self._foreign(rows, self.names[number])

    def _flag(self, name: str) -> np.ndarray:
        if name not in self._table.shapes:
            return np.zeros(self._rows, bool)
        return trajectory.flat(self._table.read(name), name, self.path).astype(bool)

    def _ends(self) -> np.ndarray:
        """One past the last row of each episode."""
        last = self._terminals | self._flag("timeouts")
        if "timeouts" not in self._table.shapes:
            _log.warning("%s has no timeouts: episodes may run into each other", self.path)
            last |= self._jumps()
        last[-1:] = True
        return np.flatnonzero(last) + 1

    def _jumps(self) -> np.ndarray:
        """bool (N,): the next observation of this row is not the observation of the next row."""
        jumps = np.zeros(self._rows, bool)
        for name in _below(self._table.shapes, "next_observations"):
            for start in range(0, self._rows - 1, _BLOCK):
                end = min(start + _BLOCK, self._rows - 1)
                after = self._table.read(name, slice(start, end))
                before = self._table.read(name[len("next_") :], slice(start + 1, end + 1))
                differ = (after != before).reshape(len(after), -1).any(axis=1)
                jumps[start:end] |= differ
        return jumps

    def _foreign(self, rows: slice, where: str) -> Episode:
        before = {name: self._table.read(name, rows)
                  for name in _below(self._table.shapes, "observations")}  # fmt: skip
        last = {}
        for name in _below(self._table.shapes, "next_observations"):
            after = self._table.read(name, rows)
            own = name[len("next_") :]
            if own in before and len(after) and not np.array_equal(after[:-1], before[own][1:]):
                raise bad("next_observations are not the observations that follow", where)
            last[own] = after[-1:]
        if last and set(last) != set(before):
            raise bad("next_observations lack some of observations", where)
        observed = trajectory.sort_observations({
            name[len("observations/") :] or "observations":
                np.concatenate([array, last[name]]) if last else array
            for name, array in before.items()
        })  # fmt: skip
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
            ROBOT, self.path.stem, self._rate,
            trajectory.unnamed_actions(scale), observed.spec, **label,
        )  # fmt: skip
        return trajectory.converted_episode(
            meta, observed.images, observed.state, unit, rewards, terminated
        )

    def _own_episode(self, number: int, rows: slice) -> Episode:
        observed = str(self._table.read(_OBSERVED)[0], "ascii")
        arrays = {name: self._table.read(name, rows) for name in trajectory.STEP_ROWS}
        names = {f"obs/{observed}": "observations"}
        names.update({n[len(_INFOS) :]: n for n in self._table.shapes if n.startswith(_INFOS)})
        for own, name in names.items():
            arrays[own] = self._table.read(name, rows)
            if trajectory.has_final_row(own):
                last = self._table.read(_LAST + own, slice(number, number + 1))
                arrays[own] = np.concatenate([arrays[own], last])
        return trajectory.own_episode(self._metadata[number], arrays, self.names[number])


def _below(names: Mapping[str, Any], room: str) -> List[str]:
    """``room`` itself, or all names in it."""
    return sorted(name for name in names if name == room or name.startswith(f"{room}/"))


def _flat_names(shapes: Mapping[str, Any]) -> List[str]:
    names = [name for name in trajectory.STEP_ROWS if name in shapes]
    return names + _below(shapes, "observations") + _below(shapes, "next_observations")


def export(
    dataset: Dataset, out: Path, options: D4rlExport, progress: Optional[Progress] = None
) -> int:
    """Write ``dataset`` as flat arrays, an .npz where ``out`` ends so; returns how many episodes.

    Raises ConfigError where ``options.observations`` is none of it, DatasetError where ``out``
    exists or cannot be written, or an episode is damaged.
    """
    observed = f"obs/{options.observations}"
    there = ["state"] + [camera.name for camera in dataset.observation_spec.cameras]
    if options.observations not in there:
        raise ConfigError(f"no observation {options.observations!r}, there is {', '.join(there)}")
    paths = dataset.paths[: options.num_traj or None]
    with new_file(out) as path:
        table = new_table(path)
        texts: List[bytes] = []
        with contextlib.closing(table):
            for number, source in enumerate(paths):
                episode = read_episode(source)
                _append(table, episode, observed)
                texts.append(json.dumps(episode.meta.to_attrs()).encode("ascii"))
                table.flush()
                if progress is not None:
                    progress(number + 1, len(paths))
            table.append(_LENGTHS, np.array(dataset.lengths[: len(paths)], np.int64))
            table.append(_EPISODES, np.array(texts))
            table.append(_OBSERVED, np.array([options.observations.encode("ascii")]))
            table.finish()
    return len(paths)


def _append(table: NewTable, episode: Episode, observed: str) -> None:
    for name, rows in trajectory.arrays_of(episode).items():
        before = rows[: len(episode)]
        if name == observed:
            table.append("observations", before)
            table.append("next_observations", rows[1:])
        elif name in trajectory.STEP_ROWS:
            table.append(name, before)
        else:
            table.append(_INFOS + name, before)
        if trajectory.has_final_row(name):
            table.append(_LAST + name, rows[-1:])
