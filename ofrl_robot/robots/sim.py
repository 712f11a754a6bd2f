"""Drive the simulated WidowX: one environment seen as an arm, a camera and a task.

In lockstep, time stands still between a tick and its action: a state and an ideal frame are
captured at their tick's stamp, and an action leaves at its tick's stamp. In real time the world
goes on in a thread of its own, and every stamp is the time at which it really happened.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Protocol, Tuple

import numpy as np

from ofrl_robot import sim
from ofrl_robot.control.health import Health
from ofrl_robot.control.protocols import Outcome
from ofrl_robot.control.signals import ArmState, Sent, Setpoint
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.config import ArmConfig
from ofrl_robot.sim.arm import BASE_POSITION, JOINT_NAMES
from ofrl_robot.sim.env import WidowXEnv
from ofrl_robot.sim.options import SimOptions
from ofrl_robot.sim.real_time import RealTimePhysics
from ofrl_robot.sim.world import TIME_STEP_S
from ofrl_robot.specs import WORLD, CameraSpec


class SimFrame(NamedTuple):
    """A rendered frame: uint8 RGB (S, S, 3), and when it was captured (ns)."""

    pixels: np.ndarray
    stamp_ns: int


class SimWorld(Protocol):
    """The environment behind a simulated arm, its camera and its task, and their clock."""

    env: WidowXEnv

    def reset(self, seed: int) -> None:
        """Start an episode."""

    def step(self, action: np.ndarray) -> float:
        """Carry out one action (8,); return the seconds it takes if longer than a period, or 0.

        Raises:
            RobotError: no episode is running.
        """
        ...

    def now_ns(self) -> int:
        """Return the time, ns."""
        ...

    def state(self) -> Tuple[np.ndarray, Dict[str, float], int]:
        """Return the state (10,), the joint positions by name, and when they were measured, ns."""
        ...

    def frame(self) -> SimFrame:
        """Return the newest frame."""
        ...

    def outcome(self, step: int) -> Outcome:
        """Return reward and end after transition ``step``."""
        ...

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, world axes."""
        ...

    def hold(self) -> None:
        """Make the arm hold still; any thread may call."""

    def close(self) -> None:
        """Close the simulator."""


class LockstepWorld:
    """A world in which time stands still between actions. Implements :class:`SimWorld`.

    Args:
        env: the environment.
        start_ns: gives the stamp at which an episode starts; zero by default, so that an episode
            is a function of its seed alone.
    """

    def __init__(self, env: WidowXEnv, start_ns: Callable[[], int] = lambda: 0) -> None:
        self.env = env
        self._observation: Dict[str, np.ndarray] = {}
        self._outcome = Outcome()
        self._stamp_ns = 0  # when the newest observation was made
        self._start_ns, self._begun_ns = start_ns, 0
        self._stamps: List[int] = []  # of this episode's observations
        self._image_age = 0  # in steps

    def reset(self, seed: int) -> None:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed)
        start = self._start_ns()
        # simulated time never runs back where it starts at a real clock
        self._begun_ns = max(self._stamp_ns, start) if start else 0
        self._stamps = []
        self._take(observation, info, Outcome())

    def step(self, action: np.ndarray) -> float:
        """Carry out one action (8,). Raises RobotError before the first reset."""
        self._require_episode()
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._take(observation, info, Outcome(reward, terminated, truncated))
        return 0.0

    def now_ns(self) -> int:
        """Return the stamp of the newest observation."""
        self._require_episode()
        return self._stamp_ns

    def state(self) -> Tuple[np.ndarray, Dict[str, float], int]:
        """Return the state of the newest observation."""
        self._require_episode()
        vector = np.asarray(self._observation["state"], np.float64)
        return vector, self.env.joints(), self._stamp_ns

    def frame(self) -> SimFrame:
        """Return the frame of the newest observation; with realism it may be an older one."""
        self._require_episode()
        (camera,) = self.env.observation_spec.cameras
        captured = self._stamps[len(self._stamps) - 1 - self._image_age]
        return SimFrame(self._observation[camera.name], captured)

    def outcome(self, step: int) -> Outcome:
        """Return reward and end of the newest step."""
        return self._outcome

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, world axes."""
        return self.env.ground_truth()

    def hold(self) -> None:
        """Do nothing: the world moves only when it is stepped."""

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()

    def _require_episode(self) -> None:
        if not self._stamps:
            raise RobotError("no episode is running", "call reset first", "sim")

    def _take(self, observation: Dict[str, np.ndarray], info: Dict[str, Any], o: Outcome) -> None:
        period_ns = int(round(1e9 / self.env.control_rate_hz))
        self._stamp_ns = self._begun_ns + (len(self._stamps) + 1) * period_ns
        self._stamps.append(self._stamp_ns)
        self._observation, self._outcome = observation, o
        self._image_age = int(round(info["image_age_s"] * self.env.control_rate_hz))


class RealTimeWorld:
    """A world that goes on by the wall clock, also between actions. Implements :class:`SimWorld`.

    Raises:
        ConfigError: the backend cannot let time pass without an action.
    """

    def __init__(self, env: WidowXEnv) -> None:
        self.env = env
        simulation = env.real_time_simulation
        self._physics = RealTimePhysics(simulation.advance)
        self._lock = self._physics.lock
        self._stamps: List[int] = []  # of the frames captured in this episode

    def reset(self, seed: int) -> None:
        """Start an episode; time stands still while the world is built."""
        with self._lock:
            self._physics.require_alive()
            self._physics.pause()
            self._stamps = []
            self.env.reset(seed=seed)
            self._stamps = [time.time_ns()]  # of the frame that the reset captured
            self._physics.start()

    def step(self, action: np.ndarray) -> float:
        """Set the motor targets of one action (8,); returns at once."""
        with self._lock:
            self._physics.require_alive()
            seconds = self.env.begin_step(action) * TIME_STEP_S
        return seconds if seconds * self.env.control_rate_hz > 1.001 else 0.0

    def now_ns(self) -> int:
        """Return the wall clock."""
        return time.time_ns()

    def state(self) -> Tuple[np.ndarray, Dict[str, float], int]:
        """Return the state as it is now."""
        with self._lock:
            self._physics.require_alive()
            vector = np.asarray(self.env.measured_state(), np.float64)
            return vector, self.env.joints(), time.time_ns()

    def frame(self) -> SimFrame:
        """Capture a frame; with realism an older one is shown."""
        with self._lock:
            pixels, age = self.env.picture()
            self._stamps.append(time.time_ns())
        return SimFrame(pixels, self._stamps[max(0, len(self._stamps) - 1 - age)])

    def outcome(self, step: int) -> Outcome:
        """Return whether the task is achieved now, and whether its horizon is reached."""
        with self._lock:
            reward = float(self.env.success())
        return Outcome(reward, False, step >= self.env.task.horizon)

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, world axes."""
        with self._lock:
            return self.env.ground_truth()

    def hold(self) -> None:
        """Set the motor targets to where the arm is; any thread may call, also after the end."""
        with self._lock:
            if self._stamps:
                self.env.real_time_simulation.hold()

    def close(self) -> None:
        """Stop the physics and close the simulator."""
        self._physics.close()
        with self._lock:
            self._stamps = []  # there is nothing left to hold
            self.env.close()


class SimCameras:
    """The rendered camera of a :class:`SimWorld`."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self.specs: Tuple[CameraSpec, ...] = world.env.observation_spec.cameras

    def newest(self) -> Mapping[str, SimFrame]:
        """Return the newest frame."""
        return {self.specs[0].name: self._world.frame()}

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
        """Return reward and end after transition ``step``."""
        return self._world.outcome(step)

    def ground_truth(self) -> Dict[str, np.ndarray]:
        """Return what scripted policies read, world axes."""
        return self._world.ground_truth()


class SimArm:
    """The simulated WidowX 250. Implements :class:`~ofrl_robot.control.protocols.Arm`.

    It brings ``cameras`` and ``task`` of the same simulated world.

    Args:
        config: its settings are the fields of ``SimOptions``.
    """

    name = "sim"
    state_frame = WORLD
    base_pose = (BASE_POSITION, (0.0, 0.0, 0.0, 1.0))
    joint_names = JOINT_NAMES
    relative_to_target = False  # roboverse's convention, so that simulated data agrees with its

    def __init__(self, config: ArmConfig) -> None:
        options = SimOptions.from_dict(config.settings)
        env = sim.make(config.task, image_format="uint8", **options.to_dict())
        try:
            start = (lambda: 0) if config.stamps_from_zero else time.time_ns
            self._world: SimWorld = (
                LockstepWorld(env, start) if config.lockstep else RealTimeWorld(env)
            )
        except Exception:
            env.close()
            raise
        spec = env.observation_spec
        self.action_spec = env.action_spec
        self.state_names, self.state_units = spec.state_names, spec.state_units
        self.control_rate_hz = float(env.control_rate_hz)
        self.limits, self.timing = config.limits, config.timing
        self.health_limits = config.health
        self.settings: Dict[str, Any] = {}
        self.cameras = SimCameras(self._world)
        self.task = SimTask(self._world, options.to_dict())

    def now_ns(self) -> int:
        """Return the time of the simulated world."""
        return self._world.now_ns()

    def state(self) -> ArmState:
        """Return the state, world axes."""
        vector, joints, stamp = self._world.state()
        return ArmState(
            stamp_ns=stamp,
            vector=vector,
            position=vector[:3],
            orientation=vector[3:7],
            joint_positions=joints,
        )

    def command(self, setpoint: Setpoint) -> Sent:
        """Step the world by one control period; in real time only set the motor targets."""
        return Sent(duration=self._world.step(setpoint.action))

    def health(self) -> Health:
        """Return nothing wrong: simulated motors neither heat up nor fail."""
        return Health()

    def stop(self) -> None:
        """Hold still."""
        self._world.hold()

    def rearm(self) -> None:
        """Do nothing: the simulated arm has no errors to clear."""

    def home(self) -> None:
        """Do nothing: the task's reset puts the arm at its start pose."""

    def close(self) -> None:
        """Close the simulator."""
        self._world.close()
