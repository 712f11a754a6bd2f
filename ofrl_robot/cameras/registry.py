"""Find camera kinds by name, ours and those of other packages, and make cameras of them."""

from __future__ import annotations

from ofrl_robot.cameras.camera import Camera
from ofrl_robot.cameras.settings import CameraConfig, CameraKind
from ofrl_robot.errors import ConfigError
from ofrl_robot.registry import Registry

CAMERAS = Registry(
    "camera",
    "ofrl_robot.cameras",
    {
        "v4l2": "ofrl_robot.cameras.v4l2:KIND",
        "realsense": "ofrl_robot.cameras.realsense:KIND",
        "video": "ofrl_robot.cameras.files:VIDEO",
        "images": "ofrl_robot.cameras.files:IMAGES",
    },
)


def camera_kind(source: str) -> CameraKind:
    """Return the kind of camera called ``source``.

    Raises:
        ConfigError: there is none, its package cannot be imported, or it is not a CameraKind.
    """
    kind = CAMERAS.load(source)
    if not isinstance(kind, CameraKind):
        raise ConfigError(
            f"camera {source!r} is a {type(kind).__name__}, not a CameraKind",
            "register a CameraKind (see docs/cameras.md)",
        )
    return kind


def make_camera(config: CameraConfig) -> Camera:
    """Return the camera of a config, not opened yet.

    Raises:
        ConfigError: its kind is unknown, or its driver is not installed.
    """
    return camera_kind(config.source).make(config)
