"""Provide the simulated WidowX 250 as a gymnasium environment: spaces, episodes, imperfections."""

from __future__ import annotations

from typing import Any, Dict, Literal, Optional, Tuple, Union

import gymnasium
import numpy as np

from ofrl_robot import specs
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.sim.backends import make_simulation
from ofrl_robot.sim.looks import USUAL
from ofrl_robot.sim.options import Backend
from ofrl_robot.sim.realism import PRESETS, Imperfections, Realism, parse_realism
from ofrl_robot.sim.simulation import EmbeddedSimulation, Simulation
from ofrl_robot.sim.tasks import TaskSpec
from ofrl_robot.sim.world import TIME_STEP_S

CAMERA_NAME = "image"
LOOKS_STREAM = 1
STATE_BOUND = 100.0
ImageFormat = Literal["chw", "hwc", "uint8"]
IMAGE_FORMATS = ("chw", "hwc", "uint8")

Observation = Dict[str, np.ndarray]


class WidowXEnv(gymnasium.Env):
    """One arm, one table, one task; actions, observations and rewards are roboverse's.

    Action, float32 Box(-1, 1, (8,)), see ``specs.WIDOWX_ACTION``: end-effector displacement
    in world axes (x, y, z; rotation), gripper (> 0.5 opens, < -0.5 closes,
    else keeps), neutral (> 0.5).

    Observation, a dict of

    - ``image``: float32 (3 * S * S,) in [0, 1], channels first then rows (``image_format``
      "chw"), or rows first ("hwc": roboverse's ``transpose_image=False``), or uint8 RGB
      (S, S, 3) ("uint8");
    - ``state``: float64 (10,), ``specs.WIDOWX_STATE_NAMES``, poses in world axes;
    - ``object_position`` (3,) m and ``object_orientation`` (4,) xyzw of the target object,
      float64, world axes: privileged, for learning from state; never recorded.

    Reward: 1.0 at every step at which the task's success condition holds, else 0.0. Episodes
    are never terminated; they are truncated at ``task.horizon``.

    Args:
        task_id: a key of ``ofrl_robot.sim.TASK_IDS``.
        image_size: side S of the square image, pixels.
        image_format: "chw", "hwc" or "uint8".
        sim_backend: "embedded", or "roboverse" for the real one where it is installed.
        realism: a text as :func:`~ofrl_robot.sim.realism.parse_realism` reads it, such as
            "harsh" or "mild,light_gradient=30", or a :class:`~ofrl_robot.sim.realism.Realism`.
        num_objects: size of the pool that a many-object task draws from (0: the task's own).
        roboverse_bugs: bring back the stale gripper flag after a neutral action.
        control_rate_hz: control steps per second; 240 divided by a whole number. roboverse's
            tasks were made for 24.
        render_mode: None or "rgb_array".
        render_size: side of the image that :meth:`render` draws, pixels.

    Raises:
        ConfigError: unknown task, backend or preset; a value outside its range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 24}
    action_spec = specs.WIDOWX_ACTION

    def __init__(
        self,
        task_id: str,
        image_size: int = 48,
        image_format: ImageFormat = "chw",
        sim_backend: Backend = "embedded",
        realism: Union[str, Realism] = "off",
        num_objects: int = 0,
        roboverse_bugs: bool = False,
        control_rate_hz: float = 24,
        render_mode: Optional[str] = None,
        render_size: int = 256,
    ) -> None:
        self._simulation: Optional[Simulation] = None
        if not 1 <= int(image_size) <= 4096:
            raise ConfigError(f"image_size {image_size} is not in 1..4096", "use 48")
        if image_format not in IMAGE_FORMATS:
            raise ConfigError(
                f"image_format {image_format!r} is unknown",
                f"use {' or '.join(IMAGE_FORMATS)}",
            )
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode {render_mode!r} is unknown", "use rgb_array")
        substeps = substeps_of(control_rate_hz)
        self.control_rate_hz = 1.0 / (substeps * TIME_STEP_S)
        self.image_size = int(image_size)
        self.image_format = image_format
        self.realism = parse_realism(realism)
        self.render_mode = render_mode
        self.render_size = int(render_size)
        self.observation_spec = specs.widowx_observation(self.image_size, CAMERA_NAME)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.action_spec.size,), np.float32)
        self.observation_space = self._make_observation_space()
        self._steps = 0
        self._imperfections: Optional[Imperfections] = None
        self._simulation = make_simulation(
            task_id, sim_backend, self.realism, num_objects, roboverse_bugs, substeps
        )
        self.task: TaskSpec = self._simulation.task

    @property
    def simulation(self) -> Simulation:
        """Physics behind this environment. Raises RobotError once closed."""
        if self._simulation is None:
            raise RobotError("the environment is closed", "make a new one")
        return self._simulation

    def reset(
        self, *, seed: Optional[int] = None, options: Optional[Dict[str, Any]] = None
    ) -> Tuple[Observation, Dict[str, Any]]:
        """Rebuild the world and place the objects; ``seed`` is the only source of chance.

        With other looks, ``info["look"]`` tells what was drawn (``Look.to_dict``).

        Raises:
            ConfigError: the objects do not fit in a bounded number of tries.
        """
        super().reset(seed=seed)
        self.simulation.reset(self.np_random)
        self._steps = 0
        # drawn with any realism: the next positions of the objects must not depend on it
        stream = int(self.np_random.integers(2**62))
        self._imperfections = None
        if self.realism != PRESETS["off"]:
            rng = np.random.default_rng(stream)
            self._imperfections = Imperfections(self.realism, rng, self.action_spec.size)
        look = None
        if self.realism.looks != USUAL and isinstance(self.simulation, EmbeddedSimulation):
            # of its own, so that noise does not depend on the looks, nor they on it
            look = self.realism.looks.draw(np.random.default_rng([stream, LOOKS_STREAM]))
            self.simulation.dress(look)
        observation, info = self._observe()
        return observation, info if look is None else {**info, "look": look.to_dict()}

    def step(self, action: np.ndarray) -> Tuple[Observation, float, bool, bool, Dict[str, Any]]:
        """Apply one action (8,): 42 ms, 313 ms for a gripper toggle, 313 ms more for neutral.

        Raises:
            RobotError: the action has a wrong shape or is not finite (nothing moves then), or no
                episode is running.
        """
        self.simulation.step(self._delayed(action))
        self._steps += 1
        observation, info = self._observe()
        truncated = self._steps >= self.task.horizon
        return observation, float(info["success"]), False, truncated, info

    def begin_step(self, action: np.ndarray) -> int:
        """Set the motor targets of an action (8,) while time goes on elsewhere (real time).

        Returns:
            How many substeps of 1/240 s the step takes.

        Raises:
            RobotError: as :meth:`step`.
        """
        return self.real_time_simulation.command(self._delayed(action))

    @property
    def real_time_simulation(self) -> EmbeddedSimulation:
        """Physics in which time can pass without an action. Raises ConfigError if it cannot."""
        if not isinstance(self.simulation, EmbeddedSimulation):
            raise ConfigError(
                "the roboverse backend stands still between actions",
                "use lockstep:=true, or sim_backend:=embedded",
            )
        return self.simulation

    def picture(self) -> Tuple[np.ndarray, int]:
        """Return the frame that the camera shows now, uint8 RGB (S, S, 3), and its age in steps."""
        image = self.simulation.image(self.image_size)
        return (image, 0) if self._imperfections is None else self._imperfections.show(image)

    def measured_state(self) -> np.ndarray:
        """Return the state as the sensors measure it, float64 (10,)."""
        state = self.simulation.state()
        return state if self._imperfections is None else self._imperfections.measure(state)

    def success(self) -> bool:
        """Return whether the task's success condition holds now."""
        return bool(self.simulation.info()[self.task.success_key])

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return the privileged state for scripted policies: float64 arrays, m, world axes.

        ``ee_position`` (3,), ``gripper_open`` (1,), ``object_position`` (3,) and others that
        depend on the task. Free of noise and never recorded.
        """
        return self.simulation.ground_truth()

    def joints(self) -> Dict[str, float]:
        """Return joint positions by the vendor's names, rad (fingers: m)."""
        return self.simulation.joints()

    def render(self) -> Optional[np.ndarray]:
        """Draw the policy's camera at ``render_size``: uint8 RGB, or None without a render mode."""
        if self.render_mode is None:
            return None
        return self.simulation.image(self.render_size)

    def close(self) -> None:
        """Release the physics engine. Calling it again does nothing."""
        if self._simulation is not None:
            simulation = self._simulation
            self._simulation = None
            simulation.close()

    def _make_observation_space(self) -> gymnasium.spaces.Dict:
        def state(size: int) -> gymnasium.spaces.Box:
            return gymnasium.spaces.Box(-STATE_BOUND, STATE_BOUND, (size,), np.float64)

        shape = self.observation_spec.cameras[0].shape
        if self.image_format == "uint8":
            image = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        else:
            image = gymnasium.spaces.Box(0.0, 1.0, (int(np.prod(shape)),), np.float32)
        return gymnasium.spaces.Dict(
            {
                "object_position": state(3),
                "object_orientation": state(4),
                "state": state(len(self.observation_spec.state_names)),
                CAMERA_NAME: image,
            }
        )

    def _check_action(self, action: np.ndarray) -> np.ndarray:
        """Return the action as float64 (8,) clipped to [-1, 1], or raise before anything moves."""
        try:
            command = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RobotError(
                f"the action is not numeric ({error})", "send numbers in [-1, 1]", self.task.id
            ) from error
        if command.shape != (self.action_spec.size,):
            raise RobotError(
                f"the action has shape {command.shape}",
                f"send ({self.action_spec.size},): {', '.join(self.action_spec.names)}",
                self.task.id,
            )
        if not np.isfinite(command).all():
            bad = [n for n, v in zip(self.action_spec.names, command) if not np.isfinite(v)]
            raise RobotError(
                f"the action is not finite in {', '.join(bad)}",
                "send numbers in [-1, 1]",
                self.task.id,
            )
        return np.clip(command, -1.0, 1.0)

    def _delayed(self, action: np.ndarray) -> np.ndarray:
        command = self._check_action(action)
        return command if self._imperfections is None else self._imperfections.delay(command)

    def _observe(self) -> Tuple[Observation, Dict[str, Any]]:
        simulation = self.simulation
        image, age = self.picture()
        state = self.measured_state()
        position, orientation = simulation.object_pose()
        info = simulation.info()
        info["success"] = bool(info[self.task.success_key])
        info["image_age_s"] = age / self.control_rate_hz
        observation = {
            "object_position": position,
            "object_orientation": orientation,
            "state": state,
            CAMERA_NAME: self._format_image(image),
        }
        return observation, info

    def _format_image(self, image: np.ndarray) -> np.ndarray:
        if self.image_format == "uint8":
            return image
        if self.image_format == "chw":
            image = image.transpose(2, 0, 1)
        return image.reshape(-1).astype(np.float32) / np.float32(255.0)


def substeps_of(control_rate_hz: float) -> int:
    """Return how many substeps of 1/240 s a control period has.

    Raises:
        ConfigError: not a whole number of them, or none.
    """
    rate = float(control_rate_hz)
    substeps = round(1.0 / (rate * TIME_STEP_S)) if 0.0 < rate <= 240.0 else 0
    if not substeps or abs(rate * substeps * TIME_STEP_S - 1.0) > 1e-6:
        raise ConfigError(
            f"control_rate_hz is {control_rate_hz!r}",
            "use 240 divided by a whole number: 5, 10, 20, 24, ...",
        )
    return substeps
