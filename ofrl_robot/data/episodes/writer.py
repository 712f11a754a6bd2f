"""Write one episode: stream it to ``*.h5.partial``, then flush, fsync and name it for good.

A killed recorder loses at most what came after its last commit: earlier files are closed and
complete, a ``.partial`` is never counted, and ``recover.py`` makes an episode of it. HDF5's
default ``libver`` is used on purpose: a ``latest`` or SWMR file that is killed while open cannot
be opened again (measured, docs/data_format.md).
"""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.control import signals
from ofrl_robot.control.limiter import limit_bits
from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.episodes import numbering, schema
from ofrl_robot.data.episodes.completing import complete
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.errors import CameraStoppedError, DatasetError, OutputError
from ofrl_robot.files import make_folder
from ofrl_robot.specs import CameraSpec, require_same

# Seconds between commits: what a killed recorder loses. A commit takes 5 ms with two cameras of
# 640x480 at 30 Hz (measured), so 1 % of the time.
COMMIT_PERIOD = 0.5


def prepare_folder(folder: Path, meta: schema.EpisodeMeta, mixed_tasks: bool = False) -> int:
    """Make ``folder`` ready for recording and return the number of its next episode.

    Args:
        folder: made unless it exists.
        meta: metadata of an episode that will be recorded into it.
        mixed_tasks: allow another task or robot than that of the last episode in the folder.

    Raises:
        OutputError: the folder cannot be written.
        DatasetError: it holds another format, or episodes of another task or robot.
        SpecMismatchError: its episodes have another action or observation spec.

    Nothing is changed when it raises.
    """
    make_folder(folder)
    paths = schema.episode_paths(folder)
    if paths:
        last, _ = read_meta(paths[-1])
        fix = "record into another folder"
        names = "this robot", str(paths[-1])
        require_same(meta.action_spec, last.action_spec, *names, fix)
        require_same(meta.observation_spec, last.observation_spec, *names, fix)
        if not mixed_tasks:
            require_same_task(meta, last, folder)
    return numbering.next_index(folder)


def require_same_task(meta: schema.EpisodeMeta, present: schema.EpisodeMeta, folder: Path) -> None:
    """Raise DatasetError if an episode has another task or robot than one in ``folder``."""
    for name in ("task", "robot"):
        new, old = getattr(meta, name), getattr(present, name)
        if new != old:
            raise DatasetError(
                f"holds episodes of {name} {old!r}, the new ones are of {new!r}",
                "use another folder, or allow it with --mixed-tasks",
                folder,
            )


class EpisodeWriter:
    """A writer that streams one episode to disk.

    Call :meth:`observe` for tick 0, then :meth:`act` and :meth:`observe` in turn, then
    :meth:`finish` or :meth:`discard`. Steps out of order raise DatasetError: an episode must not
    have a hole.

    Args:
        folder: folder of the dataset; see :func:`prepare_folder`.
        meta: attributes of the episode; :meth:`finish` fills in what only the end shows.
        index: number of the episode. A number that is taken raises DatasetError, here or at the
            end. None: the next free number, chosen again at the end if it was taken meanwhile.
        jpeg_quality: 1 to 100: also keep every frame as it was before crop and resize, as a JPEG
            of that quality. 0: do not.

    Raises:
        ConfigError: a text in ``meta`` cannot be stored. No file is made.
        OutputError: the disk refuses.
        DatasetError: ``index`` is taken.
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
        self._safe_steps = 0  # transitions in the last commit
        self._disk_failed = False
        # microseconds: the fingerprint of a dataset tells episodes of equal size apart by this
        meta.created = datetime.datetime.now(datetime.timezone.utc).isoformat()
        attrs = meta.to_attrs()  # may raise, so before there is a file
        self._quality = jpeg_quality
        self._partial, self._disk = numbering.open_partial(folder, index)
        self._file = h5py.File(self._disk, "w")
        try:
            self._create(attrs)
        except BaseException:
            self.discard()
            raise

    def _create(self, attrs: Dict[str, Any]) -> None:
        """Write the attributes and the empty image datasets, and commit."""
        self._group = self._file.create_group(schema.GROUP)
        self._group.attrs.update(attrs)
        cameras = self.meta.observation_spec.cameras
        self._cameras = {camera.name: self._camera_rows(camera) for camera in cameras}
        self._originals: Dict[str, h5py.Dataset] = {}
        if self._quality:
            self._originals = {name: self._original_rows(name) for name in self._cameras}
        self._commit()

    def observe(self, tick: Tick) -> None:
        """Record the observation of a tick, and the reward of the transition that led to it.

        Stamps are recorded as they come, also when the clock jumps: the steps give the order.

        Raises:
            CameraStoppedError: the tick has no frame of a camera. The recorded steps are whole, so
                :meth:`finish` may still be called.
            DatasetError: the tick is out of order, or an array does not fit its spec.
            OutputError: the disk refuses.
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
        """Record what was applied in answer to the last observed tick.

        Raises:
            DatasetError: it answers another tick, or an array does not fit its spec.
        """
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
        self._push("limits", np.uint32(limit_bits(applied.reasons)))
        self._push("source", np.uint8(signals.SOURCES.index(applied.source)))
        self._push("intervention", applied.intervention)
        self._push("late", applied.late)
        self._push("timestamps/action", applied.stamp_ns)
        self._push("timestamps/applied", applied.applied_ns)
        self._actions += 1

    def finish(self, success: int, label_source: str, abort_reason: str = "") -> Optional[Path]:
        """Complete the file, give it its final name and return its path.

        An episode without a single transition is discarded and None returned. A trailing action
        without the observation that follows it is dropped.

        Raises:
            OutputError: the disk refuses; see :meth:`discard`.
            DatasetError: the number was taken meanwhile.
        """
        transitions = min(self._actions, self._observations - 1)
        if transitions < 1:
            self.discard()
            return None
        self._append()
        self._group.attrs["pictures"] = json.dumps(self.meta.pictures)
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
        """Drop the episode and its partial file. Does nothing after :meth:`finish`.

        After the disk failed, a partial file with at least one step stays for a repair.
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
        """Return ``value`` as an array. Raises DatasetError unless it fits its spec."""
        found = np.asarray(value)
        if found.shape != shape or (dtype == np.uint8 and found.dtype != np.uint8):
            raise DatasetError(
                f"{name} is {found.dtype} {found.shape}, its spec says {np.dtype(dtype)} {shape}",
                "the episode is discarded; fix the robot or its spec",
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

    def _disk_error(self, error: OSError) -> OutputError:
        self._disk_failed = True
        fix = "free space; `ofrl data verify --repair` then keeps what was recorded"
        return numbering.disk_error(error, self._partial, fix)


def encode_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return an image, uint8 RGB (H, W, 3), as the bytes of a JPEG file, uint8 (N,)."""
    import cv2  # only needed where originals are kept

    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
