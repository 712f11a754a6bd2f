"""Intrinsics of a camera from the YAML file that ROS's own camera calibration writes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, Tuple

import yaml

from ofrl_robot.errors import ConfigError

_LENGTHS = {"camera_matrix": 9, "rectification_matrix": 9, "projection_matrix": 12}
_FIX = "write it with camera_calibration's cameracalibrator.py"


@dataclasses.dataclass(frozen=True)
class Intrinsics:
    """The model of sensor_msgs/CameraInfo; matrices row by row, lengths in pixels.

    Attributes:
        width, height: size of the images that were calibrated with.
        distortion_model: "plumb_bob", "rational_polynomial", "equidistant".
        distortion: its coefficients.
        camera_matrix, rectification, projection: 9, 9 and 12 numbers (K, R, P).
    """

    width: int
    height: int
    distortion_model: str
    distortion: Tuple[float, ...]
    camera_matrix: Tuple[float, ...]
    rectification: Tuple[float, ...]
    projection: Tuple[float, ...]


def read_intrinsics(path: Path) -> Intrinsics:
    """Intrinsics of a file. Raises ConfigError naming what is missing or of the wrong size."""
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(error.strerror or str(error), "mend the path", path) from error
    except yaml.YAMLError as error:
        raise ConfigError("no YAML ({})".format(str(error).split("\n")[0]), _FIX, path) from error
    try:
        return Intrinsics(
            width=int(data["image_width"]),
            height=int(data["image_height"]),
            distortion_model=str(data["distortion_model"]),
            distortion=_numbers(data, "distortion_coefficients"),
            camera_matrix=_numbers(data, "camera_matrix"),
            rectification=_numbers(data, "rectification_matrix"),
            projection=_numbers(data, "projection_matrix"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"no camera calibration ({type(error).__name__}: {error})", _FIX, path
        ) from error


def _numbers(data: Dict[str, Any], name: str) -> Tuple[float, ...]:
    numbers = tuple(float(entry) for entry in data[name]["data"])
    if len(numbers) != _LENGTHS.get(name, len(numbers)):
        raise ValueError(f"{name} has {len(numbers)} numbers")
    return numbers
