"""The simulated WidowX 250 as a gymnasium environment: actions, observations, episodes."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import gymnasium
import numpy as np

from ofrl_robot import specs
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.sim.arm import WidowXArm
from ofrl_robot.sim.tasks import TaskSpec, find
from ofrl_robot.sim.tasks.base import TABLE_POSITION
from ofrl_robot.sim.world import TIME_STEP_S, Camera, World

STEP_SUBSTEPS = 10
TOGGLE_SUBSTEPS = 75  # the fingers need longer than one control step
NEUTRAL_SUBSTEPS = 75
CAMERA_NAME = "image"
STATE_BOUND = 100.0


class WidowXEnv(gymnasium.Env):
    """One arm, one table, one task.

    Action, float32 Box(-1, 1, (8,)), see ``specs.WIDOWX_ACTION``: end-effector displacement
    (x, y, z; rotation), gripper (> 0.5 opens, < -0.5 closes, else keeps), neutral (> 0.5).
    Observation: ``image`` uint8 RGB (S, S, 3) and ``state`` float64 (10,). Reward: 1.0 at
    every step at which the task's success condition holds, else 0.0. Episodes are never
    terminated; they are truncated at ``task.horizon``.

    Args:
        task_id: a key of ``ofrl_robot.sim.TASK_IDS``.
        image_size: side of the square image, pixels.
        render_mode: None or "rgb_array".
        render_size: side of the image that :meth:`render` draws, pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 24}
    action_spec = specs.WIDOWX_ACTION
    control_rate_hz = 1.0 / (STEP_SUBSTEPS * TIME_STEP_S)

    def __init__(
        self,
        task_id: str,
        image_size: int = 48,
        render_mode: Optional[str] = None,
        render_size: int = 256,
    ) -> None:
        self._world: Optional[World] = None
        self._arm: Optional[WidowXArm] = None
        self._task = find(task_id)()
        if not 1 <= int(image_size) <= 4096:
            raise ConfigError("image_size {} is not in 1..4096".format(image_size), "use 48")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError("render_mode {!r} is unknown".format(render_mode), "use rgb_array")
        self.image_size = int(image_size)
        self.render_mode = render_mode
        self.render_size = int(render_size)
        self.observation_spec = specs.widowx_observation(self.image_size, CAMERA_NAME)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.action_spec.size,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {
                CAMERA_NAME: gymnasium.spaces.Box(
                    0, 255, self.observation_spec.cameras[0].shape, np.uint8
                ),
                "state": gymnasium.spaces.Box(
                    -STATE_BOUND,
                    STATE_BOUND,
                    (len(self.observation_spec.state_names),),
                    np.float64,
                ),
            }
        )
        self._camera = Camera((0.6, 0.2, -0.28), distance=0.29, yaw_deg=180.0, pitch_deg=-40.0)
        self._scale = np.array(self.action_spec.scale)
        self._steps = 0

    @property
    def task(self) -> TaskSpec:
        """The facts of the task: id, horizon, success key, scripted policy."""
        return self._task.spec

    def reset(
        self, *, seed: Optional[int] = None, options: Optional[Dict[str, Any]] = None
    ) -> Tuple[Dict[str, np.ndarray], Dict[str, Any]]:
        """Rebuild the world and place the objects; ``seed`` is the only source of chance."""
        super().reset(seed=seed)
        if self._world is None or not self._world.is_open:
            self._world = World()
        self._world.clear()
        self._world.load("table", TABLE_POSITION, fixed=True)
        self._arm = WidowXArm(self._world)
        self._task.build(self._world, self.np_random)
        # The objects fall for some substeps; the arm must not have sagged meanwhile.
        self._arm.reset_joints()
        self._steps = 0
        return self._observe(), self._info()

    def step(
        self, action: np.ndarray
    ) -> Tuple[Dict[str, np.ndarray], float, bool, bool, Dict[str, Any]]:
        """Apply one action (8,): 10 substeps, 75 for a gripper toggle, 75 more for neutral."""
        world, arm = self._require_ready()
        command = self._checked(action)
        threshold = self.action_spec.gripper_threshold
        gripper, neutral = command[6], command[7]

        toggled = gripper < -threshold if arm.gripper_open else gripper > threshold
        if toggled:
            arm.gripper_open = not arm.gripper_open
        arm.command_delta(command[:3] * self._scale[:3], command[3:6] * self._scale[3:6])
        world.step(TOGGLE_SUBSTEPS if toggled else STEP_SUBSTEPS)
        if self.task.use_neutral_action and neutral > threshold:
            arm.command_neutral(self.task.neutral_gripper_open)
            world.step(NEUTRAL_SUBSTEPS)

        self._steps += 1
        info = self._info()
        truncated = self._steps >= self.task.horizon
        return self._observe(), float(info["success"]), False, truncated, info

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Privileged state for scripted policies: float64 arrays, m, world axes.

        ``ee_position`` (3,), ``gripper_open`` (1,), ``object_position`` (3,) and, where the
        task has one, ``container_position`` (3,). Never part of an observation.
        """
        world, arm = self._require_ready()
        truth = {
            "ee_position": arm.end_effector()[0],
            "gripper_open": np.array([float(arm.gripper_open)]),
        }
        truth.update(self._task.ground_truth(world))
        return truth

    def joints(self) -> Dict[str, float]:
        """Joint positions by the vendor's names, rad (fingers: m)."""
        return self._require_ready()[1].joints()

    def render(self) -> Optional[np.ndarray]:
        """The policy's camera at ``render_size``: uint8 RGB, or None without a render mode."""
        if self.render_mode is None:
            return None
        world, _ = self._require_ready()
        return self._camera.render(world, self.render_size)

    def close(self) -> None:
        """Give the physics client back. Calling it again does nothing."""
        world, self._world, self._arm = self._world, None, None
        if world is not None:
            world.close()

    def _require_ready(self) -> Tuple[World, WidowXArm]:
        if self._world is None or self._arm is None:
            raise RobotError("the simulator has no running episode", "call reset() first")
        return self._world, self._arm

    def _checked(self, action: np.ndarray) -> np.ndarray:
        """The action as float64 (8,) clipped to [-1, 1]; refused before anything moves."""
        try:
            command = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RobotError(
                "the action is not numeric ({})".format(error), where=self.task.id
            ) from error
        if command.shape != (self.action_spec.size,):
            raise RobotError(
                "the action has shape {}".format(command.shape),
                "send ({},): {}".format(self.action_spec.size, ", ".join(self.action_spec.names)),
                self.task.id,
            )
        if not np.isfinite(command).all():
            bad = [n for n, v in zip(self.action_spec.names, command) if not np.isfinite(v)]
            raise RobotError(
                "the action is not finite in {}".format(", ".join(bad)),
                "send numbers in [-1, 1]",
                self.task.id,
            )
        return np.clip(command, -1.0, 1.0)

    def _observe(self) -> Dict[str, np.ndarray]:
        world, arm = self._require_ready()
        return {
            CAMERA_NAME: self._camera.render(world, self.image_size),
            "state": arm.state(),
        }

    def _info(self) -> Dict[str, Any]:
        world, arm = self._require_ready()
        info: Dict[str, Any] = dict(self._task.info(world, arm.end_effector()[0]))
        info["success"] = info[self.task.success_key]
        return info
