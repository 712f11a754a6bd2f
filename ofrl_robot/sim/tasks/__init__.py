"""The simulated tasks. A new one is one module here and one line in the registry."""

from __future__ import annotations

import difflib
from typing import Dict, Tuple, Type

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.tasks.base import Task, TaskSpec
from ofrl_robot.sim.tasks.grasp import SingleObjGrasp
from ofrl_robot.sim.tasks.pick_tray import PickTray

_CLASSES: Tuple[Type[Task], ...] = (
    SingleObjGrasp,
    PickTray,
)

REGISTRY: Dict[str, Type[Task]] = {task.spec.id: task for task in _CLASSES}
NAMESPACE = "ofrl_robot"


def find(task_id: str) -> Type[Task]:
    """Task class of ``task_id`` (the ``ofrl_robot/`` prefix may be there or not).

    Raises:
        ConfigError: unknown id; the message names the nearest ones.
    """
    name = str(task_id)
    prefix = NAMESPACE + "/"
    if name.startswith(prefix):
        name = name[len(prefix) :]
    if name not in REGISTRY:
        short = {key.lower(): key for key in REGISTRY}
        near = difflib.get_close_matches(name.lower(), list(short), n=3, cutoff=0.3)
        known = [short[key] for key in near] or list(REGISTRY)
        raise ConfigError(
            "unknown simulated task {!r}".format(task_id), "use {}".format(" or ".join(known))
        )
    return REGISTRY[name]


__all__ = ["NAMESPACE", "REGISTRY", "Task", "TaskSpec", "find"]
