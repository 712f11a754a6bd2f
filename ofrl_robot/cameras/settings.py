"""Describe a camera's entry in a cameras file, and what a kind of camera adds to it."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, Optional

from ofrl_robot.cameras.camera import Camera
from ofrl_robot.cameras.intrinsics import Intrinsics
from ofrl_robot.specs import CameraSpec


@dataclasses.dataclass(frozen=True)
class CameraConfig:
    """One camera of a cameras file.

    Attributes:
        name: topics ``camera/<name>/...``, dataset key ``obs/<name>``.
        source: kind of the camera, a name in :data:`~ofrl_robot.cameras.registry.CAMERAS`.
        observation: crop and size of the image that is recorded and that the policy sees.
        width, height: size of the raw frames, pixels.
        fps: frames per second.
        stale_after: periods without a new frame after which the camera is stale.
        frozen_after: bit-identical frames in a row after which it is frozen; 0: never.
        calibration: intrinsics, or None.
        options: settings that only this kind of camera has, checked, defaults filled in. Of the
            settings that bind a camera to its device exactly one is there.
    """

    name: str
    source: str
    observation: CameraSpec
    width: int = 640
    height: int = 480
    fps: float = 30.0
    stale_after: int = 6
    frozen_after: int = 5
    calibration: Optional[Intrinsics] = None
    options: Dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describe one setting of a cameras file.

    Attributes:
        valid: return whether a value that was read from YAML can be used.
        fix: how to write it, for the message that refuses a value.
        default: value of a setting that is not given; not used for one that binds.
        is_path: a relative path is taken from the folder of the cameras file.
    """

    valid: Callable[[Any], bool]
    fix: str
    default: Any = None
    is_path: bool = False


@dataclasses.dataclass(frozen=True)
class CameraKind:
    """Describe one kind of camera; :data:`~ofrl_robot.cameras.registry.CAMERAS` holds them.

    Attributes:
        make: return the camera of a config, not opened yet. May raise ConfigError, for example
            when a driver is not installed.
        bindings: settings that say which device it is; exactly one of them must be given. Empty
            when there is nothing to choose from.
        settings: its other settings, each of them optional.
    """

    make: Callable[[CameraConfig], Camera]
    bindings: Dict[str, Setting] = dataclasses.field(default_factory=dict)
    settings: Dict[str, Setting] = dataclasses.field(default_factory=dict)


def is_text(value: Any) -> bool:
    """Return whether ``value`` is text that is not empty."""
    return isinstance(value, str) and value != ""


def is_whole(value: Any, low: int) -> bool:
    """Return whether ``value`` is a whole number of ``low`` or more; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def text() -> Setting:
    """Return a setting that takes text."""
    return Setting(is_text, "give text, in quotes")


def whole(low: int, default: Any = None) -> Setting:
    """Return a setting that takes a whole number of ``low`` or more."""
    return Setting(lambda v: is_whole(v, low), f"use a whole number of {low} or more", default)


def switch(default: bool) -> Setting:
    """Return a setting that takes true or false."""
    return Setting(lambda v: isinstance(v, bool), "use true or false", default)
