"""Trials of a policy on the simulated robot: what `ofrl evaluate` and `ofrl stress` share."""

from __future__ import annotations

import dataclasses

import torch

from ofrl_robot.control.rig import Rig
from ofrl_robot.policy.policy import Policy
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import make_rig
from ofrl_robot.sim.options import SimOptions


def use_one_thread() -> None:
    """Let the networks of this process compute in one thread.

    A policy sees one picture at a time, which is too little work to share: on a busy machine of
    two cores a trial took 1.7 s of CPU time with torch's own choice, two threads that wait for
    each other, and 0.27 s with one (11.8 and 2.0 s of wall time).
    """
    torch.set_num_threads(1)


def sim_rig(task: str, options: SimOptions) -> Rig:
    """Build the simulated rig of a task whose episodes are a function of their seed.

    Raises:
        ConfigError: unknown task, or a setting that the simulator refuses.
    """
    return make_rig(ArmConfig("sim", task, load_arm_file("sim"), True, True, options.to_dict()))


def rig_for(policy: Policy, options: SimOptions, task: str = "", any_task: bool = False) -> Rig:
    """Build the simulated rig that a policy is tried on.

    Args:
        policy: its checkpoint names the task and the size of the picture.
        options: an ``image_size`` of 0 stands for the policy's.
        task: another task than the policy's, with ``any_task``.
        any_task: accept a policy that was trained on another task.

    Raises:
        ConfigError: unknown task, or a setting that the simulator refuses.
        SpecMismatchError: the policy does not fit the simulated robot.
    """
    if not options.image_size:
        camera = policy.header.observation_spec.cameras[0]
        options = dataclasses.replace(options, image_size=camera.height)
    rig = sim_rig(task or policy.header.task, options)
    try:
        policy.require_specs(
            rig.action_spec,
            rig.observation_spec,
            rig.control_rate_hz,
            "robot sim",
            rig.task.name,
            any_task,
        )
    except Exception:
        rig.close()
        raise
    return rig
