"""Augment training images: random shifts, and random light, camera and lens."""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable, Tuple

import torch

# One image in so many is blurred, another one is noisy. Rows of a batch are independent, so this
# is a probability. For all images, both would take a quarter of a CQL step on a CPU.
EVERY = 8

Change = Callable[[torch.Tensor, torch.dtype], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Photometric:
    """How much light and camera may vary between training images; 0 changes nothing.

    Every draw is uniform. Light scales from black: a lamp that is 10 % brighter adds 20 to a
    pixel of 200 and 2 to one of 20.

    Attributes:
        brightness: greatest value added to an image, of 255.
        contrast: greatest relative change of the distance from mid-grey.
        color: greatest relative gain of each colour channel by itself.
        illumination: greatest relative change of the light at the picture's edges, for each of
            four smooth fields: a slope in x, one in y, a twist and a vignette.
        blur: greatest weight, in [0, 1], of the image after a 3 x 3 binomial filter, for one
            image in four.
        noise: greatest half-range of uniform noise on every pixel, of 255, for one image in eight.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    color: float = 0.0
    illumination: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    @property
    def off(self) -> bool:
        """Whether nothing is changed."""
        return not any(dataclasses.astuple(self))

    def draw(self, shape: Tuple[int, ...], device: torch.device) -> Change:
        """Draw one change per image; it may then be applied to several batches.

        Both images of a transition get the same change: a lamp does not flicker between two steps.

        Args:
            shape: (B, H, W, 3) of the images.
            device: of the images.

        Returns:
            Function of uint8 images (B, H, W, 3) and a float type, which returns changed images
            (B, 3, H, W) of that type in [-0.5, 0.5], laid out as :func:`nets.encoder.pixels` does.
        """
        size, height, width, channels = shape

        def within(most: float, *dimensions: int) -> torch.Tensor:
            return (torch.rand(size, *dimensions, device=device) * 2.0 - 1.0) * most

        contrast = 1.0 + within(self.contrast, 1)
        gain = contrast * (1.0 + within(self.color, channels))
        light = torch.cat([torch.ones(size, 1, device=device), within(self.illumination, 4)], 1)
        # one matrix product gives the factor of every pixel and channel
        factors = torch.einsum("bc,bf->bcf", gain, light).flatten(1)
        scale = factors @ _basis(height, width, channels, device)
        offset = within(self.brightness / 255.0, 1) - 0.5 * contrast
        blur = torch.rand(-(-size // EVERY), 1, 1, device=device) * self.blur
        noise = torch.rand(len(range(1, size, EVERY)), 1, device=device) * (self.noise / 255.0)

        def change(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            values = torch.addcmul(offset, images.reshape(size, -1).float(), scale)
            if self.blur:
                rows = values[::EVERY].view(-1, height, width * channels)
                values[::EVERY] = torch.lerp(rows, _blurred(rows, channels), blur).flatten(1)
            if self.noise:
                values[1::EVERY] += noise * _uniform(values[1::EVERY])
            values = values.clamp_(-0.5, 0.5).to(dtype)
            return values.view(size, height, width, channels).permute(0, 3, 1, 2)

        return change


@functools.lru_cache(maxsize=8)
def _basis(height: int, width: int, channels: int, device: torch.device) -> torch.Tensor:
    """Return smooth fields (C * 5, H * W * C) of each channel, over 255.

    Within [-1, 1] they are 1, x, y, x y and a vignette; field f of channel c is row 5 c + f.
    """
    y = torch.linspace(-1.0, 1.0, height, device=device).view(-1, 1).expand(height, width)
    x = torch.linspace(-1.0, 1.0, width, device=device).view(1, -1).expand(height, width)
    vignette = x.square() + y.square() - 1.0
    fields = torch.stack([torch.ones_like(x), x, y, x * y, vignette]).view(5, -1) / 255.0
    basis = torch.einsum("fp,cd->cfpd", fields, torch.eye(channels, device=device))
    return basis.reshape(5 * channels, -1)


def _blurred(rows: torch.Tensor, channels: int) -> torch.Tensor:
    """Return images (B, H, W * C) after the 3 x 3 binomial filter, borders repeated."""
    padded = torch.cat([rows[:, :1], rows, rows[:, -1:]], 1)
    rows = (padded[:, :-2] + padded[:, 2:]).add_(rows, alpha=2.0).mul_(0.25)
    padded = torch.cat([rows[..., :channels], rows, rows[..., -channels:]], 2)
    return (padded[..., : -2 * channels] + padded[..., 2 * channels :]).add_(rows, alpha=2.0) * 0.25


def _uniform(like: torch.Tensor) -> torch.Tensor:
    """Return noise of Uniform[-1, 1) in steps of 1/128, in the shape of ``like``.

    The eight bytes of a random integer serve eight pixels: randn takes 10 times as long on a CPU.
    """
    words = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=like.device)
    noise = words.random_(-(2**63), None).view(torch.int8)[: like.numel()]
    return noise.view(like.shape).to(like.dtype).mul_(1.0 / 128.0)


def random_shift(images: torch.Tensor, pixels: int) -> torch.Tensor:
    """Shift each image by its own offset in [-pixels, pixels], repeating the border.

    DrQ's augmentation (arXiv 2004.13649): pad by edge replication, crop back at random. The
    crops are taken through a strided view of all windows, which copies each image once.

    Args:
        images: uint8 (B, H, W, C).
        pixels: greatest offset in each direction; 0 returns the images themselves.

    Returns:
        uint8 (B, H, W, C).
    """
    if pixels == 0:
        return images
    batch, height, width, channels = images.shape
    top, bottom = images[:, :1], images[:, -1:]
    padded = torch.cat([top] * pixels + [images] + [bottom] * pixels, 1)
    left, right = padded[:, :, :1], padded[:, :, -1:]
    padded = torch.cat([left] * pixels + [padded] + [right] * pixels, 2)
    frame, row, column, _ = padded.stride()
    windows = padded.as_strided(
        (batch, 2 * pixels + 1, 2 * pixels + 1, height, width * channels),
        (frame, row, column, row, 1),
    )
    offset = torch.randint(0, 2 * pixels + 1, (2, batch), device=images.device)
    index = torch.arange(batch, device=images.device)
    return windows[index, offset[0], offset[1]].reshape(images.shape)
