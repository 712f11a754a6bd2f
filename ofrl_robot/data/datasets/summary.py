"""Summarise a dataset, as numbers and as text."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Dict, Iterable, List, Tuple

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.data.episodes.schema import FAILURE, LABEL_NAMES, SUCCESS, UNKNOWN
from ofrl_robot.errors import printable

CONVERTED = "converted"  # the actor of episodes that were converted from another format
_STATISTICS = ("min", "mean", "std", "max")
_FEW_VALUES = 8  # rewards with at most so many distinct values are listed; sparse ones have two
# Tick stamps count from 1970 if a real clock made them. Simulated time starts near 0.
_FIRST_REAL_NS = 10**9 * int(datetime.datetime(2000, 1, 1).timestamp())


def summary(folder: Path) -> Dict[str, Any]:
    """Return the numbers of a dataset. Reads every episode except its images.

    Returns:
        ``episodes``, ``transitions``, ``lengths`` {min, median, max} (steps), ``labels`` {name:
        count}, ``label_sources``, ``aborted``, ``first_success_step`` (mean over the episodes in
        which a reward is positive, 1 = the first step; None when there is none),
        ``limited`` and ``interventions`` (fractions of steps), ``reward_sum``,
        ``reward_range`` {min, max}, ``reward_distinct`` (number of distinct values),
        ``reward_values`` {value: count} (empty for dense rewards, more than 8 distinct values),
        ``actions`` {entry: {min, mean, std, max}} (normalised), ``nominal_rate_hz`` and
        ``measured_rate_hz`` {min, max}, ``cameras`` {name: shape}, ``robots``, ``tasks``,
        ``actors``, ``operators``, ``policies``, ``environments`` (as text, empty if not
        recorded), ``recorded`` and ``converted`` (lists of ISO dates), ``bytes``,
        ``fingerprint``.

    Raises:
        DatasetError: an episode is damaged; names the file.
    """
    dataset = open_dataset(folder)
    episodes = [read_episode(path, cameras=()) for path in dataset.paths]
    actions = np.concatenate([e.actions for e in episodes])
    firsts = [int(np.argmax(e.rewards > 0)) + 1 for e in episodes if (e.rewards > 0).any()]
    labels = [m.success for m in dataset.metas]
    recorded, converted = _dates(episodes)
    return {
        "episodes": len(episodes),
        "transitions": len(actions),
        "lengths": {
            "min": min(dataset.lengths),
            "median": float(np.median(dataset.lengths)),
            "max": max(dataset.lengths),
        },
        "labels": {LABEL_NAMES[k]: labels.count(k) for k in (SUCCESS, FAILURE, UNKNOWN)},
        "label_sources": _distinct(m.label_source for m in dataset.metas),
        "aborted": sum(bool(m.abort_reason) for m in dataset.metas),
        "first_success_step": float(np.mean(firsts)) if firsts else None,
        "limited": float(np.concatenate([e.limited for e in episodes]).mean()),
        "interventions": float(np.concatenate([e.intervention for e in episodes]).mean()),
        **_reward_statistics(np.concatenate([e.rewards for e in episodes])),
        "actions": _action_statistics(dataset, actions.astype(np.float64)),
        "nominal_rate_hz": _range(m.control_rate_hz for m in dataset.metas),
        "measured_rate_hz": _range(m.measured_rate_hz for m in dataset.metas),
        "cameras": {c.name: c.shape for c in dataset.observation_spec.cameras},
        "robots": _distinct(m.robot for m in dataset.metas),
        "tasks": _distinct(m.task for m in dataset.metas),
        "actors": _distinct(m.actor for m in dataset.metas),
        "operators": _distinct(m.operator for m in dataset.metas),
        "policies": _distinct(_policy_name(m.policy) for m in dataset.metas),
        "environments": sorted({_settings(m.environment) for m in dataset.metas}),
        "recorded": recorded,
        "converted": converted,
        "bytes": sum(path.stat().st_size for path in dataset.paths),
        "fingerprint": dataset.fingerprint(),
    }


def describe(folder: Path) -> List[str]:
    """Return the summary as aligned lines for people, control characters escaped."""
    data = summary(folder)
    rows = _rows(folder, data)
    lines = [f"{name:<14}{text}" for name, text in rows]
    titles = "".join(f"{s:>9}" for s in _STATISTICS)
    lines += ["", f"{'actions':<14}{titles}"]
    for name, row in data["actions"].items():
        numbers = "".join(f"{row[s]:9.3f}" for s in _STATISTICS)
        lines.append(f"  {name:<12}{numbers}")
    return [printable(line) for line in lines]


def _rows(folder: Path, data: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return (name, text) of every line above the actions."""
    lengths, total = data["lengths"], data["episodes"]
    first = data["first_success_step"]
    labels = ", ".join(
        f"{count} {name} ({100.0 * count / total:.0f} %)" for name, count in data["labels"].items()
    )
    cameras = ", ".join(
        f"{name} {shape[0]}x{shape[1]} (height x width)" for name, shape in data["cameras"].items()
    )
    nominal, measured = _span(data["nominal_rate_hz"]), _span(data["measured_rate_hz"])
    return [
        ("dataset", f"{folder}"),
        ("robot", _joined(data["robots"])),
        ("task", _joined(data["tasks"])),
        ("actor", _joined(data["actors"])),
        ("operator", _joined(data["operators"])),
        ("policy", _joined(data["policies"])),
        ("environment", _uniform(data["environments"])),
        ("recorded", _when(data)),
        ("episodes", f"{total}, {data['transitions']} transitions"),
        (
            "length",
            f"{lengths['min']} min, {lengths['median']:g} median, {lengths['max']} max (steps)",
        ),
        ("labels", labels),
        ("labelled by", _joined(data["label_sources"])),
        ("aborted", f"{data['aborted']} of {total} episodes"),
        ("first reward", "never" if first is None else f"step {first:.1f} on average, where any"),
        ("rewards", f"sum {data['reward_sum']:g}; {_reward_text(data)}"),
        ("limited", f"{100.0 * data['limited']:.1f} % of steps"),
        ("interventions", f"{100.0 * data['interventions']:.1f} % of steps"),
        ("rate", f"{nominal} Hz nominal, {measured} Hz measured"),
        ("cameras", cameras),
        ("size", f"{data['bytes'] / 1e6:.1f} MB"),
        ("fingerprint", data["fingerprint"][:12]),
    ]


def _dates(episodes: List[Episode]) -> Tuple[List[str], List[str]]:
    """Return the first and last date of recording, and of conversion, each ISO, at most two.

    If the file does not say when the episode was recorded, the tick stamps do if a real clock
    made them. An episode of another format may only have a date of conversion.
    """
    recorded, converted = [], []
    for episode in episodes:
        meta, start = episode.meta, int(episode.timestamps["obs"][0])
        if meta.recorded:
            recorded.append(meta.recorded[:10])
        elif start > _FIRST_REAL_NS:
            day = datetime.datetime.fromtimestamp(start * 1e-9, datetime.timezone.utc)
            recorded.append(day.date().isoformat())
        elif meta.actor == CONVERTED:
            converted.append(meta.created[:10])
        else:
            recorded.append(meta.created[:10])
    return _ends(recorded), _ends(converted)


def _ends(dates: List[str]) -> List[str]:
    return sorted({min(dates), max(dates)}) if dates else []


def _when(data: Dict[str, Any]) -> str:
    parts = []
    if data["recorded"]:
        parts.append(" to ".join(data["recorded"]))
    if data["converted"]:
        parts.append(f"converted {' to '.join(data['converted'])}")
    return "; ".join(parts)


def _reward_statistics(rewards: np.ndarray) -> Dict[str, Any]:
    values, counts = np.unique(rewards, return_counts=True)
    listed = zip(values, counts) if len(values) <= _FEW_VALUES else ()
    return {
        "reward_sum": float(rewards.sum()),
        "reward_range": {"min": float(values[0]), "max": float(values[-1])},
        "reward_distinct": len(values),
        "reward_values": {float(v): int(n) for v, n in listed},
    }


def _reward_text(data: Dict[str, Any]) -> str:
    """Return each value and its count for sparse rewards, the range for dense ones."""
    if data["reward_values"]:
        return ", ".join(f"{v:g} x {n}" for v, n in data["reward_values"].items())
    low, high = data["reward_range"]["min"], data["reward_range"]["max"]
    return f"{low:g} to {high:g}, {data['reward_distinct']} distinct values"


def _action_statistics(dataset: Dataset, actions: np.ndarray) -> Dict[str, Dict[str, float]]:
    return {
        name: {s: float(getattr(actions[:, i], s)()) for s in _STATISTICS}
        for i, name in enumerate(dataset.action_spec.names)
    }


def _policy_name(policy: Dict[str, Any]) -> str:
    if not policy:
        return ""
    digest = str(policy.get("sha256", "?"))
    return f"{policy.get('checkpoint', '?')} (step {policy.get('step', '?')}, sha256 {digest:.12})"


def _settings(environment: Dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(environment.items()))


def _distinct(values: Iterable[str]) -> List[str]:
    return sorted(set(values) - {""})


def _joined(values: List[str]) -> str:
    return "; ".join(values) or "-"


def _uniform(values: List[str]) -> str:
    return values[0] or "-" if len(values) == 1 else f"mixed ({len(values)} settings)"


def _range(values: Iterable[float]) -> Dict[str, float]:
    found = list(values)
    return {"min": min(found), "max": max(found)}


def _span(values: Dict[str, float]) -> str:
    low, high = (f"{values[k]:.4g}" for k in ("min", "max"))
    return low if low == high else f"{low}-{high}"
