"""Observation -> action, from one checkpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, TypeVar

import numpy as np
import torch
from torch import nn

from ofrl_robot.control.signals import POLICY, Tick
from ofrl_robot.errors import CheckpointError, SpecMismatchError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.critic import Critic
from ofrl_robot.nets.distributions import ActionDistribution
from ofrl_robot.policy.checkpoint import ACTOR, CRITIC, checkpoint_hash, load_checkpoint, part
from ofrl_robot.policy.choice import MAX_Q, MODE, require_choice
from ofrl_robot.specs import ActionSpec, ObservationSpec, require_same

CANDIDATES = 10  # actions that "max_q" draws, as MaxQSoftPolicy of BRAC's released code does

_Network = TypeVar("_Network", bound=nn.Module)


class Policy:
    """A deployed policy.

    Args:
        path: checkpoint file.
        choice: how an action is taken from the policy's distribution. "mode": its mode; "sample":
            drawn; "max_q": of CANDIDATES drawn ones the one with the largest Q, by the first
            critic of the checkpoint (Wu et al. 2019, arXiv 1911.11361: their code).

    Raises ConfigError for another choice, CheckpointError where the file is not a checkpoint, or
    holds no critic to choose by.
    """

    source = POLICY

    def __init__(self, path: Path, choice: str = MODE) -> None:
        self.path, self.choice = path, require_choice(choice)
        self.header, weights = load_checkpoint(path)
        nets, shape, action = self.header.nets, self.header.image_shape, self.header.action_spec
        self._actor = self._load(Actor(nets, shape, action), part(weights, ACTOR))
        self._critic: Optional[Critic] = None
        if choice == MAX_Q:
            critic_weights = part(weights, CRITIC)
            if not critic_weights:
                raise CheckpointError(
                    f"action choice max_q needs a critic, and this {self.header.algo} "
                    "checkpoint holds none",
                    "use action choice mode or sample",
                    path,
                )
            self._critic = self._load(Critic(nets, shape, action.size), critic_weights)
        self._generator = torch.Generator()

    def _load(self, network: _Network, weights: Dict[str, torch.Tensor]) -> _Network:
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"weights do not fit the networks in its header ({str(error).splitlines()[0]})",
                "train again",
                self.path,
            ) from error
        return network.eval()

    def identity(self) -> Dict[str, Any]:
        """What is written into every episode this policy makes."""
        return {
            "checkpoint": str(self.path),
            "sha256": checkpoint_hash(self.path),
            "algo": self.header.algo,
            "step": self.header.step,
            "action_choice": self.choice,
        }

    def require_specs(
        self, action: ActionSpec, observation: ObservationSpec, control_rate_hz: float, robot: str
    ) -> None:
        """Raise SpecMismatchError unless the robot speaks this policy's specs, at its rate."""
        fix = "deploy a checkpoint trained on this robot's data"
        if abs(control_rate_hz - self.header.control_rate_hz) > 0.01 * control_rate_hz:
            raise SpecMismatchError(
                f"control rate of {self.path} is {self.header.control_rate_hz:g} Hz "
                f"but that of {robot} is {control_rate_hz:g} Hz",
                fix,
            )
        require_same(self.header.action_spec, action, str(self.path), robot, fix)
        require_same(self.header.observation_spec, observation, str(self.path), robot, fix)

    def reset(self, seed: int) -> None:
        """Start an episode: fixes what a policy that draws its actions will draw."""
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
        images = frame.unsqueeze(0)
        return self._chosen(self._actor(images), images)[0].double().numpy()

    def _chosen(self, dist: ActionDistribution, images: torch.Tensor) -> torch.Tensor:
        """One action (1, A) for images (1, H, W, 3)."""
        if self.choice == MODE:
            return dist.mode
        if self._critic is None:
            return dist.sample(1, self._generator)[0][:, 0]
        actions = dist.sample(CANDIDATES, self._generator)[0]
        q = self._critic.q(self._critic.encode(images), actions)[0]  # (1, K), of the first critic
        return actions[0, q.argmax(-1)]
