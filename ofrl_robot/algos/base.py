"""What all algorithms share: an actor, its average, image preparation, the update step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Dict, Iterator, List, Tuple

import torch
from torch import nn

from ofrl_robot.algos.config import AlgoConfig
from ofrl_robot.data.sampler import Batch
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.augment import random_shift
from ofrl_robot.nets.config import NetConfig


class TensorBatch:
    """A :class:`~ofrl_robot.data.sampler.Batch` on the device; images stay uint8 until here."""

    def __init__(self, batch: Batch, device: torch.device, shift: int = 0) -> None:
        self.images = random_shift(torch.from_numpy(batch.images).to(device), shift)
        self.next_images = random_shift(torch.from_numpy(batch.next_images).to(device), shift)
        self.actions = torch.from_numpy(batch.actions).to(device)
        self.rewards = torch.from_numpy(batch.rewards).to(device)
        self.not_terminal = 1.0 - torch.from_numpy(batch.terminals).to(device).float()


@dataclasses.dataclass
class Losses:
    """Result of one forward pass.

    Attributes:
        objectives: (optimiser, scalar loss), backpropagated and stepped in this order; each
            loss reaches its own optimiser's parameters only.
        metrics: detached scalars for the log, still on the device.
    """

    objectives: List[Tuple[torch.optim.Optimizer, torch.Tensor]]
    metrics: Dict[str, torch.Tensor]


class Algorithm:
    """Base of all algorithms; subclasses give :meth:`losses`.

    Args:
        config, nets: settings.
        image_shape: (H, W, 3). action_size: A.
        device: where to compute.
        bf16: run convolutions and linear layers in bfloat16 (autocast); densities, targets,
            losses and optimiser state stay in float32.
    """

    def __init__(
        self,
        config: AlgoConfig,
        nets: NetConfig,
        image_shape: Tuple[int, int, int],
        action_size: int,
        device: torch.device,
        bf16: bool = False,
    ) -> None:
        self.config, self.device, self.bf16 = config, device, bf16
        self.step = 0
        self.actor = Actor(nets, image_shape, action_size).to(device)
        self.average_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(
            self.actor.parameters(), lr=config.actor_lr, fused=True
        )

    def losses(self, batch: TensorBatch) -> Losses:
        """All losses of this step, computed on the same weights."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called when all optimisers have stepped (target networks)."""

    def update(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """One gradient step; returns :attr:`Losses.metrics` (fetch them seldom)."""
        tensors = TensorBatch(batch, self.device, self.config.shift)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses = self.losses(tensors)
        for optimizer, loss in losses.objectives:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        self.after_step()
        polyak(self.average_actor, self.actor, self.config.actor_average)
        self.step += 1
        return losses.metrics

    @torch.no_grad()
    def probe(self, batch: Batch) -> Dict[str, float]:
        """Means over the batch of this algorithm's probe metrics: averaged actor, float32, no
        augmentation. Random numbers come from the global generator, which the caller fixes."""
        metrics = self.probe_metrics(TensorBatch(batch, self.device))
        return {name: float(value) for name, value in metrics.items()}

    def probe_metrics(self, batch: TensorBatch) -> Dict[str, torch.Tensor]:
        """Scalars of :meth:`probe`; subclasses add theirs."""
        dist = self.average_actor(batch.images)
        return {
            "data_log_prob": dist.log_prob(batch.actions).mean(),
            "action_mse": (dist.mode - batch.actions).square().mean(),
        }


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate source, all parameters in one call."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within this context ``module`` gets no gradients (the critics in the actor's loss)."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
