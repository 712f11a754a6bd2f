"""Read the cameras of a rig from a YAML file and check them field by field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ofrl_robot.cameras.intrinsics import Intrinsics, read_intrinsics
from ofrl_robot.cameras.registry import CAMERAS, camera_kind
from ofrl_robot.cameras.settings import (
    CameraConfig,
    CameraKind,
    Setting,
    is_text,
    is_whole,
    text,
    whole,
)
from ofrl_robot.errors import ConfigError
from ofrl_robot.files import read_yaml
from ofrl_robot.specs import CameraSpec

_RESERVED = ("state", "obs", "action", "applied")  # keys of an episode file beside the cameras


def load_cameras(path: Path) -> List[CameraConfig]:
    """Read the cameras of a rig, in the order of the file.

    Relative paths in the file are taken from its own folder.

    Raises:
        ConfigError: naming file, camera and field.
    """
    data = read_yaml(path)
    entries = data.get("cameras") if isinstance(data, dict) and set(data) == {"cameras"} else None
    if not isinstance(entries, list) or not entries:
        fix = "begin it with `cameras:` and a list of `- name: ...`"
        raise ConfigError("lists no cameras", fix, path)
    cameras = [_camera(path, number, entry) for number, entry in enumerate(entries, 1)]
    names = [camera.name for camera in cameras]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two cameras are called {name}", "rename one", path)
    return cameras


def _is_name(value: Any) -> bool:
    return (
        is_text(value)
        and re.match(r"[A-Za-z][A-Za-z0-9_]*\Z", value) is not None
        and value not in _RESERVED
    )


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value <= 1000


_NAME = Setting(_is_name, f"use letters, digits and _; not {', '.join(_RESERVED)}")
# Settings of every kind of camera, beside name and source.
_COMMON: Dict[str, Setting] = {
    "width": whole(1, CameraConfig.width),
    "height": whole(1, CameraConfig.height),
    "fps": Setting(_is_rate, "use a number from 1 to 1000", CameraConfig.fps),
    "stale_after": whole(1, CameraConfig.stale_after),
    "frozen_after": whole(0, CameraConfig.frozen_after),
    "calibration": text(),
    "observation": Setting(lambda v: isinstance(v, dict), "give height, width and crop", {}),
}


def _camera(file: Path, number: int, entry: Any) -> CameraConfig:
    """Return the camera of one entry of the list."""
    if not isinstance(entry, dict):
        fix = "write `field: value` lines"
        raise ConfigError("is not a mapping", fix, f"{file}, camera {number}")
    where = f"{file}, camera {entry.get('name', number)}"
    name: Any = entry.get("name")
    source: Any = entry.get("source")
    _require("name", name, _NAME, where)
    known = CAMERAS.names()
    _require("source", source, Setting(lambda v: v in known, f"use {', '.join(known)}"), where)
    kind = camera_kind(source)
    values = {key: value for key, value in entry.items() if key not in ("name", "source")}
    settings = {**_COMMON, **kind.bindings, **kind.settings}
    for key in values:
        if key not in settings:
            raise ConfigError(
                f"source {source} has no setting {key!r}",
                f"use {', '.join(sorted({*settings, 'name', 'source'}))}",
                where,
            )
    for key, setting in settings.items():
        if key in values:
            _require(key, values[key], setting, where)
    common = {key: values.get(key, setting.default) for key, setting in _COMMON.items()}
    size = (common["height"], common["width"])
    common["observation"] = _observation(name, common["observation"], size, where)
    common["calibration"] = _calibration(file, common["calibration"], size)
    options = _options(file, kind, values, where)
    return CameraConfig(name, source, options=options, **common)


def _require(key: str, value: Any, setting: Setting, where: str) -> None:
    if not setting.valid(value):
        raise ConfigError(f"{key} is {value!r}", setting.fix, where)


def _options(file: Path, kind: CameraKind, values: Dict[str, Any], where: str) -> Dict[str, Any]:
    """Return the settings that only this kind has: the one that binds it, and all others."""
    given = [key for key in kind.bindings if key in values]
    if len(given) != min(1, len(kind.bindings)):
        found = " and ".join(given) or "nothing"
        raise ConfigError(f"is bound by {found}", f"give one of {', '.join(kind.bindings)}", where)
    options = {key: values.get(key, setting.default) for key, setting in kind.settings.items()}
    options.update({key: values[key] for key in given})
    for key, setting in {**kind.bindings, **kind.settings}.items():
        if setting.is_path and options.get(key) is not None:
            options[key] = str(file.parent / options[key])
    return options


def _observation(name: str, given: Dict[str, Any], size: Tuple[int, int], where: str) -> CameraSpec:
    """Read ``{height: 128, width: 128, crop: [top, left, height, width]}``, each optional."""
    values = {"height": 128, "width": 128, "crop": None, **given}
    if len(values) != 3 or not (is_whole(values["height"], 1) and is_whole(values["width"], 1)):
        fix = "give height and width in pixels, and crop"
        raise ConfigError(f"observation is {given}", fix, where)
    crop = values["crop"]
    if crop is None:
        return CameraSpec(name, values["height"], values["width"])
    if (
        not isinstance(crop, list)
        or len(crop) != 4
        or not all(is_whole(entry, 0) for entry in crop)
        or not (0 < crop[2] <= size[0] - crop[0] and 0 < crop[3] <= size[1] - crop[1])
    ):
        height, width = size
        fix = f"give [top, left, height, width] within {height}x{width}"
        raise ConfigError(f"crop is {crop}", fix, where)
    top, left, height, width = crop
    return CameraSpec(name, values["height"], values["width"], (top, left, height, width))


def _calibration(file: Path, given: Optional[str], size: Tuple[int, int]) -> Optional[Intrinsics]:
    if given is None:
        return None
    path = file.parent / given
    intrinsics = read_intrinsics(path)
    if (intrinsics.height, intrinsics.width) != size:
        height, width = size
        raise ConfigError(
            f"is for {intrinsics.width}x{intrinsics.height} images, "
            f"the camera gives {width}x{height}",
            "calibrate at the size that is used",
            path,
        )
    return intrinsics
