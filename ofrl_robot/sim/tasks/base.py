"""What every simulated task says: its spec, its objects, its success and its ground truth."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable, ClassVar, Dict

import numpy as np

from ofrl_robot.errors import ConfigError

if TYPE_CHECKING:  # naming the tasks must not load the physics engine
    from ofrl_robot.sim.world import World

TABLE_POSITION = (0.75, -0.2, -0.375)  # centre of the table's upper face, m
SETTLE_SUBSTEPS = 50
PLACEMENT_TRIES = 100

# An object counts as grasped when it is this high and this close to the end effector.
GRASP_HEIGHT = -0.25
GRASP_REACH = 0.10


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """The facts about a task that others may read.

    Attributes:
        id: name without namespace, e.g. ``Widow250SingleObjGrasp-v0``.
        horizon: control steps until truncation.
        description: one sentence.
        success_key: entry of ``info`` that is the reward and the success.
        scripted_policy: name of the scripted policy that solves it.
        use_neutral_action: whether action entry 7 moves the arm to its reset pose.
        neutral_gripper_open: gripper state that the neutral action commands.
    """

    id: str
    horizon: int
    description: str
    success_key: str
    scripted_policy: str
    use_neutral_action: bool = False
    neutral_gripper_open: bool = True


class Task:
    """Base class: subclasses set ``spec`` and fill in the three hooks.

    A task owns the ids of the bodies it loaded; the environment owns world and arm.
    """

    spec: ClassVar[TaskSpec]

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the task's objects into an empty world that has the table and the arm."""
        raise NotImplementedError

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, bool]:
        """Success conditions now, by roboverse's key names."""
        raise NotImplementedError

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        """Privileged float64 arrays for scripted policies (positions in m, world axes)."""
        raise NotImplementedError


def place(
    rng: np.random.Generator,
    low: np.ndarray,
    high: np.ndarray,
    accept: Callable[[np.ndarray], bool],
    where: str,
) -> np.ndarray:
    """Uniform sample (3,) m between ``low`` and ``high`` that ``accept`` takes.

    Raises:
        ConfigError: no sample was accepted in ``PLACEMENT_TRIES`` tries.
    """
    for _ in range(PLACEMENT_TRIES):
        position = rng.uniform(low, high)
        if accept(position):
            return position
    raise ConfigError(
        "no free place for an object between {} and {} in {} tries".format(
            np.asarray(low).tolist(), np.asarray(high).tolist(), PLACEMENT_TRIES
        ),
        "widen the spawn box or move the container",
        where,
    )


def is_grasped(object_position: np.ndarray, ee_position: np.ndarray) -> bool:
    """Lifted and near the gripper. Both positions (3,) m."""
    reach = float(np.linalg.norm(object_position - ee_position))
    return bool(object_position[2] > GRASP_HEIGHT and reach < GRASP_REACH)
