"""Imperfections of hardware for the simulated robot: delay, lost frames, noise, stiction.

They draw from a random stream of their own, so they never change where the objects lie.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Deque, Dict, Tuple, Union

import numpy as np

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.arm import IDEAL_ACTUATORS, Actuators, require_at_least_zero

POSITION = slice(0, 3)  # of the end effector in the state vector


@dataclasses.dataclass(frozen=True)
class Realism:
    """Imperfections of camera, network, sensors and motors. The default is none.

    Attributes:
        camera_latency: control steps between the capture of a frame and its arrival, 0..100.
        dropped_frames: probability in [0, 1) that a frame is lost; the frame before it is then
            shown again.
        action_delay: control steps between an action and its effect, 0..100. Until the first
            action takes effect, zero actions do, which also keep the gripper.
        image_noise: standard deviation of normal noise on every pixel, of 255. The noise is
            added at capture: a frame that is shown twice is the same to the bit.
        position_noise_m: standard deviation of normal noise on the measured end-effector
            position, m. The arm's own controller does not see this noise.
        actuators: lag and stiction of the joints.

    Raises:
        ConfigError: a value outside its range, or not finite.
    """

    camera_latency: int = 0
    dropped_frames: float = 0.0
    action_delay: int = 0
    image_noise: float = 0.0
    position_noise_m: float = 0.0
    actuators: Actuators = IDEAL_ACTUATORS

    def __post_init__(self) -> None:
        for name in ("camera_latency", "action_delay"):
            steps = getattr(self, name)
            if not (isinstance(steps, (int, np.integer)) and 0 <= steps <= 100):
                raise ConfigError(
                    f"{name} {steps} is not a whole number in 0..100", "use a number of steps"
                )
        for name in ("image_noise", "position_noise_m"):
            require_at_least_zero(name, getattr(self, name))
        if not 0.0 <= self.dropped_frames < 1.0:
            raise ConfigError(
                f"dropped_frames {self.dropped_frames} is not a probability in [0, 1)",
                "use e.g. 0.1",
            )


# A control step is 42 ms. Webcams deliver after 50 to 100 ms; one tick of an arm servo is 1.5
# mrad, which is 1 mm at this arm's reach; hobby-class gears stand still below some mrad.
# Scripted successes of 50, noise 0.1: SingleObjGrasp 49/48/49, PickTray 49/50/44 (off/mild/harsh).
PRESETS: Dict[str, Realism] = {
    "off": Realism(),
    "mild": Realism(
        camera_latency=1,
        dropped_frames=0.01,
        action_delay=0,
        image_noise=2.0,
        position_noise_m=0.0005,
        actuators=Actuators(lag_s=0.02, stiction_rad=0.002),
    ),
    "harsh": Realism(
        camera_latency=3,
        dropped_frames=0.10,
        action_delay=1,
        image_noise=6.0,
        position_noise_m=0.002,
        actuators=Actuators(lag_s=0.06, stiction_rad=0.008),
    ),
}


def preset(realism: Union[str, Realism]) -> Realism:
    """Return the preset of that name; a :class:`Realism` is returned as it is.

    Raises:
        ConfigError: no preset has that name.
    """
    if isinstance(realism, Realism):
        return realism
    if realism not in PRESETS:
        raise ConfigError(f"realism {realism!r} is unknown", f"use {' or '.join(PRESETS)}")
    return PRESETS[realism]


class Imperfections:
    """Imperfections of one episode, with their state.

    Args:
        realism: how strong they are.
        rng: their only source of chance.
        action_size: entries of an action.
    """

    def __init__(self, realism: Realism, rng: np.random.Generator, action_size: int) -> None:
        self._realism = realism
        self._rng = rng
        self._actions: Deque[np.ndarray] = collections.deque(
            [np.zeros(action_size)] * realism.action_delay
        )
        self._frames: Deque[np.ndarray] = collections.deque(maxlen=realism.camera_latency + 1)
        self._shown = np.zeros(0)
        self._age = 0

    def delay(self, action: np.ndarray) -> np.ndarray:
        """Send ``action`` and return the action that takes effect now."""
        self._actions.append(action)
        return self._actions.popleft()

    def show(self, frame: np.ndarray) -> Tuple[np.ndarray, int]:
        """Capture ``frame`` and return the frame that is shown now, and its age in steps.

        Step t shows the frame of step max(0, t - latency). When the frame that would have
        arrived now is lost, the last one is shown again; the next frame to arrive is again as
        old as the latency.
        """
        first = not self._frames
        self._frames.append(self._add_noise(frame))
        if first or self._rng.random() >= self._realism.dropped_frames:
            self._shown = self._frames[0]
            self._age = len(self._frames) - 1
        else:
            self._age += 1
        return self._shown, self._age

    def measure(self, state: np.ndarray) -> np.ndarray:
        """Return the state vector with the noise of the sensors."""
        if self._realism.position_noise_m > 0.0:
            state = state.copy()
            state[POSITION] += self._rng.normal(0.0, self._realism.position_noise_m, 3)
        return state

    def _add_noise(self, frame: np.ndarray) -> np.ndarray:
        if self._realism.image_noise <= 0.0:
            return frame
        noisy = frame + self._rng.normal(0.0, self._realism.image_noise, frame.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
