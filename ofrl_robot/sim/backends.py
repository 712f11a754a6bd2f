"""Choose between the embedded simulator and the real roboverse."""

from __future__ import annotations

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.arm import IDEAL_ACTUATORS, Actuators
from ofrl_robot.sim.simulation import EmbeddedSimulation, Simulation
from ofrl_robot.sim.tasks import find


def make_simulation(
    task_id: str,
    backend: str = "embedded",
    actuators: Actuators = IDEAL_ACTUATORS,
    num_objects: int = 0,
    roboverse_bugs: bool = False,
) -> Simulation:
    """Return the physics for ``task_id``; the arguments are those of ``WidowXEnv``.

    Raises:
        ConfigError: unknown task or backend, or a setting that the backend does not support.
    """
    task = find(task_id)(num_objects)
    if backend == "embedded":
        return EmbeddedSimulation(task, actuators, roboverse_bugs)
    if backend == "roboverse":
        from ofrl_robot.sim.roboverse import RoboverseSimulation

        if actuators != IDEAL_ACTUATORS:
            raise ConfigError(
                "the roboverse backend supports ideal motors only",
                "use realism off, or the embedded simulator",
            )
        return RoboverseSimulation(task.spec, num_objects)
    raise ConfigError(
        f"simulator {backend!r} is unknown", "use embedded or roboverse", "sim_backend"
    )
