"""Image encoders: uint8 NHWC frames in, one code per frame out. Each frame is encoded once."""

from __future__ import annotations

from typing import Tuple

import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig


def strided_trunk() -> nn.Sequential:
    """Three 3x3 convolutions of 16, 32 and 32 channels, strides 2, 2, 1 (48 px -> 12 px)."""
    layers = []
    for channels, out, stride in ((3, 16, 2), (16, 32, 2), (32, 32, 1)):
        layers += [nn.Conv2d(channels, out, 3, stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def cog_trunk() -> nn.Sequential:
    """Three 3x3 convolutions of 16 channels, 2x2 max-pooling after the first two.

    The trunk of the COG (arXiv 2010.14500) and workflow (arXiv 2109.10813) code: 2304 features
    at 48 px.
    """
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


class Encoder(nn.Module):
    """uint8 (B, H, W, 3) -> float32 (B, latent): trunk, linear, LayerNorm, tanh.

    Args:
        config: which trunk and how large a code.
        image_shape: (H, W, 3).
    """

    def __init__(self, config: NetConfig, image_shape: Tuple[int, int, int]) -> None:
        super().__init__()
        self.trunk = {"strided": strided_trunk, "cog": cog_trunk}[config.encoder]()
        with torch.no_grad():
            height, width, channels = image_shape
            flat = self.trunk(torch.zeros(1, channels, height, width)).numel()
        self.project = nn.Sequential(
            nn.Linear(flat, config.latent), nn.LayerNorm(config.latent), nn.Tanh()
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu"))
                nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # a contiguous NHWC batch seen as NCHW *is* channels_last: no copy but the cast
        pixels = images.permute(0, 3, 1, 2).float().mul(1.0 / 255.0).sub(0.5)
        return self.project(self.trunk(pixels).flatten(1))
