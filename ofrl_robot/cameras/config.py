"""The cameras of a rig: a YAML file, checked field by field."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import yaml

from ofrl_robot.cameras.intrinsics import Intrinsics, read_intrinsics
from ofrl_robot.errors import ConfigError
from ofrl_robot.specs import CameraSpec

# what a camera is bound by (exactly one of these), and what else only its source knows
SOURCES: Dict[str, Tuple[Tuple[str, ...], Tuple[str, ...]]] = {
    "v4l2": (("serial", "path", "index"), ("fourcc",)),
    "realsense": (("serial",), ()),
    "video": (("path",), ("loop",)),
    "images": (("path",), ("loop",)),
}
_SPECIAL = {name for lists in SOURCES.values() for names in lists for name in names}
_RESERVED = ("state", "obs", "action", "applied")  # keys of an episode file beside the cameras


@dataclasses.dataclass(frozen=True)
class CameraConfig:
    """One camera.

    Attributes:
        name: topics ``camera/<name>/...``, dataset key ``obs/<name>``.
        source: "v4l2", "realsense", "video" or "images".
        observation: what is recorded and what the policy sees: crop, then area resize.
        serial: serial number of the device (v4l2, realsense).
        path: v4l2: name in /dev/v4l/by-path or a udev link; video, images: file or folder.
        index: v4l2: /dev/video<index>, whatever that is after the next reboot; -1: not used.
        width, height: of the raw frames, pixels. fps: frames per second.
        fourcc: v4l2: pixel format, e.g. MJPG; empty: OpenCV's choice.
        loop: video, images: begin again at the end.
        stale_after: periods without a new frame after which the camera is stale.
        frozen_after: bit-identical frames in a row after which it is frozen; 0: never.
        calibration: its intrinsics, or None.
    """

    name: str
    source: str
    observation: CameraSpec
    serial: str = ""
    path: str = ""
    index: int = -1
    width: int = 640
    height: int = 480
    fps: float = 30.0
    fourcc: str = ""
    loop: bool = True
    stale_after: int = 6
    frozen_after: int = 5
    calibration: Optional[Intrinsics] = None


def load_cameras(path: Path) -> List[CameraConfig]:
    """Cameras of a rig, in order. Raises ConfigError naming file, camera and field.

    Relative paths in the file are taken from its own folder.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(error.strerror or str(error), "mend the path", path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"no YAML ({problem})", "mend the file", path) from error
    entries = data.get("cameras") if isinstance(data, dict) and set(data) == {"cameras"} else None
    if not isinstance(entries, list) or not entries:
        fix = "begin it with `cameras:` and a list of `- name: ...`"
        raise ConfigError("lists no cameras", fix, path)
    cameras = [_camera(path, number + 1, entry) for number, entry in enumerate(entries)]
    names = [camera.name for camera in cameras]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two cameras are called {name}", "rename one", path)
    return cameras


def _whole(low: int) -> "Tuple[Callable[[Any], bool], str]":
    def valid(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= low

    return valid, f"use a whole number of {low} or more"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_name(value: Any) -> bool:
    return (
        _is_text(value)
        and re.match(r"[A-Za-z][A-Za-z0-9_]*\Z", value) is not None
        and value not in _RESERVED
    )


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value <= 1000


_TEXT = (_is_text, "give text, in quotes")
_CHECKS: "Dict[str, Tuple[Callable[[Any], bool], str]]" = {
    "name": (_is_name, f"use letters, digits and _; not {', '.join(_RESERVED)}"),
    "source": (lambda v: _is_text(v) and v in SOURCES, f"use {', '.join(SOURCES)}"),
    "serial": _TEXT,
    "path": _TEXT,
    "index": _whole(0),
    "width": _whole(1),
    "height": _whole(1),
    "fps": (_is_rate, "use a number from 1 to 1000"),
    "fourcc": (lambda v: _is_text(v) and len(v) == 4, "use four letters, e.g. MJPG"),
    "loop": (lambda v: isinstance(v, bool), "use true or false"),
    "stale_after": _whole(1),
    "frozen_after": _whole(0),
    "calibration": _TEXT,
    "observation": (lambda v: isinstance(v, dict), "give height, width and crop"),
}


def _camera(file: Path, number: int, entry: Any) -> CameraConfig:
    """One entry of the list."""
    if not isinstance(entry, dict):
        where = f"{file}, camera {number}"
        raise ConfigError("is no mapping", "write `field: value` lines", where)
    where = f"{file}, camera {entry.get('name', number)}"
    values = {"name": None, "source": None, **entry}
    for field, (valid, fix) in _CHECKS.items():
        if field in values and not valid(values[field]):
            raise ConfigError(f"{field} is {values[field]!r}", fix, where)
    bindings, special = SOURCES[values["source"]]
    known = (set(_CHECKS) - _SPECIAL) | set(bindings) | set(special)
    for field in values:
        if field not in known:
            raise ConfigError(
                f"source {values['source']} has no setting {field!r}",
                f"use {', '.join(sorted(known))}",
                where,
            )
    given = [field for field in bindings if field in values]
    if len(given) != 1:
        found = " and ".join(given) or "nothing"
        fix = f"give one of {', '.join(bindings)}"
        raise ConfigError(f"is bound by {found}", fix, where)
    if values["source"] in ("video", "images"):
        values["path"] = str(file.parent / values["path"])
    elif re.match(r"(/dev/)?video\d+\Z", values.get("path", "")):
        raise ConfigError(
            f"path is {values['path']!r}, a number that moves",
            "use a name in /dev/v4l/by-path, a serial, or index: N if any camera will do",
            where,
        )
    size = tuple(values.get(key, getattr(CameraConfig, key)) for key in ("height", "width"))
    values["observation"] = _observation(values["name"], values.get("observation", {}), size, where)
    if "calibration" in values:
        values["calibration"] = _calibration(file.parent / values["calibration"], size)
    return CameraConfig(**values)


def _observation(name: str, given: Dict[str, Any], size: Tuple[int, int], where: str) -> CameraSpec:
    """``{height: 128, width: 128, crop: [top, left, height, width]}``, each optional."""
    values = {"height": 128, "width": 128, "crop": None, **given}
    positive, _ = _whole(1)
    if len(values) != 3 or not (positive(values["height"]) and positive(values["width"])):
        fix = "give height and width in pixels, and crop"
        raise ConfigError(f"observation is {given}", fix, where)
    crop = values["crop"]
    if crop is None:
        return CameraSpec(name, values["height"], values["width"])
    natural, _ = _whole(0)
    if (
        not isinstance(crop, list)
        or len(crop) != 4
        or not all(natural(entry) for entry in crop)
        or not (0 < crop[2] <= size[0] - crop[0] and 0 < crop[3] <= size[1] - crop[1])
    ):
        fix = "give [top, left, height, width] within {}x{}".format(*size)
        raise ConfigError(f"crop is {crop}", fix, where)
    return CameraSpec(name, values["height"], values["width"], tuple(crop))


def _calibration(path: Path, size: Tuple[int, int]) -> Intrinsics:
    intrinsics = read_intrinsics(path)
    if (intrinsics.height, intrinsics.width) != size:
        raise ConfigError(
            "is for {}x{} images, the camera gives {}x{}".format(
                intrinsics.width, intrinsics.height, *size[::-1]
            ),
            "calibrate at the size that is used",
            path,
        )
    return intrinsics
