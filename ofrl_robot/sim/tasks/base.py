"""Define a simulated task: its spec, its objects, its success and its ground truth."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Dict, Tuple

import numpy as np

from ofrl_robot.errors import ConfigError

if TYPE_CHECKING:  # naming the tasks must not load the physics engine
    from ofrl_robot.sim.arm import WidowXArm
    from ofrl_robot.sim.world import World

HALF_TURN = (0.0, 0.0, 1.0, 0.0)  # about z, xyzw: orientation of objects in the published data
TABLE_HEIGHT = -0.375  # height of the upper face of the table, m, world axes
SETTLE_SUBSTEPS = 50
PLACEMENT_TRIES = 100

# An object counts as grasped when it is this high and this close to the end effector.
GRASP_HEIGHT = -0.25
GRASP_REACH = 0.10


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """Facts about a task that other modules read.

    Attributes:
        id: name without namespace, e.g. ``Widow250SingleObjGrasp-v0``.
        horizon: control steps until truncation.
        description: one sentence.
        success_key: entry of ``info`` that is the reward and the success.
        scripted_policy: name of the scripted policy that solves it.
        use_neutral_action: whether action entry 7 moves the arm to its reset pose.
        neutral_gripper_open: gripper state that the neutral action commands.
        object_pool: objects that an episode may draw its object from (1: always the same).
    """

    id: str
    horizon: int
    description: str
    success_key: str
    scripted_policy: str
    use_neutral_action: bool = False
    neutral_gripper_open: bool = True
    object_pool: int = 1


class Task:
    """Base class of tasks; subclasses set ``spec`` and override the hooks.

    A task keeps the ids of the bodies that it loaded; the simulation owns world and arm. All
    positions are float64 in m, quaternions xyzw, world axes.

    Args:
        num_objects: size of the pool that each episode draws its object from; 0 for the
            task's own. Only tasks with ``spec.object_pool`` above 1 have a choice.

    Raises:
        ConfigError: ``num_objects`` is not a size that the task offers.
    """

    spec: ClassVar[TaskSpec]

    def __init__(self, num_objects: int = 0) -> None:
        pool = self.spec.object_pool
        if num_objects and not 1 <= num_objects <= pool:
            raise ConfigError(
                f"num_objects {num_objects} is not in 1..{pool}",
                "omit it" if pool == 1 else "choose a size in that range",
                self.spec.id,
            )
        self.num_objects = num_objects or pool
        self.target = -1  # body id of the object that success is about, set by build

    def build(self, world: World, rng: np.random.Generator) -> None:
        """Load the objects into a world that has table and arm, and set ``self.target``."""
        raise NotImplementedError

    def start(self, world: World, arm: WidowXArm) -> None:
        """Prepare the arm once it is at its reset pose (most tasks do nothing)."""

    def info(self, world: World, ee_position: np.ndarray) -> Dict[str, Any]:
        """Return the success conditions now, by roboverse's key names; subclasses add theirs."""
        grasped = is_grasped(world.pose(self.target)[0], ee_position)
        return {"grasp_success": grasped, "grasp_success_target": grasped}

    def target_pose(self, world: World) -> Tuple[np.ndarray, np.ndarray]:
        """Return position (3,) and quaternion (4,) of the object that success is about."""
        return world.pose(self.target)

    def ground_truth(self, world: World) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies; subclasses add theirs."""
        return {"object_position": world.pose(self.target)[0]}

    def restore(self, world: World, first: Dict[str, np.ndarray]) -> None:
        """Put the objects where a recorded episode had them; see ``EmbeddedSimulation``."""
        world.move(self.target, first["object_position"], first["object_orientation"])


def place(
    rng: np.random.Generator,
    low: np.ndarray,
    high: np.ndarray,
    accept: Callable[[np.ndarray], bool],
    where: str,
) -> np.ndarray:
    """Draw a uniform sample between ``low`` and ``high``, m, that ``accept`` returns True for.

    Raises:
        ConfigError: no sample was accepted in ``PLACEMENT_TRIES`` tries.
    """
    for _ in range(PLACEMENT_TRIES):
        position = rng.uniform(low, high)
        if accept(position):
            return position
    raise ConfigError(
        f"no free place for an object was found between {np.asarray(low).tolist()} and "
        f"{np.asarray(high).tolist()} in {PLACEMENT_TRIES} tries",
        "widen the spawn box or move the container",
        where,
    )


def is_grasped(object_position: np.ndarray, ee_position: np.ndarray) -> bool:
    """Return whether the object is lifted and near the gripper. Both positions (3,) m."""
    reach = float(np.linalg.norm(object_position - ee_position))
    return bool(object_position[2] > GRASP_HEIGHT and reach < GRASP_REACH)
