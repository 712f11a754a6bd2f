"""Complete an episode file: cut the rows to whole transitions, mark the end, label it.

The recorder does this at the end of an episode, a repair for what a dead recorder left, and an
edit for what it rewrote.
"""

from __future__ import annotations

import json
from typing import Any, List, Tuple

import h5py

from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.timing import measured_rate_hz


def complete(
    file: h5py.File, transitions: int, success: int, label_source: str, abort_reason: str
) -> None:
    """Turn streamed rows into an episode: cut to length, ended and labelled.

    Args:
        file: open for writing; its group has the attributes of ``EpisodeMeta``.
        transitions: number of transitions to keep, at least 1.
        success: 1, 0 or -1.
        label_source: who or what set the label.
        abort_reason: why the episode ended early, or empty.
    """
    group = file[schema.GROUP]
    for name, data in datasets(group):
        data.resize(transitions + extra_row(name), axis=0)
    if not group["dones"][transitions - 1]:
        # cut short (stopped by hand): the last transition is a timeout, not a terminal
        group["timeouts"][transitions - 1] = True
        group["dones"][transitions - 1] = True
    _link_next_obs(group, transitions)
    group.attrs["success"] = success
    group.attrs["label_source"] = label_source
    group.attrs["abort_reason"] = abort_reason
    group.attrs["measured_rate_hz"] = measured_rate_hz(group["timestamps/obs"][:])
    group.attrs["num_samples"] = transitions
    # robomimic's two required attributes of the data group
    file["data"].attrs["total"] = transitions
    file["data"].attrs["env_args"] = json.dumps(
        {"env_name": group.attrs["task"], "type": 0, "env_kwargs": {}}
    )


def recorded_transitions(group: h5py.Group) -> int:
    """Return the number of whole transitions in an unfinished episode; below 1 if none."""
    if "actions" not in group or "obs/state" not in group:
        return 0
    return min(len(data) - extra_row(name) for name, data in datasets(group))


def datasets(group: h5py.Group) -> List[Tuple[str, h5py.Dataset]]:
    """Return all datasets below a group with their names, such as ``obs/state``."""
    found: List[Tuple[str, h5py.Dataset]] = []

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((name, item))

    group.visititems(take)
    return found


def extra_row(name: str) -> int:
    """Return 1 for a dataset with a row per observation, 0 for one with a row per transition."""
    folder, _, leaf = name.partition("/")
    if folder == "timestamps":
        return int(leaf not in schema.ACTION_STAMPS)
    return int(folder in ("obs", schema.ORIGINALS))


def _link_next_obs(group: h5py.Group, transitions: int) -> None:
    """Add ``next_obs`` as virtual datasets over ``obs[1:]``: readable by robomimic, no copy."""
    for name, source in list(group["obs"].items()):
        layout = h5py.VirtualLayout((transitions,) + source.shape[1:], source.dtype)
        layout[:] = h5py.VirtualSource(".", source.name, source.shape)[1:]
        group.create_virtual_dataset(f"next_obs/{name}", layout)
