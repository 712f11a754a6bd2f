"""Save and restore everything that a run needs to resume exactly, in one safetensors file.

It holds the weights, the optimisers' moments and torch's random state as tensors, and as JSON the
step, the sampler's position and what must be the same to resume: config, data, software. No
pickle. It is replaced at every checkpoint, after everything else: whatever a killed run wrote after
it can be deleted and will be written again, the same to the bit on a CPU.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, Optional

import safetensors
import safetensors.torch
import torch

from ofrl_robot import __version__, files
from ofrl_robot.errors import CheckpointError, DatasetError
from ofrl_robot.training.learner import Learner

STATE = "state.safetensors"  # in a run folder
FORMAT_VERSION = 1
_KEY = "ofrl_state"
_WEIGHTS, _OPTIMIZER, _RANDOM = "algorithm.", "optimizer.", "random."
_AGAIN = "train again under another --name"


@dataclasses.dataclass(frozen=True)
class StateHeader:
    """JSON part.

    Attributes:
        step: gradient steps done.
        config: of the run.
        data: fingerprint of what it draws from.
        sampler: of :meth:`~ofrl_robot.data.replay.sampler.MixedSampler.state`.
        software_version, torch_version: that wrote it.
        format_version: of this file.
    """

    step: int
    config: Dict[str, Any]
    data: str
    sampler: Dict[str, Any]
    software_version: str = __version__
    torch_version: str = torch.__version__
    format_version: int = FORMAT_VERSION


@dataclasses.dataclass(frozen=True)
class State:
    """A state file that was read.

    Attributes:
        path: of the file.
        header: its JSON part.
        tensors: by name.
    """

    path: Path
    header: StateHeader
    tensors: Dict[str, torch.Tensor]

    def restore(self, learner: Learner) -> None:
        """Bring ``learner``, newly made with the same config, to the step of this state.

        Raises:
            DatasetError: its data is not what it was.
            CheckpointError: the tensors do not fit.
        """
        if learner.data.fingerprint != self.header.data:
            raise DatasetError(
                "the data changed since the run began",
                f"restore it, or {_AGAIN}",
                learner.config.dataset,
            )
        algorithm = learner.algorithm
        try:
            algorithm.load_state_dict(self._part(_WEIGHTS))
            for name, optimizer in algorithm.optimizers.items():
                _fill(optimizer, self._part(f"{_OPTIMIZER}{name}."))
            learner.sampler.restore(self.header.sampler)
            set_random_state(self._part(_RANDOM), algorithm.device)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"does not fit this run ({' '.join(str(error).split())[:200]})",
                _AGAIN,
                self.path,
            ) from error
        algorithm.step = self.header.step

    def _part(self, prefix: str) -> Dict[str, torch.Tensor]:
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}


def tensors_of(learner: Learner) -> Dict[str, torch.Tensor]:
    """Return all tensors of the state, on the CPU and contiguous."""
    algorithm = learner.algorithm
    tensors = {_WEIGHTS + k: v for k, v in algorithm.state_dict().items()}
    for name, optimizer in algorithm.optimizers.items():
        for number, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"{_OPTIMIZER}{name}.{number}.{key}"] = value
    tensors.update({_RANDOM + k: v for k, v in random_state(algorithm.device).items()})
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def save_state(folder: Path, learner: Learner) -> None:
    """Replace the state file by ``learner``'s state. Raises OSError or SafetensorError."""
    header = StateHeader(
        step=learner.step,
        config=learner.config.to_dict(),
        data=learner.data.fingerprint,
        sampler=learner.sampler.state(),
    )
    temporary = folder / f"{STATE}.tmp"
    metadata = {_KEY: json.dumps(dataclasses.asdict(header))}
    safetensors.torch.save_file(tensors_of(learner), temporary, metadata)
    files.replace(temporary, folder / STATE)


def read_state(folder: Path) -> Optional[State]:
    """Return the state of a run, None if it has none yet.

    Raises:
        CheckpointError: it is damaged, or of another format or software version.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = _header((file.metadata() or {}).get(_KEY, "{}"), path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"damaged ({error})", _AGAIN, path) from error
    return State(path, header, tensors)


def _header(text: str, path: Path) -> StateHeader:
    data = json.loads(text)
    for name, expected in (("format", FORMAT_VERSION), ("software", __version__)):
        found = data.get(f"{name}_version")
        if found != expected:
            raise CheckpointError(
                f"state of {name} version {found}, this is {expected}",
                f"resume with the ofrl_robot that wrote it, or {_AGAIN}",
                path,
            )
    return StateHeader(**data)


def random_state(device: torch.device) -> Dict[str, torch.Tensor]:
    """Return the state of torch's global RNGs (CPU, and CUDA if used)."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what :func:`random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _fill(optimizer: torch.optim.Optimizer, tensors: Dict[str, torch.Tensor]) -> None:
    """Set moments and counts of an optimiser with the same parameter groups as the saved one."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: Dict[int, Dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        like = parameters[int(number)]
        if tensor.shape == like.shape:  # in its memory layout (channels last), as Adam makes them
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
