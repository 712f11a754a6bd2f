"""Observation -> action, from one checkpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np
import torch

from ofrl_robot.control.signals import POLICY, Tick
from ofrl_robot.errors import CheckpointError, SpecMismatchError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.policy.checkpoint import checkpoint_hash, load_checkpoint
from ofrl_robot.specs import ActionSpec, ObservationSpec, require_same


class Policy:
    """A deployed policy.

    Args:
        path: checkpoint file.
        sample: draw from the policy instead of taking its mode.
    """

    source = POLICY

    def __init__(self, path: Path, sample: bool = False) -> None:
        self.path, self.sample = path, sample
        self.header, weights = load_checkpoint(path)
        self._actor = Actor(self.header.nets, self.header.image_shape, self.header.action_spec.size)
        try:
            self._actor.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                "weights do not fit the networks in its header ({})".format(
                    str(error).splitlines()[0]
                ),
                "train again",
                path,
            ) from error
        self._actor.eval()
        self._generator = torch.Generator()

    def identity(self) -> Dict[str, Any]:
        """What is written into every episode this policy makes."""
        return {
            "checkpoint": str(self.path),
            "sha256": checkpoint_hash(self.path),
            "algo": self.header.algo,
            "step": self.header.step,
            "sample": self.sample,
        }

    def require_specs(
        self, action: ActionSpec, observation: ObservationSpec, control_rate_hz: float, robot: str
    ) -> None:
        """Raise SpecMismatchError unless the robot speaks this policy's specs, at its rate."""
        fix = "deploy a checkpoint trained on this robot's data"
        if abs(control_rate_hz - self.header.control_rate_hz) > 0.01 * control_rate_hz:
            raise SpecMismatchError(
                "control rate of {} is {:g} Hz but that of {} is {:g} Hz".format(
                    self.path, self.header.control_rate_hz, robot, control_rate_hz
                ),
                fix,
            )
        require_same(self.header.action_spec, action, str(self.path), robot, fix)
        require_same(self.header.observation_spec, observation, str(self.path), robot, fix)

    def reset(self, seed: int) -> None:
        """Start an episode: fixes the samples that a sampling policy will draw."""
        self._generator.manual_seed(max(seed, 0))

    def warm_up(self) -> None:
        """Run once, so that the first real action is not the slow one."""
        blank = {self.header.camera: np.zeros(self.header.image_shape, np.uint8)}
        self.act(Tick(stamp_ns=0, step=0, images=blank, state=np.zeros(0)))

    @torch.inference_mode()
    def act(self, tick: Tick) -> np.ndarray:
        """Action float64 (A,) in (-1, 1) for the camera image of ``tick``."""
        # a copy: frames from a socket are read-only, which torch warns about
        frame = torch.from_numpy(np.array(tick.images[self.header.camera]))
        dist = self._actor(frame.unsqueeze(0))
        if not self.sample:
            return dist.mode[0].double().numpy()
        noise = torch.randn(dist.mean.shape, generator=self._generator)
        return torch.tanh(dist.mean + dist.log_std.exp() * noise)[0].double().numpy()
