"""Run the real roboverse behind our interfaces, where its package is installed.

Its files are not changed. Its environment class is built directly, because gym's wrappers
refuse the observation keys that it does not declare.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from typing import Any, Dict, Iterator, Optional, Tuple

import gymnasium
import numpy as np

from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.sim.arm import JOINT_NAMES, MOVABLE_JOINTS
from ofrl_robot.sim.engine import pybullet
from ofrl_robot.sim.tasks.base import TaskSpec

PACKAGE = "roboverse"
REPOSITORY = "https://github.com/avisingh599/roboverse"
ASSETS = os.path.join("assets", "bullet-objects")
CLIENT = 0  # roboverse names no PyBullet client, so it drives the first one of the process


class RoboverseSimulation:
    """One roboverse environment as a :class:`~ofrl_robot.sim.simulation.Simulation`.

    Only one can be open in a process, and none while something else (also an embedded world)
    holds PyBullet's first client. Embedded worlds that are opened later do not disturb it.
    Its gripper flag is stale after a neutral action, with any value of ``roboverse_bugs``.

    Args:
        task: spec of the task; its id is the same in roboverse.
        num_objects: size of the pool that each episode draws its object from; 0 for the task's own.

    Raises:
        ConfigError: roboverse is not installed, lacks its assets or this task, cannot build it,
            or PyBullet's first client is in use. Nothing is left open.
    """

    def __init__(self, task: TaskSpec, num_objects: int = 0) -> None:
        self.task = task
        self._env: Any = None
        self._observation: Optional[Dict[str, np.ndarray]] = None
        package = _locate()
        if pybullet.getConnectionInfo(physicsClientId=CLIENT)["isConnected"]:
            raise ConfigError(
                "roboverse can only use PyBullet's first client, which is in use in this process",
                "close the other environment first, or make this one in its own process",
                task.id,
            )
        if not pybullet.isNumpyEnabled():
            raise ConfigError(
                "this PyBullet was built without numpy, which roboverse needs",
                "reinstall pybullet after numpy",
            )
        environment, kwargs = _find(task.id, package)
        if num_objects:
            kwargs["num_obj_sample"] = num_objects
        try:
            # The constructor places objects; get_info fails where a task names more objects
            # than were loaded.
            with _silence(), _global_seed(0):
                env = environment(transpose_image=False, **kwargs)
                env.get_info()
            self._env = env
        except Exception as error:
            raise ConfigError(
                f"the roboverse in {package} cannot build this task ({_describe(error)})",
                "most of its objects were never published: use the embedded simulator",
                task.id,
            ) from error
        finally:
            if self._env is None:
                _disconnect()
        # Each step and reset would draw an image of one fixed size, needed or not; image() draws
        # instead.
        self._draw = env.render_obs
        env.render_obs = lambda: np.zeros((1, 1, 3), np.uint8)

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode. One integer is drawn from ``rng``.

        Raises:
            RobotError: roboverse failed; call reset() again.
        """
        if self._env is None:
            raise RobotError("the simulator is closed", "make a new one", self.task.id)
        with self._reporting(), _global_seed(int(rng.integers(2**32))):
            self._observation = self._env.reset()

    def step(self, action: np.ndarray) -> None:
        """Carry out one action, float64 (8,) within [-1, 1]."""
        env, _ = self._running()
        with self._reporting():
            self._observation = env.step(action)[0]

    def image(self, size: int) -> np.ndarray:
        """Draw uint8 RGB (size, size, 3), the same bits that roboverse stores at that size."""
        env, _ = self._running()
        env.observation_img_dim = size
        return np.ascontiguousarray(self._draw(), np.uint8)

    def state(self) -> np.ndarray:
        """Return the state, float64 (10,), in the order of ``specs.WIDOWX_STATE_NAMES``."""
        return self._observed("state")

    def object_pose(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return position (3,) m and quaternion (4,) xyzw of the target object, world axes."""
        return self._observed("object_position"), self._observed("object_orientation")

    def info(self) -> Dict[str, Any]:
        """Return the success conditions by roboverse's key names."""
        # Roboverse's values are a mix of Python's and numpy's types.
        return {
            key: bool(value) if isinstance(value, (bool, np.bool_)) else float(value)
            for key, value in self._running()[0].get_info().items()
        }

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return privileged arrays for scripted policies, m, world axes."""
        env, _ = self._running()
        state = self.state()
        truth = {
            "ee_position": state[:3],
            "ee_orientation": state[3:7],
            "gripper_open": state[9:],
            "object_position": self._observed("object_position"),
        }
        if hasattr(env, "container_position"):
            truth["container_position"] = env.container_position
            truth["container_top"] = [_top(env.container_id)]
            truth["container_radius"] = [env.place_success_radius_threshold]
        if "drawer" in env.objects:
            truth["drawer_position"] = env.drawer_pos
            truth["handle_position"] = env.get_drawer_handle_pos()
            truth["drawer_opened"] = [env.get_drawer_opened_percentage()]
            truth["drawer_direction"] = [1.0 if env.left_opening else -1.0]
        if "drawer_top" in env.objects:
            truth["top_position"] = env.get_drawer_pos("drawer_top")
            truth["top_opened"] = [env.get_drawer_opened_percentage("drawer_top")]
            truth["bottle_position"] = pybullet.getBasePositionAndOrientation(
                env.blocking_object, physicsClientId=CLIENT
            )[0]
            truth["tray_position"] = env.tray_position
        if "button" in env.objects:
            truth["button_position"] = env.get_button_pos()
            truth["button_pressed"] = [env.get_info()["button_pressed_percentage"]]
        return {key: np.array(value, np.float64) for key, value in truth.items()}

    def joints(self) -> Dict[str, float]:
        """Return joint positions by the vendor's names, rad (fingers: m)."""
        env, _ = self._running()
        states = pybullet.getJointStates(env.robot_id, MOVABLE_JOINTS, physicsClientId=CLIENT)
        return {name: state[0] for name, state in zip(JOINT_NAMES, states)}

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""
        self._observation = None
        if self._env is not None:
            self._env = None
            _disconnect()

    def _observed(self, key: str) -> np.ndarray:
        return np.array(self._running()[1][key], np.float64)

    def _running(self) -> Tuple[Any, Dict[str, np.ndarray]]:
        if self._observation is None:
            raise RobotError("the simulator has no running episode", "call reset() first")
        return self._env, self._observation

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Wrap calls that set the observation: an error or interruption ends the episode."""
        self._observation = None
        try:
            yield
        except Exception as error:
            raise RobotError(
                f"roboverse failed ({_describe(error)})", "call reset()", self.task.id
            ) from error


def _locate() -> str:
    """Return the folder of the installed package. Raises ConfigError without it or its assets."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:  # without origin it is only a folder of that name
        raise ConfigError(
            "the package roboverse is not installed (no registry has it)",
            # a plain `pip install` leaves the assets behind
            f"git clone {REPOSITORY} and put the clone on PYTHONPATH",
            "sim_backend",
        )
    package = os.path.dirname(os.path.abspath(spec.origin))
    assets = os.path.join(package, ASSETS)
    if not os.path.isfile(os.path.join(assets, "ShapeNetCore", "metadata.py")):
        raise ConfigError(
            "the installed roboverse lacks its assets",
            f"copy {os.path.join(PACKAGE, ASSETS)} of {REPOSITORY} there",
            assets,
        )
    return package


def _find(task_id: str, package: str) -> Tuple[Any, Dict[str, Any]]:
    """Return class and arguments that roboverse registers for the task. Raises ConfigError."""
    try:
        with _silence():
            try:
                importlib.import_module("gym")
            except ImportError:  # gym is abandoned; gymnasium has all that roboverse needs of it
                sys.modules["gym"] = gymnasium
            registration = importlib.import_module(f"{PACKAGE}.envs.registration")
            specs = {spec["id"]: spec for spec in registration.ENVIRONMENT_SPECS}
            if task_id in specs:
                module, name = specs[task_id]["entry_point"].split(":")
                environment = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"the installed roboverse cannot be imported ({_describe(error)})",
            f"install what it imports, or use the version in {REPOSITORY}",
            package,
        ) from error
    if task_id not in specs:
        raise ConfigError(
            f"the roboverse in {package} has no such task",
            "use the embedded simulator, or another fork",
            task_id,
        )
    # It prints at resets. Redirecting stdout would also drop what our other threads print at
    # that time, so its modules get their own print function.
    for name, module in list(sys.modules.items()):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            vars(module)["print"] = _print_nothing
    return environment, dict(specs[task_id]["kwargs"])


def _print_nothing(*args: Any, **kwargs: Any) -> None:
    pass


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop standard output and error of Python and of C code inside the block.

    Gym prints advice and warnings, PyBullet the names of missing files.
    """
    sys.stdout.flush()  # what was printed so far must not be dropped
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
        try:
            with contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                yield
        finally:
            for descriptor, copy in zip((1, 2), kept):
                os.dup2(copy, descriptor)
                os.close(copy)


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, roboverse's only source of chance, inside the block."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def _top(body: int) -> float:
    """Return the height of a body's highest point, m, world axes."""
    links = range(-1, pybullet.getNumJoints(body, physicsClientId=CLIENT))
    return max(pybullet.getAABB(body, link, physicsClientId=CLIENT)[1][2] for link in links)


def _disconnect() -> None:
    if pybullet.getConnectionInfo(physicsClientId=CLIENT)["isConnected"]:
        pybullet.disconnect(physicsClientId=CLIENT)


def _describe(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
