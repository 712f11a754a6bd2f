"""The header of a checkpoint, checked before anything is built from it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from ofrl_robot import __version__
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.policy.pictures import PictureSummary
from ofrl_robot.specs import ActionSpec, ObservationSpec

FORMAT_VERSION = 3  # 1 held the actor alone; 2 knew one camera and no frames of reference

# Bounds of what a header may claim: a small hostile file must not make a reader allocate gigabytes.
MAX_HEADER_BYTES = 1 << 20
MAX_IMAGE_SIDE = 4096
MAX_ENTRIES = 4096  # of a state or an action
MAX_CAMERAS = 64

_TEXTS = (
    "algo",
    "task",
    "robot",
    "dataset",
    "dataset_fingerprint",
    "prior",
    "software_version",
)


@dataclasses.dataclass(frozen=True)
class Header:
    """Description of a checkpoint.

    Attributes:
        algo, algo_config, nets: algorithm name, its settings, network settings.
        observe: names of the observations that the policy reads, in order: cameras of
            ``observation_spec``, and ``specs.STATE``.
        control_rate_hz: rate of the data; deploying at another rate is refused.
        task, robot: what the data shows.
        dataset, dataset_fingerprint: folder name and SHA-256.
        step: gradient steps done.
        probe: metrics at that step.
        prior: folder name of the data of other tasks, empty without such data.
        environment: backend and realism of the data (``policy/origin.py``); empty in checkpoints
            of older versions.
        pictures: ``PictureSummary.to_dict()``; empty where there is none.
    """

    algo: str
    algo_config: Dict[str, Any]
    nets: NetConfig
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    observe: Tuple[str, ...]
    control_rate_hz: float
    task: str
    robot: str
    dataset: str
    dataset_fingerprint: str
    step: int
    probe: Dict[str, float] = dataclasses.field(default_factory=dict)
    prior: str = ""
    environment: Dict[str, str] = dataclasses.field(default_factory=dict)
    pictures: Dict[str, Any] = dataclasses.field(default_factory=dict)
    software_version: str = __version__
    format_version: int = FORMAT_VERSION

    @property
    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """Shape of each observation that the policy reads, by name: (H, W, 3), or (D,)."""
        return self.observation_spec.shapes(self.observe)

    def picture_summary(self) -> Optional[PictureSummary]:
        """Return what the checkpoint knows of its training pictures, None if it knows nothing."""
        return PictureSummary.from_dict(self.pictures) if self.pictures else None

    def to_json(self) -> str:
        """Return the header as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str, where: Path) -> "Header":
        """Read a header from JSON text.

        Args:
            text: of :meth:`to_json`.
            where: file that it was read from, for messages.

        Raises:
            CheckpointError: the header is damaged, of another format, or claims networks or
                observations of impossible sizes.
        """
        try:
            if len(text) > MAX_HEADER_BYTES:
                raise ValueError(f"it has {len(text)} bytes, at most {MAX_HEADER_BYTES} are read")
            data = json.loads(text)
            version = data.get("format_version")
            if version != FORMAT_VERSION:
                raise CheckpointError(
                    f"checkpoint format {version!r:.20}, but this version reads {FORMAT_VERSION}",
                    "train again, or use the ofrl_robot that wrote it",
                    where,
                )
            data["nets"] = NetConfig.from_dict(data["nets"])
            data["action_spec"] = ActionSpec.from_dict(data["action_spec"])
            data["observation_spec"] = ObservationSpec.from_dict(data["observation_spec"])
            data["observe"] = tuple(data["observe"])
            header = Header(**data)
            header._check()
        except (
            AttributeError,
            ConfigError,
            KeyError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
            # one printable line: the text comes from the file
            reason = "".join(c if c.isprintable() else " " for c in reason)
            raise CheckpointError(
                f"damaged header ({reason:.200})", "train again", where
            ) from error
        return header

    def _check(self) -> None:
        """Raise ValueError or ConfigError unless every value can be worked with."""
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is not a text")
        if not isinstance(self.algo_config, dict) or not isinstance(self.probe, dict):
            raise ValueError("algo_config or probe is not a table")
        if not all(_is_number(value) for value in self.probe.values()):
            raise ValueError("probe holds a value that is not a number")
        if not _is_number(self.step) or self.step != int(self.step) or self.step < 0:
            raise ValueError(f"step is {self.step!r:.40}")
        if not is_rate(self.control_rate_hz):
            raise ValueError(f"control_rate_hz is {self.control_rate_hz!r:.40}")
        texts = self.environment
        if not isinstance(texts, dict) or not all(isinstance(v, str) for v in texts.values()):
            raise ValueError("environment is not a table of texts")
        _check_action(self.action_spec)
        _check_observation(self.observation_spec)
        if not self.observe:
            raise ValueError("observe is empty")
        known = self.observation_spec.shapes(self.observe)  # ConfigError for an unknown name
        summary = self.picture_summary()
        if summary is not None and not set(summary.stages[0].light) <= set(known):
            raise ValueError("pictures describe a camera that the policy does not read")


def is_rate(value: Any) -> bool:
    """Return whether ``value`` is a rate: a finite number above 0."""
    return _is_number(value) and value > 0


def _is_number(value: Any) -> bool:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _check_action(spec: ActionSpec) -> None:
    lengths = {len(spec.names), len(spec.units), len(spec.scale)}
    if len(lengths) != 1 or not 1 <= spec.size <= MAX_ENTRIES:
        raise ValueError("action_spec has no, too many or unequal numbers of entries")
    if not all(isinstance(text, str) for text in (*spec.names, *spec.units, spec.frame)):
        raise ValueError("action_spec holds a name that is not a text")
    if not all(_is_number(value) for value in (*spec.scale, spec.gripper_threshold)):
        raise ValueError("action_spec holds a scale that is not a finite number")


def _check_observation(spec: ObservationSpec) -> None:
    if len(spec.cameras) > MAX_CAMERAS:
        raise ValueError(f"{len(spec.cameras)} cameras, at most {MAX_CAMERAS}")
    for camera in spec.cameras:
        for side in (camera.height, camera.width):
            if not isinstance(side, int) or not 1 <= side <= MAX_IMAGE_SIDE:
                raise ValueError(f"image side {side!r:.40} is not in 1 to {MAX_IMAGE_SIDE}")
    if len(spec.state_names) > MAX_ENTRIES:
        raise ValueError(f"state of {len(spec.state_names)} entries, at most {MAX_ENTRIES}")
    texts = (*spec.state_names, *spec.state_units, spec.state_frame)
    if not all(isinstance(text, str) for text in (*texts, *(c.name for c in spec.cameras))):
        raise ValueError("observation_spec holds a name that is not a text")
