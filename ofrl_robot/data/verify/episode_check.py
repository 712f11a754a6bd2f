"""Check one episode file: is it whole, does it agree with itself, is it within the limits."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import h5py
import numpy as np

from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.hdf5_safety import open_hdf5
from ofrl_robot.data.episodes.reader import (
    Episode,
    contradictions,
    episode_group,
    load_episode,
    open_episode,
)
from ofrl_robot.data.episodes.timing import EpisodeTiming, episode_timing
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import DatasetError

DAMAGE, WARNING = "damage", "warning"  # unusable as it is; outside the limits

# Kinds of damage for which a repair moves the file out of the dataset.
UNREADABLE, INCONSISTENT = "unreadable", "inconsistent"
# Kinds of damage for which the file stays, because it is good in itself.
OTHER_FORMAT, DENIED, MIXED_SPECS = "other format", "no permission", "mixed specs"

_BLOCK_BYTES = 2**23  # of frames in memory at a time
_DTYPES = {
    "actions": np.float32,
    "actions_requested": np.float32,
    "limits": np.uint32,
    "source": np.uint8,
    "intervention": np.bool_,
    "late": np.bool_,
    "rewards": np.float64,
    "rewards_original": np.float64,
    "terminals": np.bool_,
    "timeouts": np.bool_,
    "dones": np.bool_,
    "obs/state": np.float64,
}
_RELABELLED = "rewards_original"  # only an episode whose rewards were set has it


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault of a file.

    Attributes:
        file: name of the file.
        level: ``DAMAGE`` or ``WARNING``.
        kind: category, such as "unreadable" or "late actions".
        text: what is wrong, with the offending value.
    """

    file: str
    level: str
    kind: str
    text: str


@dataclasses.dataclass
class EpisodeCheck:
    """Result of checking one file; the fields after ``findings`` are set if it could be read.

    Attributes:
        file: name of the file.
        bytes: its size.
        findings: faults, damage first.
        steps, task, seed, success: see ``EpisodeMeta``.
        digest: SHA-256 over actions, rewards, states and frames.
        action_spec, observation_spec: as dicts.
        timing: None for a damaged file.
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
        """Whether any finding is damage."""
        return any(finding.level == DAMAGE for finding in self.findings)


def check_episode(path: Path, limits: QualityLimits) -> EpisodeCheck:
    """Read all of ``path`` and return what is wrong with it. A damaged file raises nothing.

    libhdf5 can hang or crash on flipped bytes: call this in a process that may be lost.
    """
    check = EpisodeCheck(path.name, path.stat().st_size, [])

    def find(level: str, kind: str, text: str) -> None:
        check.findings.append(Finding(path.name, level, kind, text))

    if not os.access(path, os.R_OK):
        find(DAMAGE, DENIED, "not readable: fix its permissions")
        return check
    try:
        with open_episode(path) as group:
            episode = load_episode(group, path, cameras=())
            for kind, text in _structure(group, episode):
                find(DAMAGE if kind == INCONSISTENT else WARNING, kind, text)
            frames = _Frames(group, episode, limits)
            relabelled = bool(group.attrs.get("reward_source", ""))
    except DatasetError as error:
        kind = OTHER_FORMAT if _is_other_format(path) else UNREADABLE
        find(DAMAGE, kind, error.what)
        return check
    meta = episode.meta
    check.steps, check.task, check.seed = len(episode), meta.task, meta.seed
    check.success, check.digest = meta.success, frames.digest
    check.action_spec = meta.action_spec.to_dict()
    check.observation_spec = meta.observation_spec.to_dict()
    for text in contradictions(episode):
        find(DAMAGE, INCONSISTENT, text)
    if check.damaged:
        return check  # its labels and times mean nothing
    for kind, text in _label_faults(episode, relabelled):
        find(WARNING, kind, text)
    check.timing = episode_timing(
        episode.timestamps,
        meta.control_rate_hz,
        [camera.name for camera in meta.observation_spec.cameras],
        episode.intervention,
        episode.held,
        # A rendered image has no noise: while the arm waits it is the same again and again (24
        # ticks in a row measured). There only the stamps count; on hardware pixels count too.
        frames.identical if meta.seed < 0 else None,
    )
    if not np.array_equal(episode.timestamps["action"], episode.timestamps["obs"][:-1]):
        find(WARNING, "clock", "timestamps/action are not the stamps of the ticks")
    for kind, text in _timing_faults(check.timing, limits):
        find(WARNING, kind, text)
    for camera, blank in frames.blank.items():
        if blank > limits.max_blank_fraction:
            text = (
                f"camera {camera}: {blank:.1%} of the frames are of one single colour "
                f"(limit {limits.max_blank_fraction:.1%})"
            )
            find(WARNING, "blank frames", text)
    return check


def _is_other_format(path: Path) -> bool:
    """Return whether the file is an episode of an older or a newer format version."""
    try:
        with open_hdf5(path) as file:
            version = episode_group(file, path).attrs["format_version"]
            return isinstance(version, np.integer) and version != schema.FORMAT_VERSION
    except DatasetError:
        return False


def _structure(group: h5py.Group, episode: Episode) -> Iterator[Tuple[str, str]]:
    """Yield (kind, text) for every dataset that is missing, or has a wrong type or shape."""
    cameras = [camera.name for camera in episode.meta.observation_spec.cameras]
    expected = dict(_DTYPES)
    for name in ("obs", *cameras, "state", *schema.ACTION_STAMPS):
        expected[f"timestamps/{name}"] = np.int64
    for name in cameras:
        expected[f"obs/{name}"] = np.uint8
    for name, dtype in expected.items():
        if name in group:
            data = group[name]
            if data.dtype != dtype:
                yield INCONSISTENT, f"{name} is {data.dtype}, {np.dtype(dtype)} expected"
        elif name != _RELABELLED:
            yield "incomplete", f"has no {name}"
    steps = len(episode)
    lengths = {f"obs_jpeg/{name}": steps + 1 for name in group.get("obs_jpeg", ())}
    lengths[_RELABELLED] = steps
    for name, length in lengths.items():
        if name in group and group[name].shape != (length,):
            yield INCONSISTENT, f"{name} is {group[name].shape}, ({length},) expected"
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
    """Facts about all frames of an episode, found in one pass.

    Attributes:
        digest: SHA-256 of the whole content (hex).
        identical: bool (T,) per camera, entry k: tick k+1 shows the pixels of tick k.
        blank: fraction of frames of one single colour, per camera.
    """

    def __init__(self, group: h5py.Group, episode: Episode, limits: QualityLimits) -> None:
        content = hashlib.sha256()
        for array in (episode.actions, episode.rewards, episode.state):
            content.update(np.ascontiguousarray(array).data)
        self.identical: Dict[str, np.ndarray] = {}
        self.blank: Dict[str, float] = {}
        for camera in episode.meta.observation_spec.cameras:
            digests, contrasts = _scan(group[f"obs/{camera.name}"])
            self.identical[camera.name] = np.array([a == b for a, b in zip(digests, digests[1:])])
            self.blank[camera.name] = float(np.mean(contrasts <= limits.blank_contrast))
            content.update(b"".join(digests))
        self.digest = content.hexdigest()


def _scan(data: h5py.Dataset) -> Tuple[List[bytes], np.ndarray]:
    """Return the digest of each frame of a camera, and its contrast (T+1,).

    The contrast is the largest minus the smallest value of the frame.
    """
    digests: List[bytes] = []
    contrasts: List[np.ndarray] = []
    rows = max(1, _BLOCK_BYTES // int(np.prod(data.shape[1:])))
    for start in range(0, len(data), rows):
        block = data[start : start + rows].reshape(-1, int(np.prod(data.shape[1:])))
        digests += [hashlib.sha256(frame).digest() for frame in block]
        contrasts.append(block.max(1).astype(int) - block.min(1))
    return digests, np.concatenate(contrasts)


def _label_faults(episode: Episode, relabelled: bool) -> Iterator[Tuple[str, str]]:
    """Yield (kind, text) where the label has no source or does not fit the rewards."""
    meta, rewarded = episode.meta, bool((episode.rewards > 0).any())
    if meta.success != schema.UNKNOWN and not meta.label_source:
        yield "label", f"labelled {schema.LABEL_NAMES[meta.success]}, but has no label source"
    if relabelled:
        return  # rewards that were set on purpose need not agree with the label
    if meta.success == schema.SUCCESS and not rewarded:
        yield "label", "labelled success, but no reward is positive: training sees no success"
    if meta.success == schema.FAILURE and episode.rewards[-1] > 0:
        yield "label", f"labelled failure, but its last reward is {episode.rewards[-1]:g}"


def _timing_faults(timing: EpisodeTiming, limits: QualityLimits) -> Iterator[Tuple[str, str]]:
    """Yield (kind, text) for every number of the timing that is outside the limits."""
    rate = f"{timing.rate_hz:.3g} Hz achieved, {timing.nominal_hz:.3g} Hz nominal: "
    # kind, subject of the text, value, limit, text with places for value and limit
    rows = [
        ("rate", rate, abs(timing.rate_hz / timing.nominal_hz - 1), limits.rate_tolerance,
         "{:.0%} off (limit {:.0%})"),
        ("clock", "", timing.backwards, 0,
         "{} tick(s) not later than the one before: the clock jumped back"),
        ("gaps", "", timing.gaps / timing.steps, limits.max_gap_fraction,
         "{:.1%} of the ticks came over 2 periods after the one before (limit {:.1%})"),
        ("late actions", "", timing.late / timing.steps, limits.max_late_fraction,
         "{:.1%} of the actions were applied late (limit {:.1%})"),
        ("held", "", timing.held / timing.steps, limits.max_held_fraction,
         "{:.1%} of the ticks were not answered in time (limit {:.1%})"),
    ]  # fmt: skip
    for name, camera in timing.cameras.items():
        subject = f"camera {name}: "
        rows += [
            ("skew", subject, camera.skew_ms.max, limits.max_skew_ms,
             "frame and state up to {:.0f} ms apart (limit {:.0f})"),
            ("frame age", subject, camera.age_ms.max, limits.max_frame_age_ms,
             "a frame of up to {:.0f} ms of age was used (limit {:.0f})"),
            ("clock", subject, camera.lead_ms, limits.max_frame_lead_ms,
             "a frame {:.0f} ms later than its tick: two clocks (limit {:.0f})"),
            ("clock", subject, camera.backwards, 0, "{} frame(s) older than the one before"),
            ("frozen camera", subject, camera.longest_run, limits.max_repeated_run,
             "the same frame for {} more ticks (limit {:g})"),
        ]  # fmt: skip
    for kind, subject, value, limit, text in rows:
        if value > limit:
            yield kind, subject + text.format(value, limit)
