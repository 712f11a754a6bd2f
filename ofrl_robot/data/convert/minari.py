"""Minari: one folder per dataset, episodes in ``data/main_data.hdf5``, the rest in JSON.

Written: observations as a dict of all cameras and the state, images without loss (which minari
reads from 0.5.4 on); what Minari has no place for goes to ``infos`` and to the attributes of the
episode. What was written here comes back exactly, but for ``created``, splits, and rewards from
before a relabelling.

Lost from a foreign dataset: ``infos`` (but for success), reset options, text, and images that are
not RGB. Actions become float32. It has no times, so stamps are those of the control rate. JPEG
images are decoded; environments are never built.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.data.convert import trajectory
from ofrl_robot.data.convert.hdf5 import ForeignFile, NewFile, store
from ofrl_robot.data.convert.importing import Progress, Source
from ofrl_robot.data.convert.jpeg import decode_jpegs
from ofrl_robot.data.convert.options import MinariExport, MinariImport
from ofrl_robot.data.convert.trajectory import bad
from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.files import new_folder
from ofrl_robot.specs import ObservationSpec

ROBOT = "minari"
MINARI_VERSION = "0.5.4"  # the first that reads images which are not JPEG
_STEP_NAMES = {"terminals": "terminations", "timeouts": "truncations"}  # ours: Minari's
_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")
_SUCCESS = ("infos/success", "infos/is_success")
_log = logging.getLogger(__name__)


class MinariFolder(Source):
    """The episodes of one dataset: the folder with ``data`` in it, or that itself.

    Raises DatasetError where it is no such folder, ConfigError where the rate is not told.
    """

    def __init__(self, path: Path, options: MinariImport) -> None:
        self.path = path
        folder = path / "data" if (path / "data").is_dir() else path
        self._file = ForeignFile(folder / "main_data.hdf5")
        try:
            root = self._file.root
            self._metadata = _metadata(folder, root)
            self._episodes = sorted(
                (name for name in root if name.startswith("episode_")), key=_number
            )
            if not self._episodes:
                raise bad("no episode_0", path, "check the path")
            self.names = [f"{path}: {name}" for name in self._episodes]
            self._options, self._left_out = options, set()
            self._task = _task(self._metadata, path)
            self._own = trajectory.is_own(root[self._episodes[0]].attrs)
            if self._own:
                trajectory.refuse_for_own(options, path)
            else:
                self._rate = trajectory.rate(options, None, path)
                self._low, self._high = _action_range(self._metadata, path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def read(self, number: int) -> Episode:
        group = self._file.group(self._episodes[number])
        where = self.names[number]
        trajectory.require_own(group.attrs, self._own, where)
        datasets = self._file.datasets(group)
        observations = {
            name.partition("/")[2] or "observations": self._observation(data, where)
            for name, data in datasets.items()
            if name.partition("/")[0] == "observations"
        }
        steps = {
            name: self._file.read(datasets[_STEP_NAMES.get(name, name)])
            for name in trajectory.STEP_ROWS
        }
        if self._own:
            arrays = dict(steps)
            arrays.update({f"obs/{name}": rows for name, rows in observations.items()})
            for name, data in datasets.items():
                if name.startswith("infos/"):
                    arrays[name[len("infos/") :]] = self._file.read(data)
            if "obs/state" not in arrays:  # an empty vector has no place in a space
                arrays["obs/state"] = np.zeros((len(steps["actions"]) + 1, 0))
            return trajectory.own_episode({"seed": -1, **group.attrs}, arrays, where)
        return self._foreign(group, observations, steps, datasets, where)

    def _foreign(
        self, group: h5py.Group, observations: Dict[str, np.ndarray], steps: Dict[str, np.ndarray],
        datasets: Dict[str, h5py.Dataset], where: str,
    ) -> Episode:  # fmt: skip
        observed = trajectory.sort_observations(observations)
        for name in sorted(set(observed.left_out) - self._left_out):
            _log.warning("observations/%s is neither an RGB image nor a vector, left out", name)
            self._left_out.add(name)
        actions = trajectory.numbers(steps["actions"], "actions", where)
        if actions.ndim != 2:
            raise bad(f"actions are {actions.shape}, (steps, entries) expected", where)
        scale, offset, environment = self._units(actions.shape[1], where)
        terminals, timeouts = (steps[n].astype(bool) for n in ("terminals", "timeouts"))
        if (terminals | timeouts)[:-1].any():
            raise bad("goes on after its end", where)
        seed = group.attrs.get("seed", -1)
        meta = trajectory.converted_meta(
            ROBOT, self._task, self._rate,
            trajectory.unnamed_actions(scale), observed.spec, environment=environment,
            seed=int(seed) if isinstance(seed, np.integer) else -1,
            **self._label(datasets),
        )  # fmt: skip
        return trajectory.converted_episode(
            meta,
            observed.images,
            observed.state,
            trajectory.unit_actions(actions - offset, scale, where),
            trajectory.flat(steps["rewards"], "rewards", where),
            terminated=bool(len(terminals) and terminals[-1]),
        )

    def _units(
        self, size: int, where: str
    ) -> Tuple[np.ndarray, np.ndarray, Dict[str, List[float]]]:
        """(scale, offset, environment): unit action = (action - offset) / scale.

        An action space that is not symmetric has an offset; the environment then keeps its ends.
        """
        zero = np.zeros(size)
        if self._options.action_scale:
            return np.full(size, self._options.action_scale), zero, {}
        low, high = self._low, self._high
        if low is None or high is None or not (np.isfinite(low) & np.isfinite(high)).all():
            return np.ones(size), zero, {}
        if low.shape != (size,) or high.shape != (size,) or not (low < high).all():
            raise bad("its actions do not fit the action space", where)
        if np.array_equal(low, -high):
            return high, zero, {}
        ends = {"action_low": low.tolist(), "action_high": high.tolist()}
        return (high - low) / 2, (high + low) / 2, ends

    def _label(self, datasets: Dict[str, h5py.Dataset]) -> Dict[str, Any]:
        for name in _SUCCESS:
            if name in datasets and datasets[name].ndim == 1 and len(datasets[name]):
                last = bool(self._file.read(datasets[name], slice(-1, None))[0])
                success = schema.SUCCESS if last else schema.FAILURE
                return {"success": success, "label_source": f"minari {name} at last step"}
        return {}

    def _observation(self, data: h5py.Dataset, where: str) -> np.ndarray:
        """Rows of one observation. JPEG: a row of bytes each, all of one length or not."""
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


def _number(episode: str) -> Any:
    number = episode[len("episode_") :]
    return (0, int(number), "") if number.isdigit() else (1, 0, episode)


def _metadata(folder: Path, root: h5py.File) -> Dict[str, Any]:
    """metadata.json, or the attributes that Minari 0.4 has instead."""
    path = folder / "metadata.json"
    if not path.exists():
        return dict(root.attrs)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"no JSON ({str(error):.80})", "get it again", path) from error
    if not isinstance(found, dict):
        raise DatasetError("no JSON object", "get it again", path)
    return found


def _task(metadata: Dict[str, Any], path: Path) -> str:
    """Id of the environment, else that of the dataset."""
    try:
        environment = json.loads(metadata["env_spec"])["id"]
    except (KeyError, TypeError, ValueError):
        environment = metadata.get("dataset_id")
    return environment if isinstance(environment, str) else path.resolve().name


def _action_range(
    metadata: Dict[str, Any], path: Path
) -> Tuple[Optional[np.ndarray], Optional[np.ndarray]]:
    """Ends of the action space (A,) each, None where the metadata does not say."""
    if "action_space" not in metadata:
        return None, None
    try:
        space = json.loads(metadata["action_space"])
        kind = space["type"]
        if kind == "Box":
            return tuple(np.array(space[end], np.float64) for end in ("low", "high"))  # type: ignore
    except (KeyError, TypeError, ValueError) as error:
        raise bad("unreadable action space", path) from error
    raise DatasetError(
        f"its action space is {kind}", "only vectors of numbers can be converted", path
    )


def export(
    dataset: Dataset, out: Path, options: MinariExport, progress: Optional[Progress] = None
) -> int:
    """Write ``dataset`` as a Minari dataset; returns how many episodes.

    Minari finds it by its id below the folder that ``MINARI_DATASETS_PATH`` names.

    Raises ConfigError where there is no id, DatasetError where ``out`` exists or cannot be
    written, or an episode is damaged.
    """
    dataset_id = options.id or out.resolve().name
    if not _ID.fullmatch(dataset_id):
        raise ConfigError(
            f"{dataset_id!r} is no Minari dataset id", "pass --id like lab/grasp-v0", out
        )
    paths = dataset.paths[: options.num_traj or None]
    with new_folder(out) as folder:
        data = folder / "data"
        data.mkdir()
        with contextlib.closing(NewFile(data / "main_data.hdf5")) as file:
            for number, path in enumerate(paths):
                group = file.root.create_group(f"episode_{number}", track_order=True)
                _write(group, read_episode(path), number)
                file.flush()
                if progress is not None:
                    progress(number + 1, len(paths))
        size = (data / "main_data.hdf5").stat().st_size
        (data / "metadata.json").write_text(
            json.dumps(_new_metadata(dataset, dataset_id, len(paths), size))
        )
    return len(paths)


def _write(group: h5py.Group, episode: Episode, number: int) -> None:
    for name, rows in trajectory.arrays_of(episode).items():
        if name in trajectory.STEP_ROWS:
            store(group, _STEP_NAMES.get(name, name), rows)
        elif not name.startswith("obs/"):
            store(group, f"infos/{name}", rows)
        elif rows.size:
            store(group, f"observations/{name[len('obs/') :]}", rows)
    attributes = episode.meta.to_attrs()
    attributes.update(id=number, total_steps=len(episode))
    if episode.meta.seed < 0:
        del attributes["seed"]
    group.attrs.update(attributes)


def _new_metadata(dataset: Dataset, dataset_id: str, episodes: int, size: int) -> Dict[str, Any]:
    actions = (dataset.action_spec.size,)
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
    """The space of a dict of observations, as Minari writes it."""
    spaces = {c.name: _box("uint8", c.shape, 0, 255) for c in spec.cameras}
    if spec.state_names:
        size = (len(spec.state_names),)
        spaces["state"] = _box("float64", size, float("-inf"), float("inf"))
    return {"type": "Dict", "subspaces": spaces}


def _box(dtype: str, shape: Tuple[int, ...], low: float, high: float) -> Dict[str, Any]:
    ends = {name: np.full(shape, end).tolist() for name, end in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **ends}
