"""The checkpoint: one safetensors file, weights plus a JSON header. No pickle anywhere.

The header holds all that a policy server needs: algorithm, networks, action and observation
specs with the image pipeline, control rate, dataset fingerprint, step and probe metrics.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Tuple

import safetensors
import safetensors.torch
import torch

from ofrl_robot import __version__
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.specs import ActionSpec, ObservationSpec

FORMAT_VERSION = 2  # 1 held the actor's weights only, without a prefix
ACTOR, CRITIC = "actor.", "critic."  # prefixes of the weights' names
SELECTED = "selected.json"  # in a run folder: the checkpoint that the diagnosis chose
_KEY = "ofrl_checkpoint"


@dataclasses.dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
        algo, algo_config, nets: algorithm name, its settings, network settings.
        camera: camera that the policy reads, one of ``observation_spec.cameras``.
        control_rate_hz: rate of the data; deploying at another rate is refused.
        task, robot: what the data was of.
        dataset, dataset_fingerprint: folder name and SHA-256. prior: folder name of the data of
            other tasks, empty where there was none.
        step: gradient steps done. probe: metrics at that step.
    """

    algo: str
    algo_config: Dict[str, Any]
    nets: NetConfig
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    camera: str
    control_rate_hz: float
    task: str
    robot: str
    dataset: str
    dataset_fingerprint: str
    step: int
    probe: Dict[str, float] = dataclasses.field(default_factory=dict)
    prior: str = ""
    software_version: str = __version__
    format_version: int = FORMAT_VERSION

    @property
    def image_shape(self) -> Tuple[int, int, int]:
        return next(c for c in self.observation_spec.cameras if c.name == self.camera).shape

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str, where: Path) -> "Header":
        try:
            data = json.loads(text)
            version = data.get("format_version")
            if version not in (1, FORMAT_VERSION):
                raise CheckpointError(
                    f"checkpoint format {version} but this version reads 1 to {FORMAT_VERSION}",
                    "use the ofrl_robot that wrote it",
                    where,
                )
            data["nets"] = NetConfig(**{**data["nets"], "hidden": tuple(data["nets"]["hidden"])})
            data["action_spec"] = ActionSpec.from_dict(data["action_spec"])
            data["observation_spec"] = ObservationSpec.from_dict(data["observation_spec"])
            if data["camera"] not in [c.name for c in data["observation_spec"].cameras]:
                raise ValueError(f"no camera {data['camera']!r}")
            return Header(**data)
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"damaged header ({type(error).__name__}: {error})", "train again", where
            ) from error


def save_checkpoint(path: Path, header: Header, weights: Dict[str, torch.Tensor]) -> None:
    """Write atomically: a reader sees the whole file or none.

    Args:
        weights: of the averaged actor (names begin with ACTOR) and, where the algorithm has one,
            of the critic (CRITIC), which only the action choice "max_q" reads.
    """
    temporary = path.with_suffix(".tmp")
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    safetensors.torch.save_file(tensors, str(temporary), {_KEY: header.to_json()})
    temporary.chmod(0o644)  # safetensors makes it 0600, and robots run under other users
    with open(str(temporary), "rb") as file:
        os.fsync(file.fileno())
    os.replace(str(temporary), str(path))


def load_checkpoint(path: Path) -> Tuple[Header, Dict[str, torch.Tensor]]:
    """Header and weights. Raises CheckpointError for anything that is not one of ours."""
    if not path.is_file():
        raise CheckpointError("no such checkpoint file", "check the path", path)
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"truncated, or not a safetensors file ({error})", "train again", path
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(
            "a safetensors file, but not an ofrl checkpoint",
            "give a run folder or its checkpoint",
            path,
        )
    header = Header.from_json(metadata[_KEY], path)
    if header.format_version == 1:
        weights = {ACTOR + name: tensor for name, tensor in weights.items()}
    return header, weights


def part(weights: Dict[str, torch.Tensor], prefix: str) -> Dict[str, torch.Tensor]:
    """The weights of one network of a checkpoint: ACTOR, CRITIC (empty for bc)."""
    return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint file to deploy for a run folder, or ``path`` itself when it is a file.

    A run folder says which in ``selected.json``, written by the diagnosis: the policy server
    needs no training or workflow code to find it. Raises CheckpointError when there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError("no such run folder or checkpoint file", "check the path", path)
    selected = path / SELECTED
    if not selected.is_file():
        raise CheckpointError(f"no {SELECTED} in it", f"run `ofrl diagnose {path}` first", path)
    try:
        return path / json.loads(selected.read_text())["file"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"damaged ({error})", f"run `ofrl diagnose {path}` again", selected
        ) from error


def checkpoint_hash(path: Path) -> str:
    """SHA-256 of the file: the policy's identity in every episode it makes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
