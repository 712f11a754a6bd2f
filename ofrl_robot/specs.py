"""What an action and an observation are: names, units, bounds, image pipeline.

The one place where these are said. Simulator, drivers, episode files, checkpoints and the
policy server all refer to these classes, and refuse each other when they differ.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ofrl_robot.errors import SpecMismatchError


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """A normalised action vector in [-1, 1] and what one unit of each entry asks for.

    Attributes:
        names: meaning of each entry, in order.
        units: unit of ``scale``, per entry ("m", "deg", "1").
        scale: physical amount asked for by an entry of 1.0, per control step.
        gripper_threshold: a gripper entry above +threshold opens, below -threshold closes,
            anything else keeps the last target; a neutral entry above +threshold fires.
        frame: frame of the position and rotation deltas ("base": axes of the robot base).
    """

    names: Tuple[str, ...]
    units: Tuple[str, ...]
    scale: Tuple[float, ...]
    gripper_threshold: float = 0.5
    frame: str = "base"

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def levels(self) -> Dict[int, Tuple[float, ...]]:
        """Position of each entry that only asks for one of a few things -> one value for each:
        close, keep, open of a gripper; wait, fire of neutral."""
        known = {"gripper": (-1.0, 0.0, 1.0), "neutral": (0.0, 1.0)}
        return {i: known[name] for i, name in enumerate(self.names) if name in known}

    def to_dict(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: Dict[str, Any]) -> "ActionSpec":
        fields = dict(data)
        for key in ("names", "units", "scale"):
            fields[key] = tuple(fields[key])
        return ActionSpec(**fields)


@dataclasses.dataclass(frozen=True)
class CameraSpec:
    """One camera as the policy sees it, and the pipeline from the raw frame to that.

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
        return (self.height, self.width, 3)

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Raw uint8 RGB (h, w, 3) -> uint8 RGB (height, width, 3): crop, then area resize."""
        if self.crop is not None:
            top, left, height, width = self.crop
            raw = raw[top : top + height, left : left + width]
        if raw.shape == self.shape:
            return raw
        import cv2  # only needed when a frame really has to be resized

        return cv2.resize(raw, (self.width, self.height), interpolation=cv2.INTER_AREA)


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    """What is observed at a tick: uint8 RGB images and a float64 state vector.

    Attributes:
        cameras: every camera, in order; the first is the one a single-camera policy reads.
        state_names: meaning of each state entry, in order.
        state_units: unit per entry.
    """

    cameras: Tuple[CameraSpec, ...]
    state_names: Tuple[str, ...]
    state_units: Tuple[str, ...]

    def to_dict(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: Dict[str, Any]) -> "ObservationSpec":
        cameras = tuple(
            CameraSpec(**{**c, "crop": tuple(c["crop"]) if c.get("crop") else None})
            for c in data["cameras"]
        )
        return ObservationSpec(cameras, tuple(data["state_names"]), tuple(data["state_units"]))


def differences(left: Any, right: Any) -> List[str]:
    """Fields in which two specs differ, as ``field: left != right`` lines (empty if equal)."""
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


# The action and observation of roboverse's WidowX 250 (reference: roboverse
# envs/widow250.py as described by the COG and workflow papers' released code), so that
# simulated and real episodes agree.
WIDOWX_ACTION = ActionSpec(
    names=("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper", "neutral"),
    units=("m", "m", "m", "deg", "deg", "deg", "1", "1"),
    scale=(0.2, 0.2, 0.2, 20.0, 20.0, 20.0, 1.0, 1.0),
)

WIDOWX_STATE_NAMES = (
    "ee_x", "ee_y", "ee_z", "ee_qx", "ee_qy", "ee_qz", "ee_qw",
    "finger_left", "finger_right", "gripper_open",
)  # fmt: skip
WIDOWX_STATE_UNITS = ("m", "m", "m", "1", "1", "1", "1", "m", "m", "1")


def widowx_observation(image_size: int = 48, camera: str = "image") -> ObservationSpec:
    """Observation of the simulated WidowX: one square camera and roboverse's 10-D state."""
    return ObservationSpec(
        (CameraSpec(camera, image_size, image_size),), WIDOWX_STATE_NAMES, WIDOWX_STATE_UNITS
    )
