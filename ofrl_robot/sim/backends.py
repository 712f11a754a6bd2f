"""Choose between the embedded simulator and the real roboverse."""

from __future__ import annotations

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.arm import IDEAL_ACTUATORS, STEP_SUBSTEPS
from ofrl_robot.sim.realism import PRESETS, Realism
from ofrl_robot.sim.simulation import EmbeddedSimulation, Simulation
from ofrl_robot.sim.tasks import find


def make_simulation(
    task_id: str,
    backend: str = "embedded",
    realism: Realism = PRESETS["off"],
    num_objects: int = 0,
    roboverse_bugs: bool = False,
    substeps: int = STEP_SUBSTEPS,
) -> Simulation:
    """Return the physics for ``task_id``; the arguments are those of ``WidowXEnv``.

    ``substeps`` of 1/240 s make a control period.

    Raises:
        ConfigError: unknown task or backend, or a setting that the backend does not support.
    """
    task = find(task_id)(num_objects)
    if backend == "embedded":
        return EmbeddedSimulation(
            task, realism.actuators, roboverse_bugs, substeps, realism.object_size
        )
    if backend == "roboverse":
        from ofrl_robot.sim.roboverse import RoboverseSimulation

        if realism.actuators != IDEAL_ACTUATORS:
            raise ConfigError(
                "the roboverse backend supports ideal motors only",
                "use realism off, or the embedded simulator",
            )
        if realism.looks != PRESETS["off"].looks or realism.object_size != 1.0:
            raise ConfigError(
                "the roboverse backend has looks and objects of its own, which stay as they are",
                "use realism without looks and object_size, or the embedded simulator",
            )
        if substeps != STEP_SUBSTEPS:
            raise ConfigError(
                "the roboverse backend has a fixed control rate", "use 24 Hz, or the embedded one"
            )
        return RoboverseSimulation(task.spec, num_objects)
    raise ConfigError(
        f"simulator {backend!r} is unknown", "use embedded or roboverse", "sim_backend"
    )
