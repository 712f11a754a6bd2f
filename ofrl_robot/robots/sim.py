"""The simulated WidowX as a :class:`~ofrl_robot.control.loop.Robot`."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

import numpy as np

from ofrl_robot import sim
from ofrl_robot.control.limiter import Limits
from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import RobotError
from ofrl_robot.sim import arm
from ofrl_robot.sim.options import SimOptions


class SimRobot:
    """Wraps one environment.

    In simulated time it runs as fast as its actor answers: time stands still between a tick and
    its action, so an action leaves at its tick's stamp, and state and ideal frames are captured
    at the stamp. With a clock, ticks and actions have the time at which they really happen.

    Args:
        task: simulator task id, e.g. ``Widow250SingleObjGrasp-v0``.
        options: image size, backend, realism and what else the simulator lets one choose.
        origin_ns: gives the stamp at which an episode starts; zero by default, so that an
            episode is a function of its seed alone. Simulated time never runs back.
        clock_ns: the clock of a robot that runs in real time; None for simulated time.
    """

    name = "sim"

    def __init__(
        self,
        task: str,
        options: Optional[SimOptions] = None,
        origin_ns: Callable[[], int] = lambda: 0,
        clock_ns: Optional[Callable[[], int]] = None,
    ) -> None:
        self.environment = (options or SimOptions()).to_dict()
        self._env = sim.make(task, image_format="uint8", **self.environment)
        self.task = task
        self.action_spec = self._env.action_spec
        self.observation_spec = self._env.observation_spec
        self.control_rate_hz = float(self._env.control_rate_hz)
        self.horizon = int(self._env.task.horizon)
        scale = self.action_spec.scale
        self.limits = Limits(
            workspace_low=tuple(arm.WORKSPACE_LOW),
            workspace_high=tuple(arm.WORKSPACE_HIGH),
            # three axes at full scale: the simulator's own bound, so simulated data is not cut
            max_translation=float(np.linalg.norm(scale[:3])),
            max_rotation=float(max(scale[3:6])),
        )
        self._camera = self.observation_spec.cameras[0].name
        self._tick: Any = None
        self._stamps: List[int] = []  # of this episode's ticks
        self._origin_ns, self._start_ns, self._clock_ns = origin_ns, 0, clock_ns

    def reset(self, seed: int) -> None:
        observation, info = self._env.reset(seed=seed)
        before = self._tick.stamp_ns if self._tick is not None else 0
        origin = self._origin_ns()
        self._start_ns = max(before, origin) if origin else 0
        self._stamps = []
        self._tick = self._make_tick(0, observation, info, 0.0, False, False)

    def observe(self) -> Tick:
        if self._tick is None:
            raise RobotError("no episode is running", "call reset first", self.name)
        return self._tick

    def now_ns(self) -> int:
        return self._clock_ns() if self._clock_ns else self.observe().stamp_ns

    def ee_position(self) -> np.ndarray:
        return self.observe().state[:3]

    def joints(self) -> Dict[str, float]:
        return self._env.joints()

    def apply(self, action: np.ndarray) -> None:
        step = self.observe().step + 1
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._tick = self._make_tick(step, observation, info, reward, terminated, truncated)

    def stop(self) -> None:
        """Nothing moves in simulation unless stepped."""

    def close(self) -> None:
        self._env.close()

    def _make_tick(
        self,
        step: int,
        observation: Any,
        info: Dict[str, Any],
        reward: float,
        terminated: bool,
        truncated: bool,
    ) -> Tick:
        if self._clock_ns is not None:
            stamp = self._clock_ns()
        else:
            stamp = self._start_ns + (step + 1) * int(round(1e9 / self.control_rate_hz))
        self._stamps.append(stamp)
        # a frame was captured at a tick: seen twice, it has one capture time, to the nanosecond
        captured = self._stamps[step - int(round(info["image_age_s"] * self.control_rate_hz))]
        return Tick(
            stamp_ns=stamp,
            step=step,
            images={self._camera: observation["image"]},
            state=np.asarray(observation["state"], np.float64),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            image_stamps_ns={self._camera: captured},
            state_stamp_ns=stamp,
            ground_truth=self._env.ground_truth(),
        )
