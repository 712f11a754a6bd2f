"""Names, version and metadata of the episode file format.

One HDF5 file per episode, ``episode_000042.h5``. The layout is robomimic's (``data/demo_0``), the
semantics are Minari's: T actions, T+1 observations, terminals apart from timeouts. Every dataset
is described in ``docs/data_format.md``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Dict, List

from ofrl_robot import __version__
from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError, DatasetError, printable
from ofrl_robot.specs import ActionSpec, ObservationSpec

# since 2: specs name frames of reference; state and applied stamps
# since 3: limits, source and late per step; action_latency
FORMAT_VERSION = 3
GROUP = "data/demo_0"
SUFFIX = ".h5"

SUCCESS, FAILURE, UNKNOWN = 1, 0, -1  # unlabelled is never success
LABEL_NAMES = {SUCCESS: "success", FAILURE: "failure", UNKNOWN: "unknown"}
LABEL_FROM_SIMULATOR, LABEL_FROM_OPERATOR = "simulator", "operator"  # values of label_source
NO_LABEL_SOURCE = ""  # label_source of an episode without a label
ORIGINALS = "obs_jpeg"  # beside obs: the frames before crop and resize, never read by training
ACTION_STAMPS = ("action", "applied")  # timestamps with a row per action; others per observation

_SPECS = ("action_spec", "observation_spec")  # stored as JSON text
_JSON = ("policy", "environment", "pictures")  # dicts, stored as JSON text
_ADDED = {"pictures": "{}"}  # fields that older files of this version lack
_MAX_TEXT = 8192  # bytes of one text; HDF5 refuses attributes above 64 kB with an obscure error


@dataclasses.dataclass
class EpisodeMeta:
    """Attributes of one episode.

    Attributes:
        robot, task, operator: robot that moved, task that it was set, person in charge.
        action_spec, observation_spec: layout of actions and observations.
        control_rate_hz: nominal rate of the control loop.
        action_latency: seconds from a tick to its action, 0 where time stands still in between.
        actor: what produced the actions ("scripted", "policy", "converted", ...).
        policy: identity of the deployed policy (checkpoint file, step, SHA-256), or empty.
        environment: settings of the simulator and of the scripted policy, or empty.
        seed: seed of the episode's reset in simulation, -1 on hardware.
        measured_rate_hz: ticks per second of the recorded stamps (0 until finished).
        success: 1, 0 or -1 (unknown).
        label_source: who or what set ``success``, empty for nobody.
        abort_reason: why the episode ended early, or empty.
        pictures: how far its pictures are outside the policy's training data
            (``PictureReport.to_dict()``), or empty.
        calibration: name and date of the calibration in force, or empty.
        created: when the file was written, ISO 8601, UTC.
        recorded: when the episode was recorded, if the file was converted later and that is
            known; else empty.
        software_version: version of this package that wrote the file.
        format_version: version of the file format.

    Raises:
        ConfigError: a text cannot be stored: not valid Unicode, a NUL character, or too long.
    """

    robot: str
    task: str
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    control_rate_hz: float
    action_latency: float = 0.0
    actor: str = ""
    operator: str = ""
    policy: Dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: Dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = -1
    measured_rate_hz: float = 0.0
    success: int = UNKNOWN
    label_source: str = NO_LABEL_SOURCE
    abort_reason: str = ""
    pictures: Dict[str, Any] = dataclasses.field(default_factory=dict)
    calibration: str = ""
    created: str = ""
    recorded: str = ""
    software_version: str = __version__
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str):
                _require_storable(name, value)

    def to_attrs(self) -> Dict[str, Any]:
        """Return HDF5 attributes: numbers and texts as they are, specs and dicts as JSON text.

        Raises:
            ConfigError: a text that was set after the construction cannot be stored.
        """
        self.__post_init__()
        attrs: Dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _SPECS:
                value = json.dumps(value.to_dict())
            elif field.name in _JSON:
                value = json.dumps(value)
            attrs[field.name] = value
        return attrs

    @staticmethod
    def from_attrs(attrs: Dict[str, Any], where: object) -> "EpisodeMeta":
        """Return the metadata in HDF5 attributes: the inverse of :meth:`to_attrs`.

        Args:
            attrs: attributes by name, as h5py gives them.
            where: file to name in errors.

        Raises:
            DatasetError: the file is foreign, of another format version, or damaged.
        """
        if "format_version" not in attrs:
            raise DatasetError(
                "no format_version attribute, so not an ofrl episode",
                "convert it with `ofrl data convert` or remove it",
                where,
            )
        version = attrs["format_version"]
        if version != FORMAT_VERSION:
            found = printable(str(version))
            raise DatasetError(
                f"is in episode format {found:.20}, this version reads {FORMAT_VERSION}",
                "use the ofrl_robot that wrote it (see its software_version) or another folder",
                where,
            )
        try:
            return EpisodeMeta(**_values(attrs))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {ascii(str(error)):.200}"
        except ConfigError as error:
            reason = error.what
        raise DatasetError(
            f"damaged metadata ({reason})", "move the file out of the dataset", where
        )


def _require_storable(name: str, value: str) -> None:
    """Raise ConfigError unless HDF5 can store ``value`` as a text attribute."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} is {ascii(value):.100}, not valid Unicode", "use plain text"
        ) from error
    if "\0" in value:
        raise ConfigError(f"{name} has a NUL character", "use plain text")
    if size > _MAX_TEXT:
        raise ConfigError(f"{name} has {size} bytes, at most {_MAX_TEXT} are stored", "shorten it")


def _values(attrs: Dict[str, Any]) -> Dict[str, Any]:
    """Return the checked values of every field. Raises ValueError and others when one is bad."""
    values: Dict[str, Any] = {}
    for field in dataclasses.fields(EpisodeMeta):
        known = attrs if field.name in attrs else _ADDED  # KeyError for every other field
        values[field.name] = _value(known[field.name], field)
    for name in (*_SPECS, *_JSON):
        values[name] = json.loads(values[name])
        if not isinstance(values[name], dict):
            raise ValueError(f"{name} is not a dict")
    values["action_spec"] = ActionSpec.from_dict(values["action_spec"])
    values["observation_spec"] = ObservationSpec.from_dict(values["observation_spec"])
    if values["success"] not in LABEL_NAMES:
        raise ValueError(f"success is {values['success']!r}")
    if not is_rate(values["control_rate_hz"]):
        raise ValueError(f"control_rate_hz is {values['control_rate_hz']!r}")
    if not (math.isfinite(values["action_latency"]) and values["action_latency"] >= 0):
        raise ValueError(f"action_latency is {values['action_latency']!r}")
    return values


def _value(value: Any, field: "dataclasses.Field[Any]") -> Any:
    """Return an attribute as a Python value of the type of its field."""
    value = value.item() if hasattr(value, "item") else value
    numbers = {"int": (int,), "float": (int, float)}
    # specs and dicts are stored as text
    expected = numbers.get(str(field.type), (str,))
    if isinstance(value, bool) or not isinstance(value, expected):
        raise ValueError(f"{field.name} is {value!r}, {expected[-1].__name__} expected")
    return value


def is_rate(value: float) -> bool:
    """Return whether ``value`` can be a control rate: above 0 and finite."""
    return math.isfinite(value) and value > 0


def simulator_label(last: Tick) -> int:
    """Return the label of a simulated episode: success if its last step is rewarded.

    roboverse's collectors judge the last step too. A reward that was reached and then lost is a
    failure. An episode that did not reach its end is unknown.
    """
    if not last.last:
        return UNKNOWN
    return SUCCESS if last.reward > 0 else FAILURE


def episode_name(index: int) -> str:
    """Return the file name of episode number ``index``."""
    return f"episode_{index:06d}{SUFFIX}"


def episode_paths(folder: Path) -> List[Path]:
    """Return the finished episodes of a folder, in order of their numbers."""
    return sorted(folder.glob(f"episode_*{SUFFIX}"))
