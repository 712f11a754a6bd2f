"""Image encoders: uint8 NHWC frames in, one code per frame out. Each frame is encoded once."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.pooling import MaxPoolReLU


def _conv(
    channels: int, out: int, dropout: float, kernel: int = 3, stride: int = 1, pool: bool = False
) -> List[nn.Module]:
    """Convolution, 2x2 max-pooling, dropout of whole channels, ReLU: the papers' order."""
    layers: List[nn.Module] = [nn.Conv2d(channels, out, kernel, stride, padding=1)]
    if pool and not dropout:  # two modules: files know the weights that follow by their position
        return layers + [MaxPoolReLU(), nn.Identity()]
    if pool:
        layers.append(nn.MaxPool2d(2))
    if dropout:
        layers.append(nn.Dropout2d(dropout))
    return layers + [nn.ReLU()]


def strided_trunk(dropout: float) -> nn.Sequential:
    """Three 3x3 convolutions of 16, 32 and 32 channels, strides 2, 2, 1 (48 px -> 12 px)."""
    return nn.Sequential(
        *_conv(3, 16, dropout, stride=2), *_conv(16, 32, dropout, stride=2), *_conv(32, 32, dropout)
    )


def cog_trunk(dropout: float) -> nn.Sequential:
    """Three 3x3 convolutions of 16 channels, 2x2 max-pooling after the first two.

    The trunk of the COG (arXiv 2010.14500) and workflow (arXiv 2109.10813) code: 2304 features
    at 48 px.
    """
    return nn.Sequential(
        *_conv(3, 16, dropout, pool=True), *_conv(16, 16, dropout, pool=True),
        *_conv(16, 16, dropout),
    )  # fmt: skip


def cog_deep_trunk(dropout: float) -> nn.Sequential:
    """The papers' deeper net: five convolutions of 32 channels, pooling after the first two."""
    layers = _conv(3, 32, dropout, pool=True) + _conv(32, 32, dropout, pool=True)
    for _ in range(3):
        layers += _conv(32, 32, dropout)
    return nn.Sequential(*layers)


def cog_small_trunk(dropout: float) -> nn.Sequential:
    """The papers' smaller net: one convolution of 32 channels, pooled."""
    return nn.Sequential(*_conv(3, 32, dropout, pool=True))


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), no biases, no normalisation."""

    def __init__(self, channels: int, inner: int, dropout: float) -> None:
        super().__init__()
        drop: List[nn.Module] = [nn.Dropout2d(dropout)] if dropout else []
        self.branch = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, inner, 3, padding=1, bias=False), *drop,
            nn.ReLU(), nn.Conv2d(inner, channels, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


def residual_trunk(dropout: float) -> nn.Sequential:
    """The workflow paper's underfitting correction: two strided convolutions, one more, three
    residual blocks of 128 channels (48 px -> 12 px, 18 432 features)."""
    return nn.Sequential(
        *_conv(3, 64, dropout, 4, 2), *_conv(64, 128, dropout, 4, 2),
        nn.Conv2d(128, 128, 3, padding=1), *(ResidualBlock(128, 64, dropout) for _ in range(3)),
        nn.ReLU(),
    )  # fmt: skip


TRUNKS = {
    "strided": strided_trunk,
    "cog": cog_trunk,
    "cog_deep": cog_deep_trunk,
    "cog_small": cog_small_trunk,
    "residual": residual_trunk,
}


def pixels(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) of ``dtype`` in [-0.5, 0.5]; anything else as it is.

    What :class:`Encoder` does first. Done once for all networks that see the same images it is
    2 % of a CQL step less (measured with bfloat16 and 6 networks).
    """
    if images.dtype != torch.uint8:
        return images
    # a contiguous NHWC batch seen as NCHW *is* channels_last: no copy but the cast
    return images.permute(0, 3, 1, 2).float().mul_(1.0 / 255.0).sub_(0.5).to(dtype)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient in the memory layout of what it belongs to: flattening gave it another, and the
    ReLU before would then go through two layouts at once, 12 times as slowly."""
    return gradient.contiguous(memory_format=torch.channels_last)


class Encoder(nn.Module):
    """uint8 (B, H, W, 3), or :func:`pixels` of them, -> (B, size): trunk, then linear, LayerNorm
    and tanh to float32 unless ``config.latent`` is 0.

    Args:
        config: which trunk and how large a code.
        shape: (H, W, 3); or (D,) for float observations (B, D), which are their own code.
        residual: use the residual trunk instead of ``config.encoder``.

    Attributes:
        size: of the code. features_size: of the trunk's flat output.
    """

    def __init__(self, config: NetConfig, shape: Tuple[int, ...], residual: bool = False) -> None:
        super().__init__()
        self._images = len(shape) == 3
        self.project: nn.Module = nn.Identity()
        if not self._images:
            self.trunk: nn.Module = nn.Identity()
            self.size = self.features_size = shape[0]
            return
        self.trunk = TRUNKS["residual" if residual else config.encoder](config.dropout)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            height, width, channels = shape
            flat = self.trunk(torch.zeros(1, channels, height, width)).numel()
        self.size, self.features_size = config.latent or flat, flat
        if config.latent:
            self.project = nn.Sequential(
                nn.Linear(flat, config.latent), nn.LayerNorm(config.latent), nn.Tanh()
            )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu"))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Flat output of the trunk, (B, features_size)."""
        if not self._images:
            return images
        maps = self.trunk(pixels(images))
        if maps.requires_grad:
            maps.register_hook(_channels_last)
        return maps.flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.project(self.features(images))
