"""Find the scripted policies, which turn ground truth into actions."""

from __future__ import annotations

from typing import Dict, Optional, Type

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.scripted import button, drawer, pick
from ofrl_robot.sim.scripted.base import ScriptedPolicy
from ofrl_robot.sim.tasks import find

POLICIES: Dict[str, Type[ScriptedPolicy]] = {
    policy.name: policy for family in (pick, drawer, button) for policy in family.POLICIES
}


def make_scripted(task_id: str, noise: float = 0.1, policy: Optional[str] = None) -> ScriptedPolicy:
    """Return a scripted policy for ``task_id``.

    Args:
        task_id: a key of ``ofrl_robot.sim.TASK_IDS``.
        noise: standard deviation of the action noise (datasets use 0.1).
        policy: a key of :data:`POLICIES`; empty or None for the one that solves the task.

    Raises:
        ConfigError: unknown task or policy.
    """
    spec = find(task_id).spec
    name = policy or spec.scripted_policy
    if name not in POLICIES:
        raise ConfigError(f"scripted policy {name!r} is unknown", f"use {' or '.join(POLICIES)}")
    return POLICIES[name](noise)


__all__ = ["POLICIES", "ScriptedPolicy", "make_scripted"]
