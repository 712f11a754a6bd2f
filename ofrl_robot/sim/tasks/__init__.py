"""Find the simulated tasks. To add one, write a class and list it in its family's ``TASKS``."""

from __future__ import annotations

import difflib
from typing import Dict, Type

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.tasks import button, drawer, grasp, pick_place
from ofrl_robot.sim.tasks.base import Task, TaskSpec

_FAMILIES = (grasp, pick_place, button, drawer)

REGISTRY: Dict[str, Type[Task]] = {
    task.spec.id: task for family in _FAMILIES for task in family.TASKS
}
NAMESPACE = "ofrl_robot"


def find(task_id: str) -> Type[Task]:
    """Return the task class of ``task_id`` (the ``ofrl_robot/`` prefix may be there or not).

    Raises:
        ConfigError: unknown id; the message names the nearest ones.
    """
    name = str(task_id)
    prefix = f"{NAMESPACE}/"
    if name.startswith(prefix):
        name = name[len(prefix) :]
    if name not in REGISTRY:
        short = {key.lower(): key for key in REGISTRY}
        near = difflib.get_close_matches(name.lower(), list(short), n=3, cutoff=0.3)
        known = [short[key] for key in near] or list(REGISTRY)
        raise ConfigError(f"simulated task {task_id!r} is unknown", f"use {' or '.join(known)}")
    return REGISTRY[name]


__all__ = ["NAMESPACE", "REGISTRY", "Task", "TaskSpec", "find"]
