"""Read the intrinsics of a camera from the YAML file that ROS's camera calibration writes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, Tuple

from ofrl_robot.errors import ConfigError
from ofrl_robot.files import read_yaml

_LENGTHS = {"camera_matrix": 9, "rectification_matrix": 9, "projection_matrix": 12}
_FIX = "write it with camera_calibration's cameracalibrator.py"


@dataclasses.dataclass(frozen=True)
class Intrinsics:
    """The camera model of sensor_msgs/CameraInfo; matrices row by row, lengths in pixels.

    Attributes:
        width, height: size of the images that were used to calibrate.
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
    """Read the intrinsics in a file.

    Raises:
        ConfigError: it cannot be read, or a field is missing, of the wrong size or not finite.
    """
    data = read_yaml(path)
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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"is not a camera calibration ({type(error).__name__}: {error})", _FIX, path
        ) from error


def _numbers(data: Dict[str, Any], name: str) -> Tuple[float, ...]:
    numbers = tuple(float(entry) for entry in data[name]["data"])
    if len(numbers) != _LENGTHS.get(name, len(numbers)):
        raise ValueError(f"{name} has {len(numbers)} numbers")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} has a number that is not finite")
    return numbers
