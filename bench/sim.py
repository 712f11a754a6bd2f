"""Measure the speed of the simulator beside the real roboverse, on one core, in one run.

Each of them runs in a process of its own, pinned to the same core, and they take turns:
A B A B ... A turn is some timed resets and 200 timed steps with the same random actions, the
image included. The gripper is not toggled and the neutral action is not used, because both would
multiply the length of a step. The medians over all turns are printed. The clock is the CPU time
of the process: other load on the core does not count, and on an idle core it is the time that
passes.

    python bench/sim.py
    PYTHONPATH=path/to/roboverse python bench/sim.py --roboverse-python other/venv/bin/python

Without roboverse only ours is measured. No registry has it; the interpreter that imports it needs
pybullet, numpy, and gym or gymnasium.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from command import Command, cpu_name, write_json
from contestant import Contestant, Order, last_core, serve

OURS, REAL = "ofrl_robot", "roboverse"
TASKS = (
    "Widow250SingleObjGrasp-v0",
    "Widow250PickTray-v0",
    "Widow250DoubleDrawerOpenGraspNeutral-v0",
)
IMAGE_SIZE = 48
RESETS = 3  # per turn
WARM_UP = 10  # steps before anything is timed


# -- the process that is measured; only one of both packages is installed there ---------------


def make_ours(task: str) -> Tuple[Callable[[int], Any], Callable[[Any], Any]]:
    """Return (reset by seed, step) of our environment."""
    from ofrl_robot import sim

    env = sim.make(task, image_size=IMAGE_SIZE)
    return lambda seed: env.reset(seed=seed), env.step


def make_real(task: str) -> Tuple[Callable[[int], Any], Callable[[Any], Any]]:
    """Return (reset by seed, step) of the real one, without gym's wrappers, which refuse it."""
    import numpy as np

    try:
        import gym  # noqa: F401
    except ImportError:
        sys.modules["gym"] = importlib.import_module("gymnasium")
    registration = importlib.import_module("roboverse.envs.registration")
    spec = {s["id"]: s for s in registration.ENVIRONMENT_SPECS}[task]
    module, name = spec["entry_point"].split(":")
    env = getattr(importlib.import_module(module), name)(
        observation_img_dim=IMAGE_SIZE, **spec["kwargs"]
    )

    def reset(seed: int) -> None:
        np.random.seed(seed)
        env.reset()

    return reset, env.step


def prepare(side: str, task: str) -> Callable[[Order], Order]:
    """Return the function that answers ``{"seed": s, "steps": n}`` with CPU seconds."""
    import numpy as np

    def actions(seed: int, count: int) -> Any:
        batch = np.zeros((count, 8))
        batch[:, :6] = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 6))
        return batch

    reset, step = {OURS: make_ours, REAL: make_real}[side](task)
    reset(0)
    for action in actions(0, WARM_UP):
        step(action)

    def turn(order: Order) -> Order:
        resets = []
        for k in range(RESETS):
            start = time.process_time()
            reset(order["seed"] + k)
            resets.append(time.process_time() - start)
        batch = actions(order["seed"], order["steps"])
        start = time.process_time()
        for action in batch:
            step(action)
        return {"resets": resets, "step": (time.process_time() - start) / order["steps"]}

    return turn


# -- the process that measures ---------------------------------------------------------------


def medians(turns: List[Order]) -> Dict[str, float]:
    """Return steps/s and the time of a reset, each the median over all turns."""
    resets = [seconds for turn in turns for seconds in turn["resets"]]
    return {
        "steps_per_s": 1.0 / statistics.median(turn["step"] for turn in turns),
        "reset_ms": 1000.0 * statistics.median(resets),
    }


def compare(task: str, arguments: argparse.Namespace, core: Optional[int]) -> Dict[str, Any]:
    """Return medians of both sides of a task and their ratios; only ours without roboverse."""
    pythons = {OURS: sys.executable, REAL: arguments.roboverse_python}
    sides = {}
    try:
        for side, python in pythons.items():
            sides[side] = Contestant(python, __file__, [side, task], core)
        if sides[OURS].error:
            sys.exit(f"bench: {sides[OURS].error}")
        turns: Dict[str, List[Order]] = {side: [] for side, c in sides.items() if not c.error}
        for seed in range(arguments.repeats):
            for side in turns:
                turns[side].append(sides[side].ask({"seed": seed, "steps": arguments.steps}))
        result: Dict[str, Any] = {side: medians(taken) for side, taken in turns.items()}
    finally:
        for contestant in sides.values():
            contestant.close()
    if REAL in result:
        ours, real = result[OURS], result[REAL]
        result["times_the_steps_per_s"] = ours["steps_per_s"] / real["steps_per_s"]
        result["times_faster_reset"] = real["reset_ms"] / ours["reset_ms"]
    else:
        result["roboverse_error"] = sides[REAL].error
    return result


def row(name: str, result: Dict[str, Any]) -> str:
    """Return one line of the table."""
    text = f"{name:<42}"
    for side in (OURS, REAL):
        if side in result:
            steps, reset = result[side]["steps_per_s"], result[side]["reset_ms"]
            text += f"{steps:7.0f} steps/s {reset:6.1f} ms |"
    if REAL in result:
        faster, resets = result["times_the_steps_per_s"], result["times_faster_reset"]
        text += f" {faster:5.2f}x {resets:6.1f}x"
    return text


def main() -> None:
    """Measure every task and print the table."""
    command = Command(__doc__, serve_words=2)
    command.number("--steps", default=200, help="a turn (default: 200)")
    command.number("--repeats", default=5, help="turns of each (default: 5)")
    command.add_interpreter("--roboverse-python", "roboverse", variable="ROBOVERSE_PYTHON")
    arguments = command.parse(positive=("steps", "repeats"))
    if arguments.serve:
        return serve(functools.partial(prepare, *arguments.serve))
    core = last_core()
    print(
        f"{IMAGE_SIZE}x{IMAGE_SIZE} pixels, {arguments.repeats} turns of {arguments.steps} "
        f"steps, core {core} of {os.cpu_count()}"
    )
    print(f"{'':<42}{OURS:<28}{REAL:<29}steps  resets")
    results: Dict[str, Any] = {}
    for task in TASKS:
        results[task] = compare(task, arguments, core)
        print(row(task, results[task]), flush=True)
    errors = {r["roboverse_error"] for r in results.values() if "roboverse_error" in r}
    for error in sorted(errors):
        print(f"roboverse was not measured: {error}")
    report = {
        "image_size": IMAGE_SIZE,
        "steps": arguments.steps,
        "repeats": arguments.repeats,
        "cpu": cpu_name(),
        "tasks": results,
    }
    write_json(arguments.json, report)


if __name__ == "__main__":
    main()
