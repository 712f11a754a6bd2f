"""Read and write Minari datasets: a folder with ``data/main_data.hdf5`` and ``metadata.json``.

Written: observations as a dict of all cameras and the state, images without loss (minari reads
such images from 0.5.4 on), and ``infos/success`` for labelled episodes. Arrays that Minari has no
name for go to ``infos``, attributes to the attributes of the episode. A dataset written here comes
back exactly, except for ``created``, splits, and rewards from before a relabelling.

Not converted from a foreign dataset: ``infos`` (except success), reset options, text, and images
that are not RGB. Actions become float32. The format has no times, so stamps are those of the
control rate. JPEG images are decoded; environments are never built.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.data.convert import native, trajectory
from ofrl_robot.data.convert.closing import close_on_error
from ofrl_robot.data.convert.hdf5 import ForeignFile, NewFile, store
from ofrl_robot.data.convert.importing import Progress, Source
from ofrl_robot.data.convert.jpeg import decode_jpegs
from ofrl_robot.data.convert.options import MinariExport, MinariImport
from ofrl_robot.data.convert.trajectory import trajectory_error
from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.files import new_folder, read_json, write_whole
from ofrl_robot.specs import ObservationSpec

ROBOT = "minari"
MINARI_VERSION = "0.5.4"  # the first that reads images which are not JPEG
_DATA, _METADATA = "main_data.hdf5", "metadata.json"
_STEP_NAMES = {"terminals": "terminations", "timeouts": "truncations"}  # ours: Minari's
_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")
_SUCCESS = ("infos/success", "infos/is_success")


class _Units(NamedTuple):
    """Conversion of a foreign action: normalised action = (action - offset) / scale."""

    scale: np.ndarray
    offset: np.ndarray
    environment: Dict[str, List[float]]  # ends of an action space that is not symmetric


class MinariFolder(Source):
    """The episodes of one dataset: the folder that contains ``data``, or ``data`` itself.

    Raises:
        DatasetError: the folder is not a Minari dataset.
        ConfigError: the control rate is not given.
    """

    def __init__(self, path: Path, options: MinariImport) -> None:
        self.path = path
        self._options = options
        self._warnings = trajectory.LeftOutWarnings("observations/")
        folder = path / "data" if (path / "data").is_dir() else path
        self._file = ForeignFile(folder / _DATA)
        with close_on_error(self):
            self._open(folder)

    def _open(self, folder: Path) -> None:
        root = self._file.root
        self._metadata = _metadata(folder, root)
        self._episodes = sorted((n for n in root if n.startswith("episode_")), key=_number)
        if not self._episodes:
            raise trajectory_error("has no episode_0", self.path, "check the path")
        self.names = [f"{self.path}: {name}" for name in self._episodes]
        self._task = _task(self._metadata, self.path)
        self._native = native.is_native(root[self._episodes[0]].attrs)
        if self._native:
            native.refuse_flags(self._options, self.path)
        else:
            self._rate = trajectory.control_rate(self._options, None, self.path)
            self._low, self._high = _action_range(self._metadata, self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, number: int) -> Episode:
        """Return one episode."""
        group = self._file.group(self._episodes[number])
        where = self.names[number]
        native.require_all_native(group.attrs, self._native, where)
        datasets = self._file.datasets(group)
        observations = {
            name.partition("/")[2] or "observations": self._observation(data, where)
            for name, data in datasets.items()
            if name.partition("/")[0] == "observations"
        }
        steps = {
            name: self._file.read(datasets[_STEP_NAMES.get(name, name)])
            for name in native.STEP_ROWS
        }
        if not self._native:
            return self._foreign(group, observations, steps, datasets, where)
        arrays = dict(steps)
        arrays.update({f"obs/{name}": rows for name, rows in observations.items()})
        for name, data in datasets.items():
            if name.startswith("infos/"):
                arrays[name[len("infos/") :]] = self._file.read(data)
        if "obs/state" not in arrays:  # an empty vector is not written: no space can hold it
            arrays["obs/state"] = np.zeros((len(steps["actions"]) + 1, 0))
        return native.native_episode({"seed": -1, **group.attrs}, arrays, where)

    def _foreign(
        self,
        group: h5py.Group,
        observations: Dict[str, np.ndarray],
        steps: Dict[str, np.ndarray],
        datasets: Dict[str, h5py.Dataset],
        where: str,
    ) -> Episode:
        observed = trajectory.sort_observations(observations, self._options.frame)
        self._warnings.warn(observed.left_out)
        actions = trajectory.numbers(steps["actions"], "actions", where)
        if actions.ndim != 2:
            raise trajectory_error(f"actions are {actions.shape}, (steps, entries) expected", where)
        units = self._units(actions.shape[1], where)
        terminals = steps["terminals"].astype(bool)
        ends = terminals | steps["timeouts"].astype(bool)
        if ends[:-1].any():
            raise trajectory_error("goes on after its end", where)
        seed = group.attrs.get("seed", -1)
        meta = trajectory.converted_meta(
            ROBOT,
            self._task,
            self._rate,
            trajectory.unnamed_actions(units.scale, self._options.frame),
            observed.spec,
            environment=units.environment,
            seed=int(seed) if isinstance(seed, np.integer) else -1,
            **self._label(datasets),
        )
        return trajectory.converted_episode(
            meta,
            observed.images,
            observed.state,
            trajectory.unit_actions(actions - units.offset, units.scale, where),
            trajectory.flat(steps["rewards"], "rewards", where),
            terminated=bool(len(terminals) and terminals[-1]),
        )

    def _units(self, size: int, where: str) -> _Units:
        """Return how to normalise actions of ``size`` entries.

        An action space that is not symmetric has an offset; the environment then keeps its ends.
        """
        zero = np.zeros(size)
        if self._options.action_scale is not None:
            return _Units(np.full(size, self._options.action_scale), zero, {})
        low, high = self._low, self._high
        if low is None or high is None or not (np.isfinite(low) & np.isfinite(high)).all():
            return _Units(np.ones(size), zero, {})
        if low.shape != (size,) or high.shape != (size,) or not (low < high).all():
            raise trajectory_error("its actions do not fit the action space", where)
        if np.array_equal(low, -high):
            return _Units(high, zero, {})
        ends = {"action_low": low.tolist(), "action_high": high.tolist()}
        return _Units((high - low) / 2, (high + low) / 2, ends)

    def _label(self, datasets: Dict[str, h5py.Dataset]) -> Dict[str, Any]:
        for name in _SUCCESS:
            if name in datasets and datasets[name].ndim == 1 and len(datasets[name]):
                last = bool(self._file.read(datasets[name], slice(-1, None))[0])
                success = schema.SUCCESS if last else schema.FAILURE
                return {"success": success, "label_source": f"minari {name} at last step"}
        return {}

    def _observation(self, data: h5py.Dataset, where: str) -> np.ndarray:
        """Return the rows of one observation.

        JPEG images are one row of bytes each; the rows have one length or not.
        """
        if h5py.check_vlen_dtype(data.dtype) == np.uint8:
            encoded = [bytes(self._file.read(data, slice(i, i + 1))[0]) for i in range(len(data))]
        elif data.dtype == np.uint8 and data.ndim == 2 and self._looks_jpeg(data):
            encoded = [row.tobytes() for row in self._file.read(data)]
        else:
            return self._file.read(data)
        frames = decode_jpegs(encoded, where)
        self._file.pay(frames.nbytes)
        return frames

    def _looks_jpeg(self, data: h5py.Dataset) -> bool:
        return self._metadata.get("jpeg_encoding", True) and bytes(data[0, :2]) == b"\xff\xd8"


def _number(episode: str) -> Tuple[int, int, str]:
    """Return a sort key: episode_2 before episode_10, other names last."""
    number = episode[len("episode_") :]
    return (0, int(number), "") if number.isdigit() else (1, 0, episode)


def _metadata(folder: Path, root: h5py.File) -> Dict[str, Any]:
    """Return the content of metadata.json, or the attributes that Minari 0.4 has instead."""
    path = folder / _METADATA
    if not path.exists():
        return dict(root.attrs)
    found = read_json(path)
    if not isinstance(found, dict):
        raise DatasetError("is not a JSON object", "get the file again", path)
    return found


def _task(metadata: Dict[str, Any], path: Path) -> str:
    """Return the id of the environment, else that of the dataset."""
    try:
        environment = json.loads(metadata["env_spec"])["id"]
    except (KeyError, TypeError, ValueError):
        environment = metadata.get("dataset_id")
    return environment if isinstance(environment, str) else path.resolve().name


def _action_range(
    metadata: Dict[str, Any], path: Path
) -> Tuple[Optional[np.ndarray], Optional[np.ndarray]]:
    """Return the ends of the action space (A,) each; None if the metadata has none."""
    if "action_space" not in metadata:
        return None, None
    try:
        space = json.loads(metadata["action_space"])
        kind = space["type"]
        if kind == "Box":
            return np.array(space["low"], np.float64), np.array(space["high"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise trajectory_error("its action space cannot be read", path) from error
    raise DatasetError(
        f"its action space is {kind}", "convert datasets of vectors of numbers only", path
    )


def export(
    dataset: Dataset, out: Path, options: MinariExport, progress: Optional[Progress] = None
) -> int:
    """Write ``dataset`` as a Minari dataset.

    Minari finds it by its id below the folder in ``MINARI_DATASETS_PATH``.

    Returns:
        The number of episodes.

    Raises:
        ConfigError: the id is not valid.
        OutputError: ``out`` is not empty or cannot be written.
        DatasetError: an episode is damaged.
    """
    dataset_id = options.id or out.resolve().name
    if not _ID.fullmatch(dataset_id):
        raise ConfigError(
            f"{dataset_id!r} is not a Minari dataset id", "pass --id like lab/grasp-v0", out
        )
    paths = dataset.paths[: options.num_traj or None]
    with new_folder(out) as folder:
        data = folder / "data"
        data.mkdir()
        with contextlib.closing(NewFile(data / _DATA)) as file:
            for number, path in enumerate(paths):
                group = file.root.create_group(f"episode_{number}", track_order=True)
                _write(group, read_episode(path), number)
                file.flush()
                if progress is not None:
                    progress(number + 1, len(paths))
        size = (data / _DATA).stat().st_size
        metadata = _new_metadata(dataset, dataset_id, len(paths), size)
        write_whole(data / _METADATA, json.dumps(metadata))
    return len(paths)


def _write(group: h5py.Group, episode: Episode, number: int) -> None:
    for name, rows in native.arrays_of(episode).items():
        if name in native.STEP_ROWS:
            store(group, _STEP_NAMES.get(name, name), rows)
        elif not name.startswith("obs/"):
            store(group, f"infos/{name}", rows)
        elif rows.size:
            store(group, f"observations/{name[len('obs/') :]}", rows)
    meta = episode.meta
    if meta.success != schema.UNKNOWN:
        success = np.zeros(len(episode) + 1, bool)  # as infos of reset and of every step
        success[-1] = meta.success == schema.SUCCESS
        store(group, _SUCCESS[0], success)
    attributes = meta.to_attrs()
    attributes.update(id=number, total_steps=len(episode))
    if meta.seed < 0:
        del attributes["seed"]
    group.attrs.update(attributes)


def _new_metadata(dataset: Dataset, dataset_id: str, episodes: int, size: int) -> Dict[str, Any]:
    actions = (dataset.action_spec.size,)
    # No env_spec: Minari would build that environment, and no registered one has these spaces.
    return {
        "dataset_id": dataset_id,
        "minari_version": MINARI_VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": episodes,
        "total_steps": sum(dataset.lengths[:episodes]),
        "dataset_size": round(size / 1e6, 1),
        "observation_space": json.dumps(_space(dataset.observation_spec)),
        "action_space": json.dumps(_box("float32", actions, -1.0, 1.0)),
        "algorithm_name": ", ".join(sorted({m.actor for m in dataset.metas} - {""})),
        "author": sorted({m.operator for m in dataset.metas} - {""}),
        "description": ", ".join(sorted({m.task for m in dataset.metas})),
    }


def _space(spec: ObservationSpec) -> Dict[str, Any]:
    """Return the space of a dict of observations, in Minari's JSON form."""
    spaces = {c.name: _box("uint8", c.shape, 0, 255) for c in spec.cameras}
    if spec.state_names:
        size = (len(spec.state_names),)
        spaces["state"] = _box("float64", size, float("-inf"), float("inf"))
    return {"type": "Dict", "subspaces": spaces}


def _box(dtype: str, shape: Tuple[int, ...], low: float, high: float) -> Dict[str, Any]:
    return {
        "type": "Box",
        "dtype": dtype,
        "shape": list(shape),
        "low": np.full(shape, low).tolist(),
        "high": np.full(shape, high).tolist(),
    }
