"""Writes one episode: streamed to ``*.h5.partial``, then flushed, fsynced and named for good.

A killed recorder loses at most the running episode: earlier files are closed and complete, and a
``.partial`` is never counted. Uses HDF5's default ``libver`` on purpose: a ``latest`` or SWMR file
killed while open cannot be reopened at all (measured, docs/data_format.md).
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.control.signals import Applied, Tick
from ofrl_robot.data import disk, schema
from ofrl_robot.data.reader import read_meta
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import ActionSpec, ObservationSpec, require_same

_BLOCK = 64  # steps kept in memory between appends: 0.9 MB of 48x48 frames, 59 MB at 640x480


def prepare_folder(folder: Path, action_spec: ActionSpec, observation_spec: ObservationSpec) -> int:
    """Make ``folder`` ready for recording and return the number of its next episode.

    Raises DatasetError when it cannot be written or holds another format, SpecMismatchError
    when its episodes have another action or observation spec. Nothing is changed then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            error.strerror or str(error), "choose another out folder", folder
        ) from error
    if not os.access(str(folder), os.W_OK | os.X_OK):
        raise DatasetError("not writable", "mend its permissions or choose another folder", folder)
    paths = schema.episode_paths(folder)
    if paths:
        meta, _ = read_meta(paths[-1])
        fix = "record into another folder"
        require_same(action_spec, meta.action_spec, "this robot", str(paths[-1]), fix)
        require_same(observation_spec, meta.observation_spec, "this robot", str(paths[-1]), fix)
    return disk.next_index(folder)


class EpisodeWriter:
    """Streams one episode to disk.

    Call :meth:`observe` for tick 0, then :meth:`act` and :meth:`observe` in turn, then
    :meth:`finish` or :meth:`discard`. Steps out of order raise DatasetError: an episode with a
    hole is no episode.

    Args:
        folder: where it goes; ready, see :func:`prepare_folder`.
        meta: its attributes; what only the end shows is filled in by :meth:`finish`.
        index: its number. A number that is taken raises DatasetError, here or at the end; with
            None it is the next free one, also at the end.
    """

    def __init__(self, folder: Path, meta: schema.EpisodeMeta, index: Optional[int] = None) -> None:
        self.meta = meta
        self._renumber = index is None
        self._shapes = {c.name: c.shape for c in meta.observation_spec.cameras}
        self._pending: Dict[str, List[Any]] = {}
        self._observations = 0
        self._actions = 0
        self._last_stamp = 0
        self._first_stamp = 0
        # microseconds: the fingerprint of a dataset tells episodes of equal size apart by this
        meta.created = datetime.datetime.now(datetime.timezone.utc).isoformat()
        self._partial, self._disk = disk.open_partial(folder, index)
        self._file = h5py.File(self._disk, "w")
        self._group = self._file.create_group(schema.GROUP)

    def observe(self, tick: Tick) -> None:
        """Record the observation of a tick, and the reward of the transition that led to it."""
        if tick.step != self._observations or tick.step != self._actions:
            raise DatasetError(
                "tick {} arrived when {} was due (lost or repeated tick)".format(
                    tick.step, self._observations
                ),
                "the episode is discarded; look for an overloaded machine",
                self._partial.name,
            )
        if tick.step == 0:
            self._first_stamp = tick.stamp_ns
        else:
            self._push("rewards", float(tick.reward))
            self._push("terminals", bool(tick.terminated))
            self._push("timeouts", bool(tick.truncated and not tick.terminated))
            self._push("dones", bool(tick.last))
        for name, shape in self._shapes.items():
            self._push_array("obs/" + name, tick.images.get(name), shape, np.uint8)
            stamp = tick.image_stamps_ns.get(name, tick.stamp_ns)
            self._push("timestamps/" + name, stamp)
        states = (len(self.meta.observation_spec.state_names),)
        self._push_array("obs/state", tick.state, states, np.float64)
        self._push("timestamps/obs", tick.stamp_ns)
        self._observations += 1
        self._last_stamp = tick.stamp_ns
        if self._observations % _BLOCK == 0:
            self._append()

    def act(self, applied: Applied) -> None:
        """Record what was applied in answer to the last observed tick."""
        if self._actions + 1 != self._observations or applied.stamp_ns != self._last_stamp:
            raise DatasetError(
                "an action answers stamp {} but the last tick is {}".format(
                    applied.stamp_ns, self._last_stamp
                ),
                "the episode is discarded; look for an overloaded machine",
                self._partial.name,
            )
        size = (self.meta.action_spec.size,)
        self._push_array("actions", applied.action, size, np.float32)
        self._push_array("actions_requested", applied.requested, size, np.float32)
        self._push("limited", applied.limited)
        self._push("intervention", applied.intervention)
        self._push("timestamps/action", applied.stamp_ns)
        self._actions += 1

    def finish(self, success: int, label_source: str, abort_reason: str = "") -> Optional[Path]:
        """Complete the file and give it its final name; returns its path.

        An episode without a single transition is discarded and None returned. A trailing action
        without the observation that follows it is dropped.
        """
        transitions = min(self._actions, self._observations - 1)
        if transitions < 1:
            self.discard()
            return None
        self._append()
        self._truncate(transitions)
        if not self._group["dones"][transitions - 1]:
            # cut short (stopped by hand): the last transition is a timeout, not a terminal
            self._group["timeouts"][transitions - 1] = True
            self._group["dones"][transitions - 1] = True
        self._link_next_obs(transitions)
        seconds = (self._last_stamp - self._first_stamp) * 1e-9
        self.meta.success, self.meta.label_source = int(success), label_source
        self.meta.abort_reason = abort_reason
        self.meta.measured_rate_hz = transitions / seconds if seconds > 0 else 0.0
        self._group.attrs.update(self.meta.to_attrs())
        self._group.attrs["num_samples"] = transitions
        # robomimic's two required attributes of the data group
        self._file["data"].attrs["total"] = transitions
        self._file["data"].attrs["env_args"] = json.dumps(
            {"env_name": self.meta.task, "type": 0, "env_kwargs": {}}
        )
        self._file.close()
        self._require_written()
        self._disk.close()
        return disk.publish(self._partial, self._renumber)

    def discard(self) -> None:
        """Drop the episode and its partial file."""
        if self._file:
            self._file.close()
        self._disk.close()
        if self._partial.exists():
            self._partial.unlink()

    def _push(self, name: str, value: Any) -> None:
        self._pending.setdefault(name, []).append(value)

    def _push_array(self, name: str, value: Any, shape: Tuple[int, ...], dtype: Any) -> None:
        """Keep a copy (drivers may reuse their buffers) of an array that fits its spec."""
        found = np.asarray(value)
        if found.shape != shape or (dtype == np.uint8 and found.dtype != np.uint8):
            raise DatasetError(
                "{} is {} {}, its spec says {} {}".format(
                    name, found.dtype, found.shape, np.dtype(dtype), shape
                ),
                "the episode is discarded; mend the robot or its spec",
                self._partial.name,
            )
        self._push(name, np.array(found, dtype))

    def _append(self) -> None:
        for name, rows in self._pending.items():
            block = np.asarray(rows)
            if name not in self._group:
                is_image = name.startswith("obs/") and name[4:] in self._shapes
                self._group.create_dataset(
                    name,
                    data=block,
                    maxshape=(None,) + block.shape[1:],
                    # one frame per chunk: 9 ms for 200 random reads, gzip with automatic chunks
                    # 3.7 s (measured, docs/data_format.md)
                    chunks=((1,) if is_image else (256,)) + block.shape[1:],
                )
            else:
                data = self._group[name]
                start = data.shape[0]
                data.resize(start + len(block), axis=0)
                data[start:] = block
        self._pending.clear()
        self._file.flush()
        self._require_written()

    def _require_written(self) -> None:
        if self._disk.error is not None:
            raise disk.disk_error(self._disk.error, self._partial) from self._disk.error

    def _truncate(self, transitions: int) -> None:
        def cut(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                per_observation = name.startswith("obs/") or (
                    name.startswith("timestamps/") and name != "timestamps/action"
                )
                item.resize(transitions + int(per_observation), axis=0)

        self._group.visititems(cut)

    def _link_next_obs(self, transitions: int) -> None:
        """``next_obs`` as virtual datasets over ``obs[1:]``: readable by robomimic, no copy."""
        for name, source in list(self._group["obs"].items()):
            layout = h5py.VirtualLayout((transitions,) + source.shape[1:], source.dtype)
            layout[:] = h5py.VirtualSource(".", source.name, source.shape)[1:]
            self._group.create_virtual_dataset("next_obs/" + name, layout)
