"""Load the policy that an algorithm is given, e.g. BRAC's behaviour policy."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.policy.checkpoint import ACTOR, load_checkpoint, part, resolve_checkpoint
from ofrl_robot.specs import require_same
from ofrl_robot.training.data import TrainData


def load_behavior(checkpoint: Optional[Path], data: TrainData) -> Optional[Actor]:
    """Return the actor of a checkpoint, or None if there is none to load.

    Args:
        checkpoint: run folder or checkpoint file, or None.
        data: of the run that uses it; specs and observations must match.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError, SpecMismatchError: it was trained on other observations or specs.
    """
    if checkpoint is None:
        return None
    path = resolve_checkpoint(checkpoint)
    header, weights = load_checkpoint(path)
    fix = "train the behaviour policy on data of the same specs"
    names = str(path), str(data.dataset.folder)
    require_same(header.action_spec, data.dataset.action_spec, *names, fix)
    require_same(header.observation_spec, data.dataset.observation_spec, *names, fix)
    observed = ",".join(data.buffer.shapes)
    if set(header.observe) != set(data.buffer.shapes):
        raise ConfigError(
            f"the behaviour policy observes {','.join(header.observe)}, this run {observed}",
            f"use --observe {','.join(header.observe)}",
            path,
        )
    actor = Actor(header.nets, header.shapes, header.action_spec)
    try:
        actor.load_state_dict(part(weights, ACTOR))
    except RuntimeError as error:
        raise CheckpointError(
            "weights do not fit the networks in its header", "train it again", path
        ) from error
    return actor
