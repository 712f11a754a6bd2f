"""Encoders: bytes in, one code per frame out, whatever the memory layout."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import Encoder, ImageEncoder, ResidualBlock
from ofrl_robot.specs import STATE

TRUNKS = ("strided", "cog", "cog_deep", "cog_small", "residual")
every = pytest.mark.parametrize("trunk", TRUNKS)


def make(trunk, shape=(24, 24, 3), **settings):
    """Encoder and images; "residual" is not a value of the setting but its own flag."""
    residual = trunk == "residual"
    config = NetConfig(encoder="strided" if residual else trunk, **{"latent": 20, **settings})
    torch.manual_seed(0)
    return ImageEncoder(config, shape, residual), torch.randint(
        0, 256, (3,) + shape, dtype=torch.uint8
    )


@every
@pytest.mark.parametrize("shape", [(48, 48, 3), (24, 40, 3)])
def test_bytes_in_finite_code_out(trunk, shape):
    encoder, images = make(trunk, shape)
    code = encoder(images)
    assert code.shape == (3, 20) and code.dtype == torch.float32 and encoder.size == 20
    assert torch.isfinite(code).all() and code.abs().max() <= 1.0
    assert (code.std(0) > 1e-3).any(), "all images have one code"


@every
def test_channels_last_changes_no_number(trunk):
    encoder, images = make(trunk)
    code = encoder(images)
    plain, _ = make(trunk)
    plain.to(memory_format=torch.contiguous_format)
    pixels = images.permute(0, 3, 1, 2).contiguous().float() / 255.0 - 0.5
    expected = plain.project(plain.trunk(pixels).flatten(1))
    torch.testing.assert_close(code, expected, rtol=1e-4, atol=1e-5)


@every
def test_frames_do_not_mix_and_a_strided_batch_is_read_right(trunk):
    encoder, images = make(trunk)
    code = encoder(images)
    one_by_one = torch.cat([encoder(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(code, one_by_one, rtol=1e-4, atol=1e-5)
    transposed = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # NCHW in memory
    torch.testing.assert_close(encoder(transposed), code, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("trunk", "features", "convolutions"),
    [
        ("strided", 4608, 3),
        ("cog", 2304, 3),
        ("cog_deep", 4608, 5),
        ("cog_small", 18432, 1),
        ("residual", 18432, 9),
    ],
)
def test_trunks_have_the_sizes_of_the_papers_at_48_pixels(trunk, features, convolutions):
    encoder, images = make(trunk, (48, 48, 3))
    assert encoder.features_size == features
    assert encoder.features(images).shape == (3, features)
    found = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(found) == convolutions


@every
def test_latent_0_takes_the_features_as_the_code(trunk):
    encoder, images = make(trunk, latent=0)
    assert encoder.size == encoder.features_size
    assert torch.equal(encoder(images), encoder.features(images))
    assert not any(isinstance(m, nn.Linear) for m in encoder.modules())


def test_a_residual_block_is_its_formula():
    torch.manual_seed(0)
    block, x = ResidualBlock(4, 2, dropout=0.0), torch.randn(2, 4, 5, 5)
    weights = list(block.parameters())
    assert [tuple(w.shape) for w in weights] == [(2, 4, 3, 3), (4, 2, 1, 1)]  # and no bias
    before = x.clone()
    inner = nn.functional.conv2d(x.relu(), weights[0], padding=1).relu()
    torch.testing.assert_close(block(x), x + nn.functional.conv2d(inner, weights[1]))
    assert torch.equal(x, before)  # the released code's first ReLU writes into the skip


@every
def test_dropout_drops_whole_channels_in_training_only(trunk):
    encoder, images = make(trunk, dropout=0.5)
    without, _ = make(trunk)
    assert not any("Dropout" in type(m).__name__ for m in without.modules())
    torch.manual_seed(1)
    one, two = encoder(images), encoder(images)
    assert not torch.equal(one, two)
    encoder.eval()
    assert torch.equal(encoder(images), without(images))  # same weights: off is absent
    dropping = [m for m in encoder.modules() if isinstance(m, nn.Dropout2d)]
    assert dropping and all(m.p == 0.5 for m in dropping)


def test_dropout_is_after_pooling_and_before_relu():
    trunk = make("cog", dropout=0.5)[0].trunk
    assert [type(m).__name__ for m in trunk][:4] == ["Conv2d", "MaxPool2d", "Dropout2d", "ReLU"]


def test_the_state_alone_is_its_own_code():
    encoder = Encoder(NetConfig(), {STATE: (5,)})
    x = torch.randn(4, 5)
    assert torch.equal(encoder({STATE: x}), x) and encoder.size == 5
    assert not list(encoder.parameters())


def test_one_camera_is_its_image_encoder_to_the_bit():
    plain, images = make("strided")
    torch.manual_seed(0)
    encoder = Encoder(NetConfig(latent=20), {"image": (24, 24, 3)})
    assert torch.equal(encoder({"image": images}), plain(images))
    for one, other in zip(encoder.parameters(), plain.parameters()):
        assert torch.equal(one, other)


def test_cameras_and_state_are_joined_in_their_order():
    shapes = {"front": (24, 24, 3), STATE: (2,), "wrist.left": (16, 32, 3)}
    torch.manual_seed(0)
    encoder = Encoder(NetConfig(latent=20), shapes)
    observations = {
        "wrist.left": torch.randint(0, 256, (3, 16, 32, 3), dtype=torch.uint8),
        "front": torch.randint(0, 256, (3, 24, 24, 3), dtype=torch.uint8),
        STATE: torch.randn(3, 2),
        "unused": torch.zeros(3, 1),
    }
    front, wrist = encoder.cameras
    expected = [front(observations["front"]), wrist(observations["wrist.left"])]
    code = encoder(observations)
    assert torch.equal(code, torch.cat([*expected, observations[STATE]], 1))
    assert encoder.size == code.shape[1] == 42


def test_the_state_is_normalised_and_a_constant_entry_is_left_finite():
    encoder = Encoder(NetConfig(), {STATE: (3,)})
    encoder.normalise_state(torch.tensor([1.0, -2.0, 5.0]), torch.tensor([2.0, 0.5, 0.0]))
    x = torch.tensor([[3.0, -1.0, 5.0], [1.0, -2.0, 6.0]])
    assert encoder({STATE: x}).tolist() == [[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]
    other = Encoder(NetConfig(), {STATE: (3,)})
    other.load_state_dict(encoder.state_dict())  # it is stored with the weights
    assert torch.equal(other({STATE: x}), encoder({STATE: x}))


def test_building_draws_as_many_random_numbers_with_and_without_dropout():
    """The dry pass that measures the trunk must not shift the weights that follow."""
    config = NetConfig(latent=8)
    states = []
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        ImageEncoder(dataclasses.replace(config, dropout=dropout), (24, 24, 3))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@every
@pytest.mark.parametrize("shape", [(48, 48, 3), (25, 41, 3)])
def test_the_size_of_the_features_is_worked_out_right(trunk, shape):
    encoder, images = make(trunk, shape)
    assert encoder.features(images).shape == (3, encoder.features_size)


@every
@pytest.mark.parametrize("shape", [(84, 84, 3), (128, 128, 3), (40, 128, 3)])
def test_features_do_not_grow_with_the_image(trunk, shape):
    at_48 = make(trunk, (48, 48, 3), latent=0)[0]
    encoder, images = make(trunk, shape, latent=0)
    rows = min(shape[0], 48)
    assert encoder.features_size == at_48.features_size * rows // 48
    features = encoder.features(images)
    assert features.shape == (3, encoder.features_size) and features.dtype == torch.float32
    assert sum(p.numel() for p in encoder.parameters()) == sum(
        p.numel() for p in at_48.parameters()
    )
    features.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())


@every
@pytest.mark.parametrize("size", [24, 48])
def test_small_images_are_encoded_as_without_the_setting(trunk, size):
    encoder, images = make(trunk, (size, size, 3))
    without, _ = make(trunk, (size, size, 3), largest_map=0)
    assert encoder._map is None and torch.equal(encoder(images), without(images))


def test_maps_of_large_images_are_means_over_areas():
    encoder, images = make("strided", (96, 96, 3), latent=0)
    plain, _ = make("strided", (96, 96, 3), latent=0, largest_map=0)
    maps = plain.features(images).view(3, 32, 24, 24)
    expected = maps.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(encoder.features(images), expected.flatten(1))
    assert plain.features_size == 4 * encoder.features_size


def test_networks_of_files_without_the_setting_are_what_they_were():
    written = dataclasses.asdict(NetConfig())
    assert NetConfig.from_dict(written) == NetConfig()
    del written["largest_map"]
    assert NetConfig.from_dict(written) == NetConfig(largest_map=0)


@pytest.mark.parametrize("trunk", ["strided", "cog"])
def test_two_cameras_of_84_pixels_and_the_state_are_one_small_code(trunk):
    shapes = {"front": (84, 84, 3), "wrist": (84, 84, 3), STATE: (7,)}
    encoder = Encoder(NetConfig(encoder=trunk), shapes)
    observations = {
        name: torch.randint(0, 256, (2, 84, 84, 3), dtype=torch.uint8)
        for name in ("front", "wrist")
    }
    code = encoder({**observations, STATE: torch.randn(2, 7)})
    assert code.shape == (2, 64 + 64 + 7) and encoder.size == 135
    moved = {**observations, "wrist": 255 - observations["wrist"], STATE: torch.randn(2, 7)}
    changed = (encoder(moved) != code).any(0)
    assert not changed[:64].any() and changed[64:128].any() and changed[128:].all()
