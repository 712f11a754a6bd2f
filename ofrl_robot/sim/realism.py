"""Imperfections of hardware for the simulated robot: delay, lost frames, noise, stiction, looks.

They draw from a random stream of their own, so they never change where the objects lie.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
from typing import Deque, Dict, Tuple, Union

import numpy as np

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.arm import IDEAL_ACTUATORS, Actuators, require_at_least_zero
from ofrl_robot.sim.looks import USUAL, Looks

POSITION = slice(0, 3)  # of the end effector in the state vector
MOTION, GRIPPER = slice(0, 6), 6  # entries of an action


@dataclasses.dataclass(frozen=True)
class Realism:
    """Imperfections of camera, network, sensors and motors, and other looks. The default is none.

    Attributes:
        camera_latency: control steps between the capture of a frame and its arrival, 0..100.
        dropped_frames: probability in [0, 1) that a frame is lost; the frame before it is then
            shown again.
        action_delay: control steps between an action and its effect, 0..100. Until the first
            action takes effect, zero actions do, which also keep the gripper.
        gripper_delay: further control steps until the gripper's part of an action takes effect,
            0..100.
        action_noise: standard deviation of normal noise on the six entries of an action that
            move the arm, 0..1 (1 is full scale).
        image_noise: standard deviation of normal noise on every pixel, of 255. The noise is
            added at capture: a frame that is shown twice is the same to the bit.
        position_noise_m: standard deviation of normal noise on the measured end-effector
            position, m. The arm's own controller does not see this noise.
        object_size: factor of the length of the objects that are grasped, 0.7..1.3; their mass
            and place stay.
        actuators: lag and stiction of the joints.
        looks: how far lamp, colours and camera pose may be from the usual ones.

    Raises:
        ConfigError: a value outside its range, or not finite.
    """

    camera_latency: int = 0
    dropped_frames: float = 0.0
    action_delay: int = 0
    image_noise: float = 0.0
    position_noise_m: float = 0.0
    actuators: Actuators = IDEAL_ACTUATORS
    gripper_delay: int = 0
    action_noise: float = 0.0
    object_size: float = 1.0
    looks: Looks = USUAL

    def __post_init__(self) -> None:
        for name in ("camera_latency", "action_delay", "gripper_delay"):
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
        for name, least, most in (("action_noise", 0.0, 1.0), ("object_size", 0.7, 1.3)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name):g}", f"use {least:g}..{most:g}")


# A control step is 42 ms. Webcams deliver after 50 to 100 ms; one tick of an arm servo is 1.5
# mrad, which is 1 mm at this arm's reach; hobby-class gears stand still below some mrad. A lamp
# at one side of a table leaves a gradient of 10 to 40 of 255; a camera that is screwed on again
# is some millimetres and a degree off; automatic exposure follows within a fifth.
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
        looks=Looks(
            light_angle=15.0,
            light_level=0.2,
            light_gradient=10.0,
            table_color=0.05,
            object_color=0.05,
            camera_shift_mm=2.0,
            camera_tilt_deg=0.5,
            exposure=0.05,
            white_balance=0.03,
        ),
    ),
    "harsh": Realism(
        camera_latency=3,
        dropped_frames=0.10,
        action_delay=1,
        image_noise=6.0,
        position_noise_m=0.002,
        actuators=Actuators(lag_s=0.06, stiction_rad=0.008),
        looks=Looks(
            light_angle=45.0,
            light_level=0.6,
            light_gradient=30.0,
            table_color=0.15,
            table_texture=0.5,
            object_color=0.15,
            camera_shift_mm=5.0,
            camera_tilt_deg=1.0,
            exposure=0.15,
            white_balance=0.08,
        ),
    ),
}

_ACTUATORS = tuple(field.name for field in dataclasses.fields(Actuators))
_LOOKS = tuple(field.name for field in dataclasses.fields(Looks))
_OWN = tuple(f.name for f in dataclasses.fields(Realism) if f.name not in ("actuators", "looks"))
SETTINGS = (*_OWN, *_ACTUATORS, *_LOOKS)
_WHERE = "realism"


def parse_realism(realism: Union[str, Realism]) -> Realism:
    """Return the imperfections that a text names; a :class:`Realism` is returned as it is.

    Args:
        realism: a preset, settings, or a preset and what differs from it, with commas between:
            ``harsh``, ``camera_latency=2``, ``mild,light_gradient=30``. ``looks=PRESET`` takes
            only the looks of a preset. Later parts replace earlier ones.

    Raises:
        ConfigError: a part is unknown, or a value is not a number or outside its range.
    """
    if isinstance(realism, Realism):
        return realism
    found = Realism()
    for number, part in enumerate(str(realism).split(",")):
        name, given, value = (text.strip() for text in part.partition("="))
        if not given and number == 0:
            found = _preset(name)
        elif not given:
            raise ConfigError(
                f"realism has {part.strip()!r} after a comma", "use NAME=VALUE there", _WHERE
            )
        elif name == "looks":
            found = dataclasses.replace(found, looks=_preset(value).looks)
        else:
            found = _with_setting(found, name, value)
    return found


def _preset(name: str) -> Realism:
    if name not in PRESETS:
        raise ConfigError(
            f"realism {name!r} is unknown", f"use {' or '.join(PRESETS)}, or NAME=VALUE"
        )
    return PRESETS[name]


def _with_setting(realism: Realism, name: str, text: str) -> Realism:
    """Return ``realism`` with one setting replaced by the value in ``text``."""
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=3, cutoff=0.5)
        raise ConfigError(
            f"realism has no setting {name!r}", f"use {' or '.join(near or SETTINGS)}", _WHERE
        )
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}", "use a number", _WHERE) from error
    if name in _ACTUATORS:
        motors = dataclasses.replace(realism.actuators, **{name: value})
        return dataclasses.replace(realism, actuators=motors)
    if name in _LOOKS:
        return dataclasses.replace(
            realism, looks=dataclasses.replace(realism.looks, **{name: value})
        )
    # A whole number of steps; what is none is refused by name.
    steps = isinstance(getattr(Realism, name), int) and value.is_integer()
    return dataclasses.replace(realism, **{name: int(value) if steps else value})


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
        self._grips: Deque[float] = collections.deque([0.0] * realism.gripper_delay)
        self._frames: Deque[np.ndarray] = collections.deque(maxlen=realism.camera_latency + 1)
        self._shown = np.zeros(0)
        self._age = 0

    def delay(self, action: np.ndarray) -> np.ndarray:
        """Send ``action`` (A,) and return the action that takes effect now."""
        self._actions.append(action)
        effect = self._actions.popleft()
        if self._realism.gripper_delay:
            self._grips.append(float(effect[GRIPPER]))
            effect = effect.copy()
            effect[GRIPPER] = self._grips.popleft()
        if self._realism.action_noise > 0.0:
            effect = effect.copy()
            noise = self._rng.normal(0.0, self._realism.action_noise, len(effect[MOTION]))
            effect[MOTION] = np.clip(effect[MOTION] + noise, -1.0, 1.0)
        return effect

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
