"""Encoders: bytes in, one code per frame out, whatever the memory layout."""

from __future__ import annotations

import pytest
import torch

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import Encoder

SIZES = pytest.mark.parametrize("size", [48, 64])
TRUNKS = pytest.mark.parametrize("trunk", ["strided", "cog"])


def make(trunk, size):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (5, size, size, 3), dtype=torch.uint8)
    return Encoder(NetConfig(encoder=trunk, latent=20), (size, size, 3)), images


@TRUNKS
@SIZES
def test_bytes_in_finite_code_out(trunk, size):
    encoder, images = make(trunk, size)
    code = encoder(images)
    assert code.shape == (5, 20) and code.dtype == torch.float32
    assert torch.isfinite(code).all() and code.abs().max() <= 1.0
    assert (code.std(0) > 1e-3).any(), "all images have one code"


@TRUNKS
@SIZES
def test_channels_last_changes_no_number(trunk, size):
    encoder, images = make(trunk, size)
    code = encoder(images)
    plain = Encoder(NetConfig(encoder=trunk, latent=20), (size, size, 3))
    plain.load_state_dict(encoder.state_dict())
    plain.to(memory_format=torch.contiguous_format)
    pixels = images.permute(0, 3, 1, 2).contiguous().float() / 255.0 - 0.5
    expected = plain.project(plain.trunk(pixels).flatten(1))
    torch.testing.assert_close(code, expected, rtol=1e-4, atol=1e-5)


@TRUNKS
def test_frames_do_not_mix_and_a_strided_batch_is_read_right(trunk):
    encoder, images = make(trunk, 48)
    code = encoder(images)
    one_by_one = torch.cat([encoder(images[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(code, one_by_one, rtol=1e-4, atol=1e-5)
    transposed = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # NCHW in memory
    torch.testing.assert_close(encoder(transposed), code, rtol=1e-4, atol=1e-5)


def test_cog_trunk_has_the_papers_2304_features_at_48_pixels():
    encoder, _ = make("cog", 48)
    assert encoder.project[0].in_features == 2304


@TRUNKS
def test_oblong_images_are_fine(trunk):
    encoder = Encoder(NetConfig(encoder=trunk, latent=20), (48, 64, 3))
    assert encoder(torch.zeros(2, 48, 64, 3, dtype=torch.uint8)).shape == (2, 20)
