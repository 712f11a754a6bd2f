"""Provide the simulated WidowX tasks; importing this registers their ids with gymnasium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Tuple

import gymnasium

from ofrl_robot.sim.tasks import NAMESPACE, REGISTRY, find
from ofrl_robot.sim.vector import make_vec

if TYPE_CHECKING:
    from ofrl_robot.sim.env import WidowXEnv

TASK_IDS: Tuple[str, ...] = tuple(REGISTRY)

for _task_id in TASK_IDS:
    _name = f"{NAMESPACE}/{_task_id}"
    if _name not in gymnasium.registry:
        # No max_episode_steps: the environment truncates at its task's horizon itself.
        gymnasium.register(
            id=_name,
            entry_point="ofrl_robot.sim.env:WidowXEnv",
            kwargs={"task_id": _task_id},
        )


def make(task_id: str, **kwargs: Any) -> WidowXEnv:
    """Build the environment of ``task_id`` without wrappers.

    Args:
        task_id: one of :data:`TASK_IDS` (the ``ofrl_robot/`` prefix may be there or not).
        **kwargs: arguments of :class:`~ofrl_robot.sim.env.WidowXEnv`.

    Raises:
        ConfigError: unknown task id.
    """
    task_class = find(task_id)  # before the physics engine is loaded, for a quick answer
    from ofrl_robot.sim.env import WidowXEnv

    return WidowXEnv(task_class.spec.id, **kwargs)


__all__ = ["TASK_IDS", "make", "make_vec"]
