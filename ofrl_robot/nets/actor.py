"""The policy network: a tanh-squashed diagonal Gaussian over actions in (-1, 1)."""

from __future__ import annotations

import math
from typing import Tuple

import torch
from torch import nn
from torch.nn import functional

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import Encoder
from ofrl_robot.nets.mlp import mlp


def log_det_tanh(z: torch.Tensor) -> torch.Tensor:
    """log |d tanh(z) / dz| elementwise, exact: 2 (log 2 - z - softplus(-2 z))."""
    return 2.0 * (math.log(2.0) - z - functional.softplus(-2.0 * z))


def gaussian_log_prob(z: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """log N(z; mean, exp(log_std)^2) elementwise."""
    unit = (z - mean) * torch.exp(-log_std)
    return -0.5 * unit * unit - log_std - 0.5 * math.log(2.0 * math.pi)


class TanhGaussian:
    """a = tanh(z), z ~ N(mean, std^2), per action entry.

    Densities are of a, summed over entries. Shapes: parameters (B, A), samples (B, N, A),
    log-probabilities (B, N) or (B,).
    """

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    @property
    def mode(self) -> torch.Tensor:
        """tanh of the mean, (B, A): what a deterministic policy does."""
        return torch.tanh(self.mean)

    def sample(self, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """``count`` reparametrised samples per row: actions (B, N, A), log-density (B, N)."""
        mean, log_std = self.mean.unsqueeze(1), self.log_std.unsqueeze(1)
        noise = torch.randn(
            mean.shape[0], count, mean.shape[2], device=mean.device, dtype=mean.dtype
        )
        z = mean + log_std.exp() * noise
        log_prob = gaussian_log_prob(z, mean, log_std) - log_det_tanh(z)
        return torch.tanh(z), log_prob.sum(-1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """log-density (B,) of actions (B, A) strictly inside (-1, 1)."""
        z = torch.atanh(action)
        return (gaussian_log_prob(z, self.mean, self.log_std) - log_det_tanh(z)).sum(-1)


class Actor(nn.Module):
    """uint8 images (B, H, W, 3) -> :class:`TanhGaussian` over (B, action_size)."""

    def __init__(
        self, config: NetConfig, image_shape: Tuple[int, int, int], action_size: int
    ) -> None:
        super().__init__()
        self.encoder = Encoder(config, image_shape)
        self.head = mlp((config.latent,) + tuple(config.hidden) + (2 * action_size,))
        # small last layer: near-zero mean action and unit spread at the start
        nn.init.uniform_(self.head[-1].weight, -1e-3, 1e-3)
        nn.init.zeros_(self.head[-1].bias)
        self._clamp = (config.log_std_min, config.log_std_max)

    def forward(self, images: torch.Tensor) -> TanhGaussian:
        mean, log_std = self.head(self.encoder(images)).chunk(2, dim=-1)
        return TanhGaussian(mean, log_std.clamp(*self._clamp))
