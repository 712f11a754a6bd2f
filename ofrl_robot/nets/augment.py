"""Random shift of uint8 images, once per image and step."""

from __future__ import annotations

import torch


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
