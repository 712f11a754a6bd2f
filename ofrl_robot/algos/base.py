"""What all algorithms share: an actor, its average, image preparation, the update step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Dict, Iterator, Tuple

import torch
from torch import nn

from ofrl_robot.algos.config import AlgoConfig
from ofrl_robot.data.replay.sampler import Batch
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.augment import random_shift
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import pixels
from ofrl_robot.specs import ActionSpec


@dataclasses.dataclass
class TensorBatch:
    """A :class:`~ofrl_robot.data.replay.sampler.Batch` on the device; images stay uint8 until here.

    Attributes:
        bootstrap: float32 (B,), what the value of ``next_images`` counts:
            discount ** steps, 0 after a terminal.
        Others as in Batch.
    """

    images: torch.Tensor
    next_images: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    bootstrap: torch.Tensor
    next_actions: torch.Tensor
    has_next_action: torch.Tensor

    @staticmethod
    def load(batch: Batch, device: torch.device, discount: float = 1.0) -> "TensorBatch":
        def tensor(array) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        alive = 1.0 - tensor(batch.terminals).float()
        return TensorBatch(
            images=tensor(batch.images),
            next_images=tensor(batch.next_images),
            actions=tensor(batch.actions),
            rewards=tensor(batch.rewards),
            bootstrap=alive * discount ** tensor(batch.steps).float(),
            next_actions=tensor(batch.next_actions),
            has_next_action=tensor(batch.has_next_action).float(),
        )


@dataclasses.dataclass
class Losses:
    """Result of one forward pass.

    Attributes:
        parts: scalar losses by what they train. Each reaches the parameters of that part only, so
            one backward pass of their sum is that of each alone.
        metrics: detached scalars for the log, still on the device.
    """

    parts: Dict[str, torch.Tensor]
    metrics: Dict[str, torch.Tensor]

    @property
    def total(self) -> torch.Tensor:
        return torch.stack([loss.float() for loss in self.parts.values()]).sum()


class Algorithm(nn.Module):
    """Base of all algorithms; subclasses give :meth:`losses`.

    A module, so that its ``state_dict`` is all that training changes besides the optimiser.

    Args:
        config, nets: settings; ConfigError where they exclude each other.
        shape: (H, W, 3), or (D,) for observations that are float vectors.
        action: what an action is.
        device: where to compute.
        bf16: run convolutions and linear layers in bfloat16 (autocast); densities, targets,
            losses and optimiser state stay in float32.

    Attributes:
        optimizer: one Adam for all parameters; each part is a parameter group.
        step: gradient steps done.
    """

    def __init__(
        self,
        config: AlgoConfig,
        nets: NetConfig,
        shape: Tuple[int, ...],
        action: ActionSpec,
        device: torch.device,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        config.check(nets)
        self.config, self.device, self.bf16 = config, device, bf16
        self.step = 0
        self.actor = Actor(nets, shape, action).to(device)
        # eval: what is probed and deployed drops nothing and takes its bottleneck's mean
        self.average_actor = copy.deepcopy(self.actor).requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(
            self.actor.parameters(),
            lr=config.actor_lr,
            fused=True,
            capturable=device.type == "cuda",
        )

    @property
    def discount(self) -> float:
        """Per control step; 1 where there is no value."""
        return 1.0

    def losses(self, batch: TensorBatch) -> Losses:
        """All losses of this step, computed on the same weights."""
        raise NotImplementedError

    def forward(self, batch: TensorBatch) -> Losses:
        """:meth:`losses` of the shifted images, under autocast."""
        batch = self.shifted(batch, torch.bfloat16 if self.bf16 else torch.float32)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.losses(batch)

    def after_step(self) -> None:
        """Called when the optimiser has stepped (target networks)."""

    def load(self, batch: Batch) -> TensorBatch:
        return TensorBatch.load(batch, self.device, self.discount)

    def shifted(self, batch: TensorBatch, dtype: torch.dtype) -> TensorBatch:
        """The batch with each frame shifted at random, cast once for all networks."""
        return dataclasses.replace(
            batch,
            images=pixels(random_shift(batch.images, self.config.shift), dtype),
            next_images=pixels(random_shift(batch.next_images, self.config.shift), dtype),
        )

    def update(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """One gradient step; returns :attr:`Losses.metrics` (fetch them seldom)."""
        return self.update_on(self.load(batch))

    def update_on(self, batch: TensorBatch) -> Dict[str, torch.Tensor]:
        """:meth:`update` of a batch that is on the device; nothing in it waits for the device."""
        losses = self(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.finish_step()
        return losses.metrics

    def finish_step(self) -> None:
        """What follows the backward pass."""
        self.optimizer.step()
        self.after_step()
        polyak(self.average_actor, self.actor, self.config.actor_average)
        self.step += 1

    @torch.no_grad()
    def probe(self, batch: Batch) -> Dict[str, float]:
        """Means over the batch of this algorithm's probe metrics: averaged actor, float32, no
        augmentation, nothing dropped. Random numbers come from the global generator, which the
        caller fixes."""
        with evaluating(self):
            metrics = self.probe_metrics(self.load(batch))
        return {name: float(value) for name, value in metrics.items()}

    def probe_metrics(self, batch: TensorBatch) -> Dict[str, torch.Tensor]:
        """Scalars of :meth:`probe`; subclasses add theirs."""
        dist = self.average_actor(batch.images)
        return {
            "data_log_prob": dist.log_prob(batch.actions).mean(),
            "action_mse": (dist.mode - dist.canonical(batch.actions)).square().mean(),
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


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within this context no network in ``module`` drops or samples anything of its own."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True
