"""The conditions of a trial: two rates may be compared or pooled only where these are equal.

A checkpoint that wins 49 of 50 trials in the embedded simulator won 0 of 50 in the real roboverse
(measured): a rate that does not say where it was measured says nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, Dict, Iterable, List, Tuple

from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.policy.choice import CHOICE_WORDS, recorded_choice
from ofrl_robot.policy.origin import HARDWARE, backend_and_realism
from ofrl_robot.sim.options import SimOptions

_APART = ("sim_backend", "realism", "control_rate_hz")  # settings that have a field of their own


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Who acted on what, and under which circumstances; all that a rate is a rate of, but seeds.

    Attributes:
        task, robot, actor: as the episodes name them.
        policy: algorithm, step and the beginning of the SHA-256; empty without a policy.
        action_choice: how the policy's action was chosen, empty without a policy.
        backend: simulator, HARDWARE for a real arm.
        realism: imperfections of the simulator, in its words; empty for a real arm.
        control_rate_hz: ticks per second.
        action_latency: seconds from a tick to its action, 0 in lockstep.
        settings: all other settings of the environment that are not the simulator's defaults, as
            JSON text by name, sorted.
    """

    task: str
    robot: str
    actor: str
    policy: str
    action_choice: str
    backend: str
    realism: str
    control_rate_hz: float
    action_latency: float
    settings: Tuple[Tuple[str, str], ...]

    def words(self) -> str:
        """Return the conditions in words; other conditions have other words."""
        choice = CHOICE_WORDS.get(self.action_choice, self.action_choice)
        parts = [
            f"{self.task} on {self.robot}",
            self.backend,
            f"realism {self.realism}" if self.realism else "",
            f"{self.control_rate_hz:g} Hz",
            f"answers after {1000.0 * self.action_latency:g} ms" if self.action_latency else "",
            f"{self.policy} {choice}" if self.policy else self.actor,
            *self._setting_words(),
        ]
        return ", ".join(part for part in parts if part)

    def _setting_words(self) -> List[str]:
        """Return simulator settings one by one; those of a real arm as one short number."""
        if self.backend != HARDWARE:
            return [f"{name.replace('_', ' ')} {json.loads(v)}" for name, v in self.settings]
        if not self.settings:
            return []
        # a real arm has dozens of settings: enough to see that two rows differ
        digest = hashlib.sha256(json.dumps(self.settings).encode()).hexdigest()
        return [f"arm settings {digest[:6]}"]


def conditions_of(meta: EpisodeMeta) -> Conditions:
    """Return the conditions of an episode.

    A setting that an older version did not record counts as its default.
    """
    environment = dict(meta.environment)
    place = backend_and_realism(environment)
    defaults: Dict[str, Any] = {}
    if place["backend"] != HARDWARE:
        # the size of the picture belongs to the policy: its checkpoint fits no other
        defaults = {**SimOptions().to_dict(), "image_size": environment.get("image_size")}
    others = {
        name: json.dumps(value, sort_keys=True)
        for name, value in environment.items()
        if name not in _APART and (name not in defaults or defaults[name] != value)
    }
    policy = meta.policy
    return Conditions(
        task=meta.task,
        robot=meta.robot,
        actor=meta.actor,
        policy=_policy_words(policy) if policy else "",
        action_choice=recorded_choice(policy) if policy else "",
        **place,
        control_rate_hz=float(meta.control_rate_hz),
        action_latency=float(meta.action_latency),
        settings=tuple(sorted(others.items())),
    )


def seed_words(seeds: Iterable[int]) -> str:
    """Return seeds in words: ``seeds 0-49``, ``seeds 3, 5-7``; repeated ones are said to be.

    Real scenes have no seed (-1).
    """
    found = [seed for seed in seeds if seed >= 0]
    distinct = sorted(set(found))
    if not distinct:
        return "no seeds"
    ranges: List[List[int]] = []
    for seed in distinct:
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    repeated = len(found) - len(distinct)
    words = f"seed{'s' if len(distinct) > 1 else ''} {text}"
    return f"{words} ({repeated} of the trials repeat a seed)" if repeated else words


def _policy_words(policy: Dict[str, Any]) -> str:
    """Return algorithm, step and hash: the hash tells checkpoints of equal steps apart."""
    digest = str(policy.get("sha256", ""))
    words = f"{policy.get('algo', 'policy')} step {policy.get('step', '?')}"
    return f"{words} ({digest:.8})" if digest else words
