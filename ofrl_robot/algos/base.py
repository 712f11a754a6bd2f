"""The parts that all algorithms share: an actor, its average, the batch, the update step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Dict, Iterable, Iterator, Optional, Tuple

import numpy as np
import torch
from torch import nn

from ofrl_robot.algos.configs.base import AlgoConfig
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.augment import Change, Photometric, random_shift
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic, split_norms
from ofrl_robot.nets.encoder import Encoder, pixels
from ofrl_robot.specs import ActionSpec


@dataclasses.dataclass
class Build:
    """Everything besides its own settings that an algorithm is built from.

    Attributes:
        nets: settings of the networks.
        shapes: shape of each observation by name, from ``ObservationSpec.shapes(observe)``.
        action: what an action is.
        device: where to compute.
        bf16: run convolutions and linear layers in bfloat16 (autocast); densities, targets,
            losses and optimiser state stay in float32.
        reward_range: least and greatest reward of the data, for the range of possible returns.
        state_stats: mean and standard deviation (D,) of the state in the data; None leaves the
            state as it is.
        behavior: policy read from the config's ``behavior_checkpoint``.
    """

    nets: NetConfig
    shapes: Dict[str, Tuple[int, ...]]
    action: ActionSpec
    device: torch.device
    bf16: bool = False
    reward_range: Tuple[float, float] = (0.0, 1.0)
    state_stats: Optional[Tuple[np.ndarray, np.ndarray]] = None
    behavior: Optional[Actor] = None

    def actor(self, nets: Optional[NetConfig] = None) -> Actor:
        """Return a new actor on the device that normalises the state by ``state_stats``."""
        actor = Actor(nets or self.nets, self.shapes, self.action)
        self._normalise_state(actor)
        return actor.to(self.device)

    def critic(self, nets: Optional[NetConfig] = None) -> Critic:
        """Return a new critic on the device that normalises the state by ``state_stats``."""
        critic = Critic(nets or self.nets, self.shapes, self.action.size)
        self._normalise_state(critic)
        return critic.to(self.device)

    def _normalise_state(self, network: nn.Module) -> None:
        if self.state_stats is None:
            return
        mean, std = (torch.as_tensor(values, dtype=torch.float32) for values in self.state_stats)
        for module in network.modules():
            if isinstance(module, Encoder):
                module.normalise_state(mean, std)


@dataclasses.dataclass
class Losses:
    """Result of one forward pass.

    Attributes:
        parts: scalar losses by the part that they train. Each reaches the parameters of its part
            only, so one backward pass of their sum equals a backward pass of each alone.
        metrics: detached scalars for the log, still on the device.
    """

    parts: Dict[str, torch.Tensor]
    metrics: Dict[str, torch.Tensor]

    @property
    def total(self) -> torch.Tensor:
        """Sum of all parts, for one backward pass."""
        return torch.stack([loss.float() for loss in self.parts.values()]).sum()

    def add(self, other: "Losses") -> None:
        """Add the parts and metrics of ``other``, in their order."""
        self.parts.update(other.parts)
        self.metrics.update(other.metrics)


class Algorithm(nn.Module):
    """Base of all algorithms; a subclass implements :meth:`losses`.

    This is a module, so that its ``state_dict`` holds everything that training changes besides the
    optimisers: a network, multiplier or buffer that is an attribute is saved and restored.

    Args:
        config: settings of the algorithm.
        build: everything else.

    Attributes:
        optimizer: one Adam; each part is a parameter group.
        step: gradient steps done.

    Raises:
        ConfigError: settings exclude each other.
    """

    def __init__(self, config: AlgoConfig, build: Build) -> None:
        super().__init__()
        config.check(build.nets)
        self.config = config
        self.device = build.device
        self.bf16 = build.bf16
        self.step = 0
        self._photometric = Photometric(
            brightness=config.brightness,
            contrast=config.contrast,
            color=config.color,
            illumination=config.illumination,
            blur=config.blur,
            noise=config.pixel_noise,
        )
        self.actor = build.actor()
        # eval: the actor that is probed and deployed has no dropout and no bottleneck noise
        self.average_actor = copy.deepcopy(self.actor).requires_grad_(False).eval()
        self.optimizer = adam(self.actor.parameters(), config.actor_lr)

    # -- hooks ----------------------------------------------------------------------------

    def losses(self, batch: Batch) -> Losses:
        """Return all losses of this step, computed with the same weights.

        Args:
            batch: on the device, prepared by :meth:`prepare`.
        """
        raise NotImplementedError

    @property
    def pretraining_steps(self) -> int:
        """Number of first steps that use :meth:`pretrain_losses` instead of :meth:`losses`."""
        return 0

    def pretrain_losses(self, batch: Batch) -> Losses:
        """Return the losses of a step of the pre-training phase, e.g. of a dynamics model.

        Its metrics must have the names of :meth:`losses`: they are columns of one table. Give 0 for
        a metric that is not computed yet.
        """
        raise NotImplementedError

    def train_network(self, network: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        """Train one more network: add its parameters to :attr:`optimizer` as a group of their own.

        A subclass makes the network an attribute in its ``__init__`` and calls this. A network
        with a schedule of its own gets an optimiser of its own by :func:`adam`, which
        :attr:`optimizers` must name.

        Args:
            network: any module of this algorithm.
            lr: Adam's learning rate (per step).
            weight_decay: Adam's L2 penalty, on all but gains and biases of LayerNorm.
        """
        norms, others = split_norms(network) if weight_decay else ([], network.parameters())
        self.optimizer.add_param_group({"params": others, "lr": lr, "weight_decay": weight_decay})
        if norms:
            self.optimizer.add_param_group({"params": norms, "lr": lr})

    def after_step(self) -> None:
        """Update what follows an optimiser step, e.g. target networks."""

    @property
    def validates_now(self) -> bool:
        """Whether :meth:`validated` is due after the last step; it is asked after every step."""
        return False

    def validation_metrics(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Return means over a held-out batch on the device, for :meth:`validated`."""
        return {}

    def validated(self, metrics: Dict[str, float]) -> None:
        """Take the means of :meth:`validation_metrics` over all held-out transitions.

        It is called in every process with the same numbers, outside of a CUDA graph, and only if
        the run holds episodes out.
        """

    def probe_metrics(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Return the scalars of :meth:`probe`; a subclass adds its own."""
        dist = self.average_actor(batch.observations)
        metrics = {}
        if dist.has_density:
            metrics["data_log_prob"] = dist.log_prob(batch.actions).mean()
        metrics["action_mse"] = (dist.mode - dist.canonical(batch.actions)).square().mean()
        return metrics

    # -- what the training loop asks -------------------------------------------------------

    @property
    def phase(self) -> str:
        """Key of what :meth:`update_on` computes at this step; a CUDA graph is valid for one."""
        return "pretrain" if self.step < self.pretraining_steps else "train"

    @property
    def optimizers(self) -> Dict[str, torch.optim.Optimizer]:
        """All optimisers by name, to save and restore."""
        return {"main": self.optimizer}

    @property
    def value_limits(self) -> Optional[Tuple[float, float]]:
        """Least and greatest possible return, None for an algorithm without values."""
        return None

    def checkpoint_networks(self) -> Dict[str, nn.Module]:
        """Return the networks that a checkpoint holds, by the prefix of their weights' names."""
        return {"actor": self.average_actor}

    # -- step -----------------------------------------------------------------------------

    def load(self, batch: Batch) -> Batch:
        """Return a batch of numpy arrays as tensors on the device; images stay uint8."""
        return batch.map(lambda array: torch.from_numpy(array).to(self.device))

    def prepare(self, batch: Batch, dtype: torch.dtype) -> Batch:
        """Augment each image, and cast it once for all networks.

        Image and next image are shifted each by itself, but get the same light and colours.

        Args:
            batch: on the device.
            dtype: of the images, which become (B, 3, H, W).
        """
        observations, next_observations = dict(batch.observations), dict(batch.next_observations)
        for name, images in batch.observations.items():
            if images.dtype == torch.uint8:
                change: Change = pixels
                if not self._photometric.off:
                    change = self._photometric.draw(images.shape, images.device)
                for each in (observations, next_observations):
                    each[name] = change(random_shift(each[name], self.config.shift), dtype)
        return dataclasses.replace(
            batch, observations=observations, next_observations=next_observations
        )

    def compute_losses(self, batch: Batch) -> Losses:
        """Prepare a batch and return the losses of this step, under autocast for bfloat16."""
        batch = self.prepare(batch, torch.bfloat16 if self.bf16 else torch.float32)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if self.step < self.pretraining_steps:
                return self.pretrain_losses(batch)
            return self.losses(batch)

    def forward(self, batch: Batch) -> Losses:
        """Return :meth:`compute_losses`; DistributedDataParallel calls it by this name."""
        return self.compute_losses(batch)

    def update(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Do one gradient step on a batch of numpy arrays; return :attr:`Losses.metrics`."""
        return self.update_on(self.load(batch))

    def update_on(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Do one gradient step on a batch on the device, without waiting for the device."""
        losses = self.compute_losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.finish_step()
        return losses.metrics

    def finish_step(self) -> None:
        """Step the optimiser and everything that follows the backward pass."""
        self.optimizer.step()
        self.after_step()
        polyak(self.average_actor, self.actor, self.config.actor_average)
        self.step += 1

    @torch.no_grad()
    def probe(self, batch: Batch) -> Dict[str, float]:
        """Return the means of this algorithm's probe metrics over a batch of numpy arrays.

        They use the averaged actor, float32, no augmentation and no dropout. Random numbers come
        from the global generator, which the caller seeds.
        """
        with evaluating(self):
            metrics = self.probe_metrics(self.load(batch))
        return {name: float(value) for name, value in metrics.items()}

    @torch.no_grad()
    def validate(self, batch: Batch) -> Dict[str, float]:
        """Return :meth:`validation_metrics` of a batch of numpy arrays, computed as a probe is."""
        with evaluating(self):
            metrics = self.validation_metrics(self.load(batch))
        return {name: float(value) for name, value in metrics.items()}


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return the Adam that every part uses: fused, with its step counts on the device."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move target to (1 - rate) target + rate source, all parameters in one call."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Give ``module`` no gradients inside the context (the critics in the actor's loss)."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch off dropout and bottleneck noise in ``module`` inside the context."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True
