"""Checks one episode file: is it whole, does it agree with itself, is it within the limits."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.data.episodes.timing import EpisodeTiming, episode_timing
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import DatasetError

DAMAGE, WARNING = "damage", "warning"  # unusable as it is; outside the limits

# Kinds of damage for which the file is moved out of the dataset by a repair ...
UNREADABLE, INCONSISTENT = "unreadable", "inconsistent"
# ... and for which that would be wrong: the file itself is good.
NEWER, DENIED, MIXED_SPECS = "newer format", "no permission", "mixed specs"

_BLOCK_BYTES = 2**23  # of frames in memory at a time
_DTYPES = {
    "actions": np.float32,
    "actions_requested": np.float32,
    "limited": np.bool_,
    "intervention": np.bool_,
    "held": np.bool_,
    "rewards": np.float64,
    "rewards_original": np.float64,
    "terminals": np.bool_,
    "timeouts": np.bool_,
    "dones": np.bool_,
    "obs/state": np.float64,
}
# what the first files lack, and what only relabelled ones have
_OPTIONAL = ("held", "timestamps/state", "timestamps/applied", "rewards_original")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        file: name of the file. level: ``DAMAGE`` or ``WARNING``. kind: what sort of thing.
        text: what is wrong, with the offending value.
    """

    file: str
    level: str
    kind: str
    text: str


@dataclasses.dataclass
class EpisodeCheck:
    """What was found in one file; the fields after ``findings`` are there if it could be read.

    Attributes:
        file: its name. bytes: its size.
        digest: SHA-256 over actions, rewards, states and frames.
        action_spec, observation_spec: as dicts.
        timing: None where the file has no stamps.
    """

    file: str
    bytes: int
    findings: List[Finding]
    steps: int = 0
    task: str = ""
    seed: int = -1
    success: int = schema.UNKNOWN
    digest: str = ""
    action_spec: Optional[Dict[str, Any]] = None
    observation_spec: Optional[Dict[str, Any]] = None
    timing: Optional[EpisodeTiming] = None

    @property
    def damaged(self) -> bool:
        return any(finding.level == DAMAGE for finding in self.findings)


def check_episode(path: Path, limits: QualityLimits) -> EpisodeCheck:
    """Read all of ``path`` and say what is wrong with it. A damaged file raises nothing.

    libhdf5 can hang or crash on flipped bytes: call this in a process that may be lost.
    """
    check = EpisodeCheck(path.name, path.stat().st_size, [])

    def find(level: str, kind: str, text: str) -> None:
        check.findings.append(Finding(path.name, level, kind, text))

    if not os.access(str(path), os.R_OK):
        find(DAMAGE, DENIED, "not readable: mend its permissions")
        return check
    try:
        episode = read_episode(path, cameras=())
        with h5py.File(str(path), "r") as file:
            group = file[schema.GROUP]
            for kind, text in _structure(group, episode):
                find(DAMAGE if kind == INCONSISTENT else WARNING, kind, text)
            frames = _Frames(group, episode, limits)
            relabelled = bool(group.attrs.get("reward_source", ""))
    except DatasetError as error:
        find(DAMAGE, NEWER if _is_newer(path) else UNREADABLE, error.what)
        return check
    except Exception as error:  # h5py raises nearly anything on a damaged file
        text = f"{type(error).__name__}: {ascii(str(error)):.100}"
        find(DAMAGE, UNREADABLE, f"unreadable data ({text})")
        return check
    meta = episode.meta
    check.steps, check.task, check.seed = len(episode), meta.task, meta.seed
    check.success, check.digest = meta.success, frames.digest
    check.action_spec = meta.action_spec.to_dict()
    check.observation_spec = meta.observation_spec.to_dict()
    for text in _contradictions(episode):
        find(DAMAGE, INCONSISTENT, text)
    if check.damaged:
        return check  # its labels and times mean nothing
    for kind, text in _label(episode, relabelled):
        find(WARNING, kind, text)
    cameras = [c.name for c in meta.observation_spec.cameras if c.name in episode.timestamps]
    if "obs" in episode.timestamps and _is_rate(meta.control_rate_hz):
        check.timing = episode_timing(
            episode.timestamps, meta.control_rate_hz, cameras, episode.intervention, episode.held,
            # A rendered picture has no noise: of an arm that waits it is the same again and again
            # (24 ticks in a row measured). There the stamps tell, on hardware pixels do too.
            frames.identical if meta.seed < 0 else None,
        )  # fmt: skip
        answered = episode.timestamps.get("action")
        if answered is not None and not np.array_equal(answered, episode.timestamps["obs"][:-1]):
            find(WARNING, "clock", "timestamps/action are not the stamps of the ticks")
        for kind, text in _outside(check.timing, limits):
            find(WARNING, kind, text)
    for camera, blank in frames.blank.items():
        if blank > limits.max_blank_fraction:
            text = "camera {}: {:.1%} of the frames are of one single colour (limit {:.1%})"
            find(WARNING, "blank frames", text.format(camera, blank, limits.max_blank_fraction))
    return check


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < np.inf


def _is_newer(path: Path) -> bool:
    try:
        with h5py.File(str(path), "r") as file:
            return bool(file[schema.GROUP].attrs["format_version"] > schema.FORMAT_VERSION)
    except Exception:  # as above: then it is not even that
        return False


def _structure(group: h5py.Group, episode: Episode) -> Iterator[Tuple[str, str]]:
    """(kind, text) of what is missing, of another type, or not in the file itself."""
    cameras = [camera.name for camera in episode.meta.observation_spec.cameras]
    stamps = ["obs", *cameras, "state", *schema.ACTION_STAMPS]
    expected = dict(_DTYPES, **{f"timestamps/{name}": np.int64 for name in stamps})
    expected.update({f"obs/{name}": np.uint8 for name in cameras})
    for name, dtype in expected.items():
        if name not in group:
            if name not in _OPTIONAL:
                yield "incomplete", f"has no {name}"
            continue
        data = group[name]
        if data.dtype != dtype:
            yield INCONSISTENT, f"{name} is {data.dtype}, {np.dtype(dtype)} expected"
        if data.is_virtual or data.external or data.file.filename != group.file.filename:
            yield INCONSISTENT, f"{name} lies in another file"
    steps = len(episode)
    rows = {f"obs_jpeg/{name}": steps + 1 for name in group.get("obs_jpeg", ())}
    for name, length in dict(rows, rewards_original=steps).items():
        if name in group and group[name].shape != (length,):
            yield INCONSISTENT, f"{name} is {group[name].shape}, ({length},) expected"
    for name in cameras:
        data = group[f"obs/{name}"]
        if data.chunks == (1,) + data.shape[1:] and data.id.get_num_chunks() < len(data):
            yield INCONSISTENT, f"frames of {name} are missing"  # they read as black
    if "dones" in group:
        dones = episode.terminals | episode.timeouts
        if not np.array_equal(group["dones"][:], dones):
            yield INCONSISTENT, "dones is not terminals or timeouts"
    for name in ["state", *cameras]:
        later = group.get(f"next_obs/{name}")
        shape = (steps,) + group[f"obs/{name}"].shape[1:]
        if later is None:
            yield "incomplete", f"has no next_obs/{name}, which robomimic reads"
        elif later.shape != shape:
            yield INCONSISTENT, f"next_obs/{name} is {later.shape}, {shape} expected"


class _Frames:
    """One pass over all frames.

    Attributes:
        digest: of the whole content (hex).
        identical: bool (T,) per camera, entry k: the pixels of tick k+1 are those of tick k.
        blank: fraction of frames of one single colour, per camera.
    """

    def __init__(self, group: h5py.Group, episode: Episode, limits: QualityLimits) -> None:
        content = hashlib.sha256()
        for array in (episode.actions, episode.rewards, episode.state):
            content.update(np.ascontiguousarray(array))
        self.identical: Dict[str, np.ndarray] = {}
        self.blank: Dict[str, float] = {}
        for camera in episode.meta.observation_spec.cameras:
            digests, contrasts = _scan(group[f"obs/{camera.name}"])
            self.identical[camera.name] = np.array([a == b for a, b in zip(digests, digests[1:])])
            self.blank[camera.name] = float(np.mean(contrasts <= limits.blank_contrast))
            content.update(b"".join(digests))
        self.digest = content.hexdigest()


def _scan(data: h5py.Dataset) -> Tuple[List[bytes], np.ndarray]:
    """(digest of each frame, its largest minus its smallest value (T+1,)) of one camera."""
    digests: List[bytes] = []
    contrasts: List[np.ndarray] = []
    rows = max(1, _BLOCK_BYTES // int(np.prod(data.shape[1:])))
    for start in range(0, len(data), rows):
        block = data[start : start + rows].reshape(-1, int(np.prod(data.shape[1:])))
        digests += [hashlib.sha256(frame).digest() for frame in block]
        contrasts.append(block.max(1).astype(int) - block.min(1))
    return digests, np.concatenate(contrasts)


def _contradictions(episode: Episode) -> Iterator[str]:
    """What the arrays say against each other or against the format."""
    if not _is_rate(episode.meta.control_rate_hz):
        yield f"control_rate_hz is {episode.meta.control_rate_hz!r}"
    largest = float(np.abs(episode.actions).max())
    if largest > 1 + 1e-6:
        yield f"an action of {largest:.3g}, beyond the normalised [-1, 1]"
    if not np.isfinite(episode.state).all():
        step = int(np.argmin(np.isfinite(episode.state).all(1)))
        yield f"obs/state is not finite (step {step})"
    dones = episode.terminals | episode.timeouts
    if (episode.terminals & episode.timeouts).any():
        yield "a step is both terminal and timeout"
    if dones[:-1].any():
        yield f"goes on after its end (step {int(np.argmax(dones))} of {len(episode)})"
    if not dones[-1]:
        yield "its last step is neither terminal nor timeout"


def _label(episode: Episode, relabelled: bool) -> Iterator[Tuple[str, str]]:
    meta, rewarded = episode.meta, bool((episode.rewards > 0).any())
    if meta.success != schema.UNKNOWN and not meta.label_source:
        yield "label", f"labelled {schema.LABEL_NAMES[meta.success]} by nobody"
    if relabelled:
        return  # rewards that were set on purpose need not agree with the label
    if meta.success == schema.SUCCESS and not rewarded:
        yield "label", "labelled success, but no reward is positive: training sees no success"
    if meta.success == schema.FAILURE and episode.rewards[-1] > 0:
        yield "label", f"labelled failure, but its last reward is {episode.rewards[-1]:g}"


def _outside(timing: EpisodeTiming, limits: QualityLimits) -> Iterator[Tuple[str, str]]:
    """(kind, text) of everything in the timing that lies outside the limits."""
    rate = f"{timing.rate_hz:.3g} Hz achieved, {timing.nominal_hz:.3g} Hz nominal: "
    # what is found, the subject of the text, value, limit, text for these two
    rows = [
        ("rate", rate, abs(timing.rate_hz / timing.nominal_hz - 1), limits.rate_tolerance,
         "{:.0%} off (limit {:.0%})"),
        ("clock", "", timing.backwards, 0,
         "{} tick(s) not later than the one before: the clock jumped back"),
        ("gaps", "", timing.gaps / timing.steps, limits.max_gap_fraction,
         "{:.1%} of the ticks came over 2 periods after the one before (limit {:.1%})"),
    ]  # fmt: skip
    if timing.late is not None:
        rows.append(("late actions", "", timing.late / timing.steps, limits.max_late_fraction,
                     "{:.1%} of the actions were applied late (limit {:.1%})"))  # fmt: skip
    if timing.held is not None:
        rows.append(("held", "", timing.held / timing.steps, limits.max_held_fraction,
                     "{:.1%} of the ticks were not answered in time (limit {:.1%})"))  # fmt: skip
    for name, camera in timing.cameras.items():
        subject = f"camera {name}: "
        if camera.skew_ms is not None:
            rows.append(("skew", subject, camera.skew_ms.max, limits.max_skew_ms,
                         "frame and state up to {:.0f} ms apart (limit {:.0f})"))  # fmt: skip
        rows += [
            ("frame age", subject, camera.age_ms.max, limits.max_frame_age_ms,
             "a frame of up to {:.0f} ms was used (limit {:.0f})"),
            ("clock", subject, camera.lead_ms, limits.max_frame_lead_ms,
             "a frame {:.0f} ms later than its tick: two clocks (limit {:.0f})"),
            ("clock", subject, camera.backwards, 0, "{} frame(s) older than the one before"),
            ("frozen camera", subject, camera.longest_run, limits.max_repeated_run,
             "one frame again for {} ticks (limit {:g})"),
        ]  # fmt: skip
    for kind, subject, value, limit, text in rows:
        if value > limit:
            yield kind, subject + text.format(value, limit)
