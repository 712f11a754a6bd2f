"""The checkpoint: one safetensors file, weights plus a JSON header. No pickle anywhere.

It holds everything that a policy server needs, see :class:`~ofrl_robot.policy.header.Header`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterator, Tuple

import safetensors
import safetensors.torch
import torch

from ofrl_robot import files
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.policy.header import Header

ACTOR, CRITIC = "actor.", "critic."  # prefixes of the weights' names
SELECTED = "selected.json"  # in a run folder: the checkpoint that the diagnosis chose
RUN_CONFIG = "config.json"  # in a run folder: the settings of the run
_KEY = "ofrl_checkpoint"


def save_checkpoint(path: Path, header: Header, weights: Dict[str, torch.Tensor]) -> None:
    """Write a checkpoint so that a reader sees the whole file or none.

    Args:
        path: file to write or replace.
        header: all that is not a weight.
        weights: by name ``<network>.<parameter>``, for the networks of the algorithm's
            ``checkpoint_networks()``: the averaged actor (ACTOR), and the critic (CRITIC), which
            only the action choice "max_q" reads.

    Raises:
        OSError, SafetensorError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    try:
        safetensors.torch.save_file(tensors, temporary, {_KEY: header.to_json()})
        temporary.chmod(0o644)  # safetensors makes it 0600, and robots run under other users
        files.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # gone already when all went well
            temporary.unlink()


def read_header(path: Path) -> Header:
    """Read the header of a checkpoint without its weights.

    Raises:
        CheckpointError: the file is missing, damaged, or not a checkpoint of this format.
    """
    with _opened(path) as file:
        return _header(file, path)


def load_checkpoint(path: Path) -> Tuple[Header, Dict[str, torch.Tensor]]:
    """Read the header and the weights of a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint of this format, or holds a
            weight that is NaN or infinite.
    """
    with _opened(path) as file:
        header = _header(file, path)
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise CheckpointError(
                f"weight {name!r:.80} holds NaN or infinity",
                "choose another checkpoint, or train again with lower learning rates",
                path,
            )
    return header, weights


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError("no such checkpoint file", "check the path", path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"truncated, or not a safetensors file ({error})", "train again", path
        ) from error


def _header(file: Any, path: Path) -> Header:
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise CheckpointError(
            "a safetensors file, but not an ofrl checkpoint",
            "give a run folder or its checkpoint",
            path,
        )
    return Header.from_json(text, path)


def part(weights: Dict[str, torch.Tensor], prefix: str) -> Dict[str, torch.Tensor]:
    """Return the weights of one network of a checkpoint: ACTOR, or CRITIC (empty for bc)."""
    return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}


def resolve_checkpoint(path: Path) -> Path:
    """Return the checkpoint file to deploy for a run folder, or ``path`` when it is a file.

    A run folder names it in ``selected.json``, written by the diagnosis: the policy server needs no
    training or workflow code to find it.

    Raises:
        CheckpointError: there is none, or it was made by another algorithm than the run.
    """
    if path.is_file():
        _require_algorithm_of_run(path)
        return path
    if not path.is_dir():
        raise CheckpointError("no such run folder or checkpoint file", "check the path", path)
    selected = path / SELECTED
    if not selected.is_file():
        raise CheckpointError(f"no {SELECTED} in it", f"run `ofrl diagnose {path}` first", path)
    try:
        name = files.read_json(selected)["file"]
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"file {name!r:.80} is outside the run folder")
        chosen = path / inside
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        reason = error.what if isinstance(error, ConfigError) else repr(error)
        raise CheckpointError(
            f"damaged ({reason:.200})", f"run `ofrl diagnose {path}` again", selected
        ) from error
    if chosen.is_file():
        _require_algorithm_of_run(chosen)
    return chosen


def _require_algorithm_of_run(path: Path) -> None:
    """Refuse a checkpoint in ``<run>/checkpoints/`` whose run trained another algorithm."""
    run_config = path.resolve().parent.parent / RUN_CONFIG
    if not run_config.is_file():
        return
    config = files.read_json(run_config)
    expected = config.get("algo") if isinstance(config, dict) else None
    found = read_header(path).algo
    if isinstance(expected, str) and expected != found:
        raise CheckpointError(
            f"holds a policy of {found!r:.40}, but its run trained {expected!r:.40}",
            "put back the run's own checkpoint, or deploy the file from another folder",
            path,
        )


def checkpoint_hash(path: Path) -> str:
    """Return the SHA-256 of the file: the policy's identity in every episode that it makes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
