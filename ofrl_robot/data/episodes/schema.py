"""Names, version and metadata of the episode file format.

One HDF5 file per episode, ``episode_000042.h5``, robomimic-shaped (``data/demo_0``) with
Minari's semantics: T actions and T+1 observations, terminals apart from timeouts. All rows are
described in ``docs/data_format.md``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, List

from ofrl_robot import __version__
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import ActionSpec, ObservationSpec

FORMAT_VERSION = 1
GROUP = "data/demo_0"
SUFFIX = ".h5"

SUCCESS, FAILURE, UNKNOWN = 1, 0, -1  # unlabelled is never success
LABEL_NAMES = {SUCCESS: "success", FAILURE: "failure", UNKNOWN: "unknown"}
ORIGINALS = "obs_jpeg"  # beside obs: the frames before crop and resize, never read by training
ACTION_STAMPS = ("action", "applied")  # timestamps with a row per action; others per observation
_JSON = ("policy", "environment")  # dicts, stored as JSON text


@dataclasses.dataclass
class EpisodeMeta:
    """Attributes of one episode.

    Attributes:
        robot, task, operator: who did what with what.
        actor: what produced the actions ("scripted", "policy", "converted", ...).
        policy: identity of the deployed policy (checkpoint file, step, SHA-256), or empty.
        environment: settings of the simulator and of the scripted policy, or empty.
        seed: seed of the episode's reset in simulation, -1 on hardware.
        control_rate_hz: nominal rate of the control loop.
        measured_rate_hz: ticks per second of the recorded stamps (0 until finished).
        success: 1, 0 or -1 (unknown); label_source says who said so.
        abort_reason: why the episode ended early, or empty.
        calibration: name and date of the calibration in force, or empty.
    """

    robot: str
    task: str
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    control_rate_hz: float
    actor: str = ""
    operator: str = ""
    policy: Dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: Dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = -1
    measured_rate_hz: float = 0.0
    success: int = UNKNOWN
    label_source: str = ""
    abort_reason: str = ""
    calibration: str = ""
    created: str = ""
    software_version: str = __version__
    format_version: int = FORMAT_VERSION

    def to_attrs(self) -> Dict[str, Any]:
        """HDF5 attributes: scalars as they are, specs and dicts as JSON text."""
        attrs: Dict[str, Any] = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("action_spec", "observation_spec") + _JSON
        }
        attrs["action_spec"] = json.dumps(self.action_spec.to_dict())
        attrs["observation_spec"] = json.dumps(self.observation_spec.to_dict())
        attrs.update({name: json.dumps(getattr(self, name)) for name in _JSON})
        return attrs

    @staticmethod
    def from_attrs(attrs: Dict[str, Any], where: object) -> "EpisodeMeta":
        """Inverse of :meth:`to_attrs`. Raises DatasetError for foreign or newer files."""
        if "format_version" not in attrs:
            raise DatasetError(
                "no format_version attribute, so not an ofrl episode",
                "convert it with `ofrl data convert` or remove it",
                where,
            )
        version = attrs["format_version"]
        if version != FORMAT_VERSION:
            raise DatasetError(
                f"episode format {version} but this version reads {FORMAT_VERSION}",
                "use the ofrl_robot that wrote it (see its software_version) or another folder",
                where,
            )
        values: Dict[str, Any] = {}
        attrs = {"environment": "{}", **attrs}  # the first files of version 1 lack it
        try:
            for field in dataclasses.fields(EpisodeMeta):
                value = attrs[field.name]
                values[field.name] = value.item() if hasattr(value, "item") else value
            values["action_spec"] = ActionSpec.from_dict(json.loads(values["action_spec"]))
            values["observation_spec"] = ObservationSpec.from_dict(
                json.loads(values["observation_spec"])
            )
            values.update({name: json.loads(values[name]) for name in _JSON})
            if values["success"] not in LABEL_NAMES:
                raise ValueError(f"success is {values['success']!r}")
            for name in _JSON:
                if not isinstance(values[name], dict):
                    raise ValueError(f"{name} is not a dict")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"damaged metadata ({type(error).__name__}: {error})",
                "move the file out of the dataset",
                where,
            ) from error
        return EpisodeMeta(**values)


def episode_name(index: int) -> str:
    return f"episode_{index:06d}{SUFFIX}"


def episode_paths(folder: Path) -> List[Path]:
    """Finished episodes of a folder, in order of their numbers."""
    return sorted(folder.glob(f"episode_*{SUFFIX}"))
