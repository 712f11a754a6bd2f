"""Encode observations: one image encoder per camera, the state vector joined after them."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import nn
from torch.nn import functional

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.pooling import MaxPoolReLU
from ofrl_robot.specs import STATE


def _conv(
    channels: int, out: int, dropout: float, kernel: int = 3, stride: int = 1, pool: bool = False
) -> List[nn.Module]:
    """Return convolution, 2x2 max-pooling, dropout of whole channels, ReLU: the papers' order."""
    layers: List[nn.Module] = [nn.Conv2d(channels, out, kernel, stride, padding=1)]
    if pool and not dropout:  # two modules: checkpoints name later weights by their position
        return layers + [MaxPoolReLU(), nn.Identity()]
    if pool:
        layers.append(nn.MaxPool2d(2))
    if dropout:
        layers.append(nn.Dropout2d(dropout))
    return layers + [nn.ReLU()]


def strided_trunk(dropout: float) -> nn.Sequential:
    """Return three 3x3 convolutions of 16, 32, 32 channels, strides 2, 2, 1 (48 px -> 12 px)."""
    return nn.Sequential(
        *_conv(3, 16, dropout, stride=2), *_conv(16, 32, dropout, stride=2), *_conv(32, 32, dropout)
    )


def cog_trunk(dropout: float) -> nn.Sequential:
    """Return three 3x3 convolutions of 16 channels, 2x2 max-pooling after the first two.

    The trunk of the COG (arXiv 2010.14500) and workflow (arXiv 2109.10813) code: 2304 features
    at 48 px.
    """
    return nn.Sequential(
        *_conv(3, 16, dropout, pool=True),
        *_conv(16, 16, dropout, pool=True),
        *_conv(16, 16, dropout),
    )


def cog_deep_trunk(dropout: float) -> nn.Sequential:
    """Return the papers' deeper net: five convolutions of 32 channels, the first two pooled."""
    layers = _conv(3, 32, dropout, pool=True) + _conv(32, 32, dropout, pool=True)
    for _ in range(3):
        layers += _conv(32, 32, dropout)
    return nn.Sequential(*layers)


def cog_small_trunk(dropout: float) -> nn.Sequential:
    """Return the papers' smaller net: one convolution of 32 channels, pooled."""
    return nn.Sequential(*_conv(3, 32, dropout, pool=True))


class ResidualBlock(nn.Module):
    """Residual block x + conv1x1(relu(conv3x3(relu(x)))), no biases, no normalisation."""

    def __init__(self, channels: int, inner: int, dropout: float) -> None:
        super().__init__()
        drop: List[nn.Module] = [nn.Dropout2d(dropout)] if dropout else []
        self.branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, inner, 3, padding=1, bias=False),
            *drop,
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.branch(x)


def residual_trunk(dropout: float) -> nn.Sequential:
    """Return the workflow paper's underfitting correction (48 px -> 12 px, 18 432 features).

    Two strided convolutions, one more, three residual blocks of 128 channels.
    """
    return nn.Sequential(
        *_conv(3, 64, dropout, 4, 2),
        *_conv(64, 128, dropout, 4, 2),
        nn.Conv2d(128, 128, 3, padding=1),
        *(ResidualBlock(128, 64, dropout) for _ in range(3)),
        nn.ReLU(),
    )


TRUNKS = {
    "strided": strided_trunk,
    "cog": cog_trunk,
    "cog_deep": cog_deep_trunk,
    "cog_small": cog_small_trunk,
    "residual": residual_trunk,
}


def feature_shape(
    config: NetConfig, trunk: nn.Sequential, shape: Tuple[int, ...]
) -> Tuple[int, int, int]:
    """Return channels, height and width of the maps that an image encoder makes of (H, W, 3).

    Those of an image above ``config.largest_map`` are averaged down to what that size gives: at
    128 pixels a trunk alone would give 7 times as many features as at 48.
    """
    channels, *sides = _trunk_shape(trunk, shape)
    if config.largest_map:
        _, *most = _trunk_shape(trunk, (config.largest_map, config.largest_map, 3))
        sides = [min(side, max(limit, 1)) for side, limit in zip(sides, most)]
    return channels, sides[0], sides[1]


def _trunk_shape(trunk: nn.Sequential, shape: Tuple[int, ...]) -> Tuple[int, int, int]:
    """Return channels, height and width of what a trunk makes of an image.

    They are worked out, not tried: an image of 4096 pixels would take gigabytes.
    """
    height, width, channels = shape
    for layer in trunk:
        if isinstance(layer, nn.Conv2d):
            padding, kernel, stride = layer.padding, layer.kernel_size, layer.stride
            assert not isinstance(padding, str)
            height = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
            width = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
            channels = layer.out_channels
        elif isinstance(layer, (nn.MaxPool2d, MaxPoolReLU)):
            height, width = height // 2, width // 2
    return channels, height, width


def pixels(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Convert uint8 images (B, H, W, 3) to (B, 3, H, W) of ``dtype`` in [-0.5, 0.5].

    Tensors that are not uint8 are returned as they are. An encoder does this first; done once for
    all networks that see the same images it is 2 % of a CQL step less (measured with bfloat16 and
    6 networks).
    """
    if images.dtype != torch.uint8:
        return images
    # a contiguous NHWC batch seen as NCHW *is* channels_last: no copy but the cast
    return images.permute(0, 3, 1, 2).float().mul_(1.0 / 255.0).sub_(0.5).to(dtype)


def _channels_last(gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient in the memory layout of the feature maps.

    Flattening gave it another layout, and the ReLU before would then work on two layouts at once,
    12 times as slowly.
    """
    return gradient.contiguous(memory_format=torch.channels_last)


class ImageEncoder(nn.Module):
    """Encoder of one camera: trunk, then linear, LayerNorm and tanh unless ``latent`` is 0.

    The maps of large images are made smaller in between (:func:`feature_shape`).

    Args:
        config: which trunk, and the size of the code.
        shape: (H, W, 3).
        residual: use the residual trunk instead of ``config.encoder``.

    Attributes:
        size: entries of the code.
        features_size: entries of the flat maps.
    """

    def __init__(self, config: NetConfig, shape: Tuple[int, ...], residual: bool = False) -> None:
        super().__init__()
        self.project: nn.Module = nn.Identity()  # first: the order of modules is that of the draws
        self.trunk = TRUNKS["residual" if residual else config.encoder](config.dropout)
        channels, height, width = feature_shape(config, self.trunk, shape)
        self._map: Optional[Tuple[int, int]] = None
        if _trunk_shape(self.trunk, shape) != (channels, height, width):
            self._map = height, width
        flat = channels * height * width
        self.size = config.latent or flat
        self.features_size = flat
        if config.latent:
            self.project = nn.Sequential(
                nn.Linear(flat, config.latent), nn.LayerNorm(config.latent), nn.Tanh()
            )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu"))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the flat maps of the trunk, (B, features_size).

        Args:
            images: uint8 (B, H, W, 3), or :func:`pixels` of them.
        """
        maps = self.trunk(pixels(images))
        if self._map is not None:
            maps = functional.adaptive_avg_pool2d(maps, self._map)
        if maps.requires_grad:
            maps.register_hook(_channels_last)
        return maps.flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the code (B, size) of images uint8 (B, H, W, 3), or of their :func:`pixels`."""
        return self.project(self.features(images))


class Features(NamedTuple):
    """Outputs of the trunks for a batch of observations, before they become one code.

    Attributes:
        images: flat trunk output (B, F) of each camera.
        state: normalised state (B, D), None when the state is not observed.
    """

    images: Tuple[torch.Tensor, ...]
    state: Optional[torch.Tensor]


class Encoder(nn.Module):
    """Encoder of all observations: the cameras' codes and the normalised state, joined.

    Args:
        config: settings of the image encoders.
        shapes: shape of each observation by name: (H, W, 3) of a camera, (D,) of ``STATE``.
        residual: use the residual trunk instead of ``config.encoder``.

    Attributes:
        size: entries of the joined code.
        state_mean, state_std: float32 (D,) buffers, present when the state is observed. They are
            0 and 1 until :meth:`normalise_state` or a checkpoint sets them.
    """

    state_mean: torch.Tensor
    state_std: torch.Tensor

    def __init__(
        self, config: NetConfig, shapes: Dict[str, Tuple[int, ...]], residual: bool = False
    ) -> None:
        super().__init__()
        self._names = [name for name in shapes if name != STATE]
        # a list: a camera may have a name that a module cannot have
        self.cameras = nn.ModuleList(
            ImageEncoder(config, shapes[name], residual) for name in self._names
        )
        self._observes_state = STATE in shapes
        self.size = sum(encoder.size for encoder in self._encoders())
        if self._observes_state:
            (entries,) = shapes[STATE]
            self.register_buffer("state_mean", torch.zeros(entries))
            self.register_buffer("state_std", torch.ones(entries))
            self.size += entries

    def normalise_state(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set the mean and standard deviation (D,) by which the state is normalised.

        An entry that does not vary in the data (std below 1e-6) is divided by 1.
        """
        if self._observes_state:
            self.state_mean.copy_(mean)
            self.state_std.copy_(torch.where(std < 1e-6, torch.ones_like(std), std))

    def features(self, observations: Dict[str, torch.Tensor]) -> Features:
        """Return the trunks' outputs and the normalised state.

        Args:
            observations: by name: images uint8 (B, H, W, 3) or :func:`pixels` of them, the state
                float32 (B, D). Names that are not observed are ignored.
        """
        images = tuple(
            encoder.features(observations[name])
            for name, encoder in zip(self._names, self._encoders())
        )
        state = None
        if self._observes_state:
            state = (observations[STATE] - self.state_mean) / self.state_std
        return Features(images, state)

    def join(self, features: Features) -> torch.Tensor:
        """Return the code (B, size) of :meth:`features`."""
        codes = [encoder.project(x) for encoder, x in zip(self._encoders(), features.images)]
        if features.state is not None:
            codes.append(features.state)
        return codes[0] if len(codes) == 1 else torch.cat(codes, 1)

    def forward(self, observations: Dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the code (B, size) of the observations that :meth:`features` takes."""
        return self.join(self.features(observations))

    def _encoders(self) -> List[ImageEncoder]:
        return list(self.cameras)  # type: ignore[arg-type]
