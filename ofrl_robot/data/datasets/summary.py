"""What a dataset holds, as numbers and as text: ``ofrl data info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, List

import numpy as np

from ofrl_robot.data.episodes.reader import Dataset, open_dataset, read_episode
from ofrl_robot.data.episodes.schema import FAILURE, LABEL_NAMES, SUCCESS, UNKNOWN

_STATISTICS = ("min", "mean", "std", "max")
_SHOWN_VALUES = 8  # reward values listed; a sparse reward has two


def summary(folder: Path) -> Dict[str, Any]:
    """Numbers of a dataset; every episode is read, images excepted.

    Returns:
        ``episodes``, ``transitions``, ``lengths`` {min, median, max} (steps), ``labels`` {name:
        count}, ``label_sources``, ``aborted``, ``first_success_step`` (mean over the episodes in
        which a reward is positive, 1 = the first step; None when there is none),
        ``limited`` and ``interventions`` (fractions of steps), ``reward_sum``,
        ``reward_values`` {value: count}, ``actions`` {entry: {min, mean, std, max}} (normalised),
        ``nominal_rate_hz`` and ``measured_rate_hz`` {min, max}, ``cameras`` {name: shape},
        ``robots``, ``tasks``, ``actors``, ``operators``, ``policies``, ``environments`` (as
        text, empty where not recorded), ``bytes``, ``fingerprint``.

    Raises DatasetError naming the file when one is damaged.
    """
    dataset = open_dataset(folder)
    episodes = [read_episode(path, cameras=()) for path in dataset.paths]
    actions = np.concatenate([e.actions for e in episodes])
    rewards = np.concatenate([e.rewards for e in episodes])
    firsts = [int(np.argmax(e.rewards > 0)) + 1 for e in episodes if (e.rewards > 0).any()]
    values, counts = np.unique(rewards, return_counts=True)
    labels = [m.success for m in dataset.metas]
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
        "reward_sum": float(rewards.sum()),
        "reward_values": {float(v): int(n) for v, n in zip(values, counts)},
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
        "bytes": sum(path.stat().st_size for path in dataset.paths),
        "fingerprint": dataset.fingerprint(),
    }


def describe(folder: Path) -> List[str]:
    """The summary as aligned lines for people."""
    data = summary(folder)
    lengths, total = data["lengths"], data["episodes"]
    first = data["first_success_step"]
    labels = ", ".join(
        f"{count} {name} ({100.0 * count / total:.0f} %)"
        for name, count in data["labels"].items()
    )
    rows = [
        ("dataset", str(folder)),
        ("robot", _joined(data["robots"])),
        ("task", _joined(data["tasks"])),
        ("actor", _joined(data["actors"])),
        ("operator", _joined(data["operators"])),
        ("policy", _joined(data["policies"])),
        ("environment", _uniform(data["environments"])),
        ("episodes", f"{total}, {data['transitions']} transitions"),
        ("length", "{} min, {:g} median, {} max (steps)".format(
            lengths["min"], lengths["median"], lengths["max"])),
        ("labels", labels),
        ("labelled by", _joined(data["label_sources"])),
        ("aborted", f"{data['aborted']} of {total} episodes"),
        ("first reward", "never" if first is None else f"step {first:.1f} on average, where any"),
        ("rewards", f"sum {data['reward_sum']:g}; {_value_counts(data)}"),
        ("limited", f"{100.0 * data['limited']:.1f} % of steps"),
        ("interventions", f"{100.0 * data['interventions']:.1f} % of steps"),
        ("rate", "{} Hz nominal, {} Hz measured".format(
            _span(data["nominal_rate_hz"]), _span(data["measured_rate_hz"]))),
        ("cameras", ", ".join(
            "{} {}x{} (height x width)".format(name, *shape[:2])
            for name, shape in data["cameras"].items())),
        ("size", f"{data['bytes'] / 1000000.0:.1f} MB"),
        ("fingerprint", data["fingerprint"][:12]),
    ]  # fmt: skip
    lines = [f"{name:<14}{text}" for name, text in rows]
    lines += ["", f"{'actions':<14}{''.join((f'{s:>9}' for s in _STATISTICS))}"]
    lines += [
        f"  {name:<12}{''.join((f'{row[s]:9.3f}' for s in _STATISTICS))}"
        for name, row in data["actions"].items()
    ]
    return lines


def _action_statistics(dataset: Dataset, actions: np.ndarray) -> Dict[str, Dict[str, float]]:
    return {
        name: {s: float(getattr(actions[:, i], s)()) for s in _STATISTICS}
        for i, name in enumerate(dataset.action_spec.names)
    }


def _policy_name(policy: Dict[str, Any]) -> str:
    if not policy:
        return ""
    return "{} (step {}, sha256 {:.12})".format(
        policy.get("checkpoint", "?"), policy.get("step", "?"), str(policy.get("sha256", "?"))
    )


def _settings(environment: Dict[str, Any]) -> str:
    return ", ".join("{}={}".format(*item) for item in sorted(environment.items()))


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


def _value_counts(data: Dict[str, Any]) -> str:
    values = list(data["reward_values"].items())
    text = ", ".join(f"{v:g} x {n}" for v, n in values[:_SHOWN_VALUES])
    return text + (", ..." if len(values) > _SHOWN_VALUES else "")
