"""Drive the simulated WidowX: one environment seen as an arm, a camera and a task.

In lockstep, time stands still between a tick and its action: a state and an ideal frame are
captured at their tick's stamp, and an action leaves at its tick's stamp. In real time every stamp
is the time at which it really happened.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from ofrl_robot import sim
from ofrl_robot.control.protocols import Outcome
from ofrl_robot.control.signals import ArmState
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.config import ArmConfig
from ofrl_robot.sim.arm import BASE_POSITION
from ofrl_robot.sim.options import SimOptions
from ofrl_robot.specs import WORLD, CameraSpec


class SimFrame(NamedTuple):
    """A rendered frame: uint8 RGB (S, S, 3), and when it was captured (ns)."""

    pixels: np.ndarray
    stamp_ns: int


class SimWorld:
    """The environment behind a simulated arm, its camera and its task, and their clock.

    Args:
        task: simulator task id.
        options: image size, backend, realism and so on.
        clock_ns: clock of a world in real time; None for simulated time, which starts again with
            every episode.
        start_ns: gives the stamp at which an episode in simulated time starts; zero by default,
            so that an episode is a function of its seed alone.
    """

    def __init__(
        self,
        task: str,
        options: SimOptions,
        clock_ns: Optional[Callable[[], int]] = None,
        start_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self.env = sim.make(task, image_format="uint8", **options.to_dict())
        self.observation: Dict[str, np.ndarray] = {}
        self.outcome = Outcome()
        self.stamp_ns = 0  # when the newest observation was made
        self._clock_ns, self._start_ns, self._begun_ns = clock_ns, start_ns, 0
        self._stamps: List[int] = []  # of this episode's observations
        self._image_age = 0  # in steps

    def reset(self, seed: int) -> None:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed)
        start = self._start_ns()
        # simulated time never runs back where it starts at a real clock
        self._begun_ns = max(self.stamp_ns, start) if start else 0
        self._stamps = []
        self._take(observation, info, Outcome())

    def step(self, action: np.ndarray) -> None:
        """Carry out one action (8,). Raises RobotError before the first reset."""
        self.require_episode()
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._take(observation, info, Outcome(reward, terminated, truncated))

    def now_ns(self) -> int:
        """Return the time now, ns."""
        self.require_episode()
        return self._clock_ns() if self._clock_ns else self.stamp_ns

    def frame_stamp_ns(self) -> int:
        """Return when the newest frame was captured, ns: at an observation, maybe an older one."""
        return self._stamps[len(self._stamps) - 1 - self._image_age]

    def require_episode(self) -> None:
        """Raise RobotError unless an episode is running."""
        if not self._stamps:
            raise RobotError("no episode is running", "call reset first", "sim")

    def _take(self, observation: Dict[str, np.ndarray], info: Dict[str, Any], o: Outcome) -> None:
        period_ns = int(round(1e9 / self.env.control_rate_hz))
        if self._clock_ns is None:
            self.stamp_ns = self._begun_ns + (len(self._stamps) + 1) * period_ns
        else:
            self.stamp_ns = self._clock_ns()
        self._stamps.append(self.stamp_ns)
        self.observation, self.outcome = observation, o
        self._image_age = int(round(info["image_age_s"] * self.env.control_rate_hz))


class SimCameras:
    """The rendered camera of a :class:`SimWorld`."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self.specs: Tuple[CameraSpec, ...] = world.env.observation_spec.cameras

    def newest(self) -> Mapping[str, SimFrame]:
        """Return the frame of the newest observation; with realism it may be an older one."""
        self._world.require_episode()
        (camera,) = self.specs
        pixels = self._world.observation[camera.name]
        return {camera.name: SimFrame(pixels, self._world.frame_stamp_ns())}

    def close(self) -> None:
        """Do nothing: the arm closes the world."""


class SimTask:
    """The task of a :class:`SimWorld`: its reset, horizon, rewards and ground truth."""

    rewards_known = True
    has_ground_truth = True

    def __init__(self, world: SimWorld, settings: Dict[str, Any]) -> None:
        self._world, self.settings = world, settings
        self.name: str = world.env.task.id
        self.horizon = int(world.env.task.horizon)
        self.instruction = self.name

    def arrange(self, seed: int) -> str:
        """Reset the world; nobody has to confirm that."""
        self._world.reset(seed)
        return ""

    def outcome(self, step: int) -> Outcome:
        """Return reward and end of the newest step."""
        return self._world.outcome

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, world axes."""
        return self._world.env.ground_truth()


class SimArm:
    """The simulated WidowX 250. Implements :class:`~ofrl_robot.control.protocols.Arm`.

    It brings ``cameras`` and ``task`` of the same simulated world.

    Args:
        config: its settings are the fields of ``SimOptions``.
    """

    name = "sim"
    state_frame = WORLD
    base_pose = (BASE_POSITION, (0.0, 0.0, 0.0, 1.0))

    def __init__(self, config: ArmConfig) -> None:
        options = SimOptions.from_dict(config.settings)
        start = (lambda: 0) if config.stamps_from_zero else time.time_ns
        clock = None if config.lockstep else time.time_ns
        self._world = world = SimWorld(config.task, options, clock, start)
        spec = world.env.observation_spec
        self.action_spec = world.env.action_spec
        self.state_names, self.state_units = spec.state_names, spec.state_units
        self.control_rate_hz = float(world.env.control_rate_hz)
        self.limits = config.limits
        self.settings: Dict[str, Any] = {}
        self.cameras = SimCameras(world)
        self.task = SimTask(world, options.to_dict())

    def now_ns(self) -> int:
        """Return the time of the simulated world."""
        return self._world.now_ns()

    def state(self) -> ArmState:
        """Return the state of the newest observation, world axes."""
        self._world.require_episode()
        vector = np.asarray(self._world.observation["state"], np.float64)
        return ArmState(
            stamp_ns=self._world.stamp_ns,
            vector=vector,
            position=vector[:3],
            orientation=vector[3:7],
            joint_positions=self._world.env.joints(),
        )

    def command(self, action: np.ndarray) -> None:
        """Step the world by one control period."""
        self._world.step(action)

    def stop(self) -> None:
        """Do nothing: the world moves only when it is stepped."""

    def home(self) -> None:
        """Do nothing: the task's reset puts the arm at its start pose."""

    def close(self) -> None:
        """Close the simulator."""
        self._world.env.close()
