"""Writes one episode: streamed to ``*.h5.partial``, then flushed, fsynced and named for good.

A killed recorder loses at most what came after its last commit: earlier files are closed and
complete, a ``.partial`` is never counted, and ``recover.py`` makes an episode of
it. Uses HDF5's default ``libver`` on purpose: a ``latest`` or SWMR file killed while open cannot
be reopened at all (measured, docs/data_format.md).
"""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.episodes import numbering, schema
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.data.episodes.timing import measured_rate_hz
from ofrl_robot.errors import CameraStoppedError, DatasetError
from ofrl_robot.files import make_folder
from ofrl_robot.specs import ActionSpec, CameraSpec, ObservationSpec, require_same

# s between commits: what a killed recorder loses. A commit takes 5 ms with two cameras of 640x480
# at 30 Hz (measured), so 1 % of the time.
COMMIT_PERIOD = 0.5


def prepare_folder(folder: Path, action_spec: ActionSpec, observation_spec: ObservationSpec) -> int:
    """Make ``folder`` ready for recording and return the number of its next episode.

    Raises DatasetError when it cannot be written or holds another format, SpecMismatchError
    when its episodes have another action or observation spec. Nothing is changed then.
    """
    make_folder(folder)
    paths = schema.episode_paths(folder)
    if paths:
        meta, _ = read_meta(paths[-1])
        fix = "record into another folder"
        require_same(action_spec, meta.action_spec, "this robot", str(paths[-1]), fix)
        require_same(observation_spec, meta.observation_spec, "this robot", str(paths[-1]), fix)
    return numbering.next_index(folder)


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
        jpeg_quality: 1 to 100: also keep every frame as it was before crop and resize, as a JPEG
            of that quality; 0: do not.
    """

    def __init__(
        self,
        folder: Path,
        meta: schema.EpisodeMeta,
        index: Optional[int] = None,
        jpeg_quality: int = 0,
    ) -> None:
        self.meta = meta
        self._renumber = index is None
        self._pending: Dict[str, List[Any]] = {}
        self._observations = 0
        self._actions = 0
        self._last_stamp = 0
        self._safe_steps = 0  # on disk, whatever comes
        self._disk_failed = False
        # microseconds: the fingerprint of a dataset tells episodes of equal size apart by this
        meta.created = datetime.datetime.now(datetime.timezone.utc).isoformat()
        self._partial, self._disk = numbering.open_partial(folder, index)
        self._file = h5py.File(self._disk, "w")
        self._group = self._file.create_group(schema.GROUP)
        self._group.attrs.update(meta.to_attrs())
        self._cameras = {c.name: self._camera_rows(c) for c in meta.observation_spec.cameras}
        self._quality = jpeg_quality
        self._originals = (
            {name: self._original_rows(name) for name in self._cameras} if jpeg_quality else {}
        )
        try:
            self._commit()
        except DatasetError:
            self.discard()
            raise

    def observe(self, tick: Tick) -> None:
        """Record the observation of a tick, and the reward of the transition that led to it.

        Raises CameraStoppedError when a camera has no frame in it; what was recorded before is
        whole, so :meth:`finish` may still be called. Stamps are recorded as they come, also when
        the clock jumps: the order is that of the steps.
        """
        if tick.step != self._observations or tick.step != self._actions:
            raise DatasetError(
                f"tick {tick.step} arrived when {self._observations} was due (lost or "
                "repeated tick)",
                "the episode is discarded; look for an overloaded machine",
                self._partial.name,
            )
        for name in self._cameras:
            if name not in tick.images:
                raise CameraStoppedError(
                    f"camera {name} stopped",
                    "the episode is kept up to there; look at its plug and its driver",
                )
        frames = {
            name: self._fitting(f"obs/{name}", tick.images[name], rows.shape[1:], np.uint8)
            for name, rows in self._cameras.items()
        }
        if tick.step > 0:
            self._push("rewards", float(tick.reward))
            self._push("terminals", bool(tick.terminated))
            self._push("timeouts", bool(tick.truncated and not tick.terminated))
            self._push("dones", bool(tick.last))
        for name, frame in frames.items():
            self._write_frame(self._cameras[name], frame)
            stamp = tick.image_stamps_ns.get(name, tick.stamp_ns)
            self._push(f"timestamps/{name}", stamp)
        for name, rows in self._originals.items():
            self._write_original(rows, tick.originals.get(name, tick.images[name]))
        states = (len(self.meta.observation_spec.state_names),)
        self._push_array("obs/state", tick.state, states, np.float64)
        self._push("timestamps/obs", tick.stamp_ns)
        self._push("timestamps/state", tick.state_stamp_ns)
        self._observations += 1
        self._last_stamp = tick.stamp_ns
        if time.monotonic() - self._committed >= COMMIT_PERIOD:
            self._commit()

    def act(self, applied: AppliedAction) -> None:
        """Record what was applied in answer to the last observed tick."""
        if self._actions + 1 != self._observations or applied.stamp_ns != self._last_stamp:
            raise DatasetError(
                f"an action answers stamp {applied.stamp_ns} but the last tick is "
                f"{self._last_stamp}",
                "the episode is discarded; look for an overloaded machine",
                self._partial.name,
            )
        size = (self.meta.action_spec.size,)
        self._push_array("actions", applied.action, size, np.float32)
        self._push_array("actions_requested", applied.requested, size, np.float32)
        self._push("limited", applied.limited)
        self._push("intervention", applied.intervention)
        self._push("held", applied.held)
        self._push("timestamps/action", applied.stamp_ns)
        self._push("timestamps/applied", applied.applied_ns)
        self._actions += 1

    def finish(self, success: int, label_source: str, abort_reason: str = "") -> Optional[Path]:
        """Complete the file and give it its final name; returns its path.

        Raises DatasetError when the disk refuses; see :meth:`discard`.

        An episode without a single transition is discarded and None returned. A trailing action
        without the observation that follows it is dropped.
        """
        transitions = min(self._actions, self._observations - 1)
        if transitions < 1:
            self.discard()
            return None
        self._append()
        complete(self._file, transitions, int(success), label_source, abort_reason)
        self._file.close()
        self._disk.commit()
        self._require_written()
        self._safe_steps = transitions
        self._disk.close()
        try:
            return numbering.publish(self._partial, self._renumber)
        except OSError as error:
            raise self._disk_error(error) from error

    def discard(self) -> None:
        """Drop the episode and its partial file; nothing happens when it is finished.

        After the disk failed, a partial file with at least one step stays, to be recovered.
        """
        if self._file:
            self._file.close()
        self._disk.close()
        if self._partial.exists() and not (self._disk_failed and self._safe_steps):
            self._partial.unlink()

    def _camera_rows(self, camera: CameraSpec) -> h5py.Dataset:
        # one frame per chunk: 9 ms for 200 random reads, gzip with automatic chunks 3.7 s
        # (measured, docs/data_format.md)
        return self._group.create_dataset(
            f"obs/{camera.name}",
            (0,) + camera.shape,
            np.uint8,
            maxshape=(None,) + camera.shape,
            chunks=(1,) + camera.shape,
        )

    def _write_frame(self, rows: h5py.Dataset, frame: np.ndarray) -> None:
        """Append a frame, straight to the disk: 0.4 ms at 640x480.

        Kept in memory, 30 of each of two cameras stopped the recorder for up to 0.13 s at once.
        """
        rows.resize(self._observations + 1, axis=0)
        offsets = (self._observations,) + (0,) * frame.ndim
        rows.id.write_direct_chunk(offsets, np.ascontiguousarray(frame))

    def _original_rows(self, name: str) -> h5py.Dataset:
        kind = h5py.vlen_dtype(np.uint8)
        path = f"{schema.ORIGINALS}/{name}"
        rows = self._group.create_dataset(path, (0,), kind, maxshape=(None,), chunks=(256,))
        rows.attrs["encoding"], rows.attrs["quality"] = "jpeg", self._quality
        return rows

    def _write_original(self, rows: h5py.Dataset, pixels: np.ndarray) -> None:
        """Append a frame as JPEG: 1 ms and about 0.1 MB at 640x480 and quality 90."""
        rows.resize(self._observations + 1, axis=0)
        rows[self._observations] = encode_jpeg(pixels, self._quality)

    def _push(self, name: str, value: Any) -> None:
        self._pending.setdefault(name, []).append(value)

    def _push_array(self, name: str, value: Any, shape: Tuple[int, ...], dtype: Any) -> None:
        """Keep a copy: drivers may reuse their buffers."""
        self._push(name, np.array(self._fitting(name, value, shape, dtype), dtype))

    def _fitting(self, name: str, value: Any, shape: Tuple[int, ...], dtype: Any) -> np.ndarray:
        """``value`` as an array that fits its spec; raises DatasetError."""
        found = np.asarray(value)
        if found.shape != shape or (dtype == np.uint8 and found.dtype != np.uint8):
            raise DatasetError(
                f"{name} is {found.dtype} {found.shape}, its spec says {np.dtype(dtype)} {shape}",
                "the episode is discarded; mend the robot or its spec",
                self._partial.name,
            )
        return found

    def _append(self) -> None:
        """Hand the rows in memory to HDF5."""
        for name, rows in self._pending.items():
            block = np.asarray(rows)
            if name not in self._group:
                self._group.create_dataset(
                    name,
                    data=block,
                    maxshape=(None,) + block.shape[1:],
                    # a 25-step episode would be 14 % larger with 256
                    # a state without entries (a dataset of images) has no such chunk
                    chunks=(64,) + block.shape[1:] if block.size else True,
                )
            else:
                data = self._group[name]
                start = data.shape[0]
                data.resize(start + len(block), axis=0)
                data[start:] = block
        self._pending.clear()

    def _commit(self) -> None:
        """Put everything so far on disk, all or nothing."""
        self._append()
        self._file.flush()
        self._disk.commit()
        self._require_written()
        self._committed = time.monotonic()
        self._safe_steps = max(0, self._observations - 1)

    def _require_written(self) -> None:
        if self._disk.error is not None:
            raise self._disk_error(self._disk.error) from self._disk.error

    def _disk_error(self, error: OSError) -> DatasetError:
        self._disk_failed = True
        fix = "free space; `ofrl data verify --repair` then keeps what was recorded"
        return numbering.disk_error(error, self._partial, fix)


def encode_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> a JPEG file, uint8 (bytes,)."""
    import cv2  # only needed where originals are kept

    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def recorded_transitions(group: h5py.Group) -> int:
    """Whole transitions among the rows of an unfinished episode; below 1: it is none."""
    rows = [len(item) - extra_row(name) for name, item in datasets(group)]
    return min(rows) if "actions" in group and "obs/state" in group else 0


def complete(
    file: h5py.File, transitions: int, success: int, label_source: str, abort_reason: str
) -> None:
    """Make an episode of the rows that were streamed: cut to length, ended, labelled."""
    group = file[schema.GROUP]
    for name, item in datasets(group):
        item.resize(transitions + extra_row(name), axis=0)
    if not group["dones"][transitions - 1]:
        # cut short (stopped by hand): the last transition is a timeout, not a terminal
        group["timeouts"][transitions - 1] = True
        group["dones"][transitions - 1] = True
    _link_next_obs(group, transitions)
    group.attrs["success"], group.attrs["label_source"] = success, label_source
    group.attrs["abort_reason"] = abort_reason
    group.attrs["measured_rate_hz"] = measured_rate_hz(group["timestamps/obs"][:])
    group.attrs["num_samples"] = transitions
    # robomimic's two required attributes of the data group
    file["data"].attrs["total"] = transitions
    file["data"].attrs["env_args"] = json.dumps(
        {"env_name": group.attrs["task"], "type": 0, "env_kwargs": {}}
    )


def datasets(group: h5py.Group) -> List[Tuple[str, h5py.Dataset]]:
    """All datasets below a group by their names, ``obs/state`` and the like."""
    found: List[Tuple[str, h5py.Dataset]] = []

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((name, item))

    group.visititems(take)
    return found


def extra_row(name: str) -> int:
    """1 for a dataset with a row per observation, 0 for one with a row per transition."""
    room, _, leaf = name.partition("/")
    if room == "timestamps":
        return int(leaf not in schema.ACTION_STAMPS)
    return int(room in ("obs", schema.ORIGINALS))


def _link_next_obs(group: h5py.Group, transitions: int) -> None:
    """``next_obs`` as virtual datasets over ``obs[1:]``: readable by robomimic, no copy."""
    for name, source in list(group["obs"].items()):
        layout = h5py.VirtualLayout((transitions,) + source.shape[1:], source.dtype)
        layout[:] = h5py.VirtualSource(".", source.name, source.shape)[1:]
        group.create_virtual_dataset(f"next_obs/{name}", layout)
