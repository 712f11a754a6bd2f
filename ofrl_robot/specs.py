"""Define what an action and an observation are: names, units, scales, frames of reference.

Simulator, drivers, episode files, checkpoints and the policy server all use these classes. Two
parts whose specs differ refuse to work together.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ofrl_robot.errors import ConfigError, SpecMismatchError

# Frames of reference: of the task's scene; of the arm's base link; of data that does not say.
WORLD, BASE, UNKNOWN_FRAME = "world", "base", "unknown"
STATE = "state"  # name of the state vector, beside the names of the cameras


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """Describe a normalised action vector in [-1, 1].

    Attributes:
        names: meaning of each entry, in order.
        units: unit of ``scale``, per entry ("m", "deg", "1").
        scale: physical amount asked for by an entry of 1.0, per control step.
        gripper_threshold: a gripper entry above +threshold opens, below -threshold closes,
            anything else keeps the last target; a neutral entry above +threshold fires.
        frame: frame of reference of the position and rotation deltas, ``WORLD`` or ``BASE``.
    """

    names: Tuple[str, ...]
    units: Tuple[str, ...]
    scale: Tuple[float, ...]
    frame: str
    gripper_threshold: float = 0.5

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self.names)

    @property
    def levels(self) -> Dict[int, Tuple[float, ...]]:
        """Values that each discrete entry can take, by its position in the vector.

        A gripper entry closes, keeps or opens; a neutral entry waits or fires.
        """
        known = {"gripper": (-1.0, 0.0, 1.0), "neutral": (0.0, 1.0)}
        return {i: known[name] for i, name in enumerate(self.names) if name in known}

    def to_dict(self) -> Dict[str, Any]:
        """Return the fields as JSON-able values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: Dict[str, Any]) -> "ActionSpec":
        """Build a spec from :meth:`to_dict`. Raises KeyError or TypeError for other dicts."""
        fields = dict(data)
        for key in ("names", "units", "scale"):
            fields[key] = tuple(fields[key])
        return ActionSpec(**fields)


@dataclasses.dataclass(frozen=True)
class CameraSpec:
    """Describe the image of one camera as the policy sees it.

    :func:`ofrl_robot.images.prepare` makes it from the raw frame.

    Attributes:
        name: topic and dataset key (``camera/<name>/image_raw``, ``obs/<name>``).
        height, width: pixels after the pipeline.
        crop: (top, left, height, width) in raw pixels taken before resizing, or None for all.
    """

    name: str
    height: int
    width: int
    crop: Optional[Tuple[int, int, int, int]] = None

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(height, width, 3)."""
        return (self.height, self.width, 3)


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    """Describe what is observed at a tick: uint8 RGB images and a float64 state vector.

    Attributes:
        cameras: every camera, in order; the first is the one that a policy reads by default.
        state_names: meaning of each state entry, in order.
        state_units: unit per entry.
        state_frame: frame of reference of the poses in the state, ``WORLD`` or ``BASE``.
    """

    cameras: Tuple[CameraSpec, ...]
    state_names: Tuple[str, ...]
    state_units: Tuple[str, ...]
    state_frame: str

    def shapes(self, observe: Sequence[str] = ()) -> Dict[str, Tuple[int, ...]]:
        """Return the shape of each observation that a policy reads, by name, in order.

        Args:
            observe: names of cameras, and ``STATE`` for the state vector; by default the first
                camera alone.

        Raises:
            ConfigError: a name is unknown or repeated, or there is no camera to take by default.
        """
        known: Dict[str, Tuple[int, ...]] = {c.name: c.shape for c in self.cameras}
        names = list(observe) or list(known)[:1]
        known[STATE] = (len(self.state_names),)
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"observation {name!r} is unknown", f"use {', '.join(known)}", "observe"
                )
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"observe is {names}", f"name each of {', '.join(known)} once")
        return {name: known[name] for name in names}

    def to_dict(self) -> Dict[str, Any]:
        """Return the fields as JSON-able values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: Dict[str, Any]) -> "ObservationSpec":
        """Build a spec from :meth:`to_dict`. Raises KeyError or TypeError for other dicts."""
        cameras = tuple(
            CameraSpec(**{**c, "crop": tuple(c["crop"]) if c.get("crop") else None})
            for c in data["cameras"]
        )
        return ObservationSpec(
            cameras,
            tuple(data["state_names"]),
            tuple(data["state_units"]),
            data["state_frame"],
        )


def differences(left: Any, right: Any) -> List[str]:
    """List the fields in which two specs differ, as ``field: left != right``."""
    a, b = left.to_dict(), right.to_dict()
    return [f"{k}: {a.get(k)} != {b.get(k)}" for k in a if a.get(k) != b.get(k)]


def require_same(left: Any, right: Any, left_name: str, right_name: str, fix: str) -> None:
    """Raise :class:`SpecMismatchError` naming both sides unless the specs are equal."""
    if left == right:  # a tenth of the time of opening 10,000 episodes otherwise
        return
    found = differences(left, right)
    if found:
        raise SpecMismatchError(
            f"{type(left).__name__} of {left_name} and {right_name} differ in {'; '.join(found)}",
            fix,
        )


# Poses are in the axes of roboverse's world, where the arm's base stands at (0.6, 0, -0.4) m.
# The action and observation of roboverse's WidowX 250 (reference: roboverse
# envs/widow250.py as described by the COG and workflow papers' released code), so that
# simulated and real episodes agree.
WIDOWX_ACTION = ActionSpec(
    names=("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper", "neutral"),
    units=("m", "m", "m", "deg", "deg", "deg", "1", "1"),
    scale=(0.2, 0.2, 0.2, 20.0, 20.0, 20.0, 1.0, 1.0),
    frame=WORLD,
)

WIDOWX_STATE_NAMES = (
    "ee_x", "ee_y", "ee_z", "ee_qx", "ee_qy", "ee_qz", "ee_qw",
    "finger_left", "finger_right", "gripper_open",
)  # fmt: skip
WIDOWX_STATE_UNITS = ("m", "m", "m", "1", "1", "1", "1", "m", "m", "1")


def widowx_observation(image_size: int = 48, camera: str = "image") -> ObservationSpec:
    """Return the simulated WidowX's observation: one square camera and roboverse's 10-D state."""
    return ObservationSpec(
        (CameraSpec(camera, image_size, image_size),),
        WIDOWX_STATE_NAMES,
        WIDOWX_STATE_UNITS,
        WORLD,
    )
