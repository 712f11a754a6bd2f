"""Random shift against a naive implementation; light and colours against their formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofrl_robot.nets.augment import EVERY, Photometric, random_shift
from ofrl_robot.nets.encoder import pixels


def crops(image, pixels):
    """All crops of the edge-padded image, by offset."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    span = range(2 * pixels + 1)
    return {(i, j): padded[i : i + height, j : j + width] for i in span for j in span}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(7, 9, 3), (8, 8, 3), (6, 5, 1)])
@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_each_output_is_a_crop_of_its_own_padded_input_and_all_offsets_occur(shape, pixels):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    possible = (2 * pixels + 1) ** 2
    images = rng.integers(0, 256, (possible * 12,) + shape, dtype=np.uint8)
    source = torch.from_numpy(images)
    out = random_shift(source, pixels)
    assert out.dtype == torch.uint8 and out.shape == source.shape
    seen = []
    for image, shifted in zip(images, out.numpy()):
        found = [o for o, crop in crops(image, pixels).items() if np.array_equal(crop, shifted)]
        assert len(found) == 1, "not a crop of its own image"
        seen += found
    assert len(set(seen)) == possible
    rows, columns = np.bincount([o[0] for o in seen]), np.bincount([o[1] for o in seen])
    for counts in (rows, columns):  # uniform: within 5 sigma of a binomial
        expected = len(seen) / (2 * pixels + 1)
        assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_zero_is_the_identity():
    images = torch.randint(0, 256, (3, 5, 6, 3), dtype=torch.uint8)
    assert random_shift(images, 0) is images


def test_the_input_is_not_written_to_and_may_be_a_view():
    images = torch.randint(0, 256, (4, 12, 6, 3), dtype=torch.uint8)
    before, view = images.clone(), images[:, ::2]
    torch.manual_seed(1)
    from_view = random_shift(view, 2)
    torch.manual_seed(1)
    assert torch.equal(from_view, random_shift(view.contiguous(), 2))
    assert torch.equal(images, before)


IMAGES = torch.randint(0, 256, (64, 10, 14, 3), generator=torch.Generator().manual_seed(0)).byte()
CPU = torch.device("cpu")


def changed(images=IMAGES, dtype=torch.float32, seed=0, **settings):
    torch.manual_seed(seed)
    return Photometric(**settings).draw(images.shape, CPU)(images, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_change_of_nothing_is_the_cast_of_the_encoder(dtype):
    """Up to the rounding of another order of operations."""
    plain = pixels(IMAGES, dtype)
    out = changed(dtype=dtype)
    assert out.dtype == dtype and out.shape == plain.shape and out.stride() == plain.stride()
    assert torch.allclose(out.float(), plain.float(), atol=1e-6 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"brightness": 25.5}, lambda x, out: (out - x).amax((1, 2, 3)).abs() <= 0.1 + 1e-6),
        ({"contrast": 0.5}, lambda x, out: (out / x)[:, 0, 0, 0].sub(1).abs() <= 0.5 + 1e-5),
        (
            {"color": 0.5},
            lambda x, out: ((out + 0.5) / (x + 0.5))[:, :, 0, 0].sub(1).abs() <= 0.5 + 1e-5,
        ),
    ],
    ids=["brightness", "contrast", "color"],
)
def test_a_change_is_within_its_range_and_uses_most_of_it(settings, expected):
    images = torch.full((256, 4, 6, 3), 100, dtype=torch.uint8)
    x, out = pixels(images), changed(images, **settings)
    assert expected(x, out).all()
    spread = out.amax(0) - out.amin(0)
    assert (spread > 0.1).all()  # different from image to image
    assert (out == out[..., :1, :1]).all()  # the same all over one image
    same_channels = (out == out[:, :1]).all()
    assert same_channels != ("color" in settings)


def test_illumination_is_a_smooth_factor_that_scales_from_black():
    images = torch.full((256, 9, 9, 3), 100, dtype=torch.uint8)
    factor = (changed(images, illumination=0.2) + 0.5) / (100 / 255)
    y, x = np.mgrid[-1:1:9j, -1:1:9j]
    fields = np.stack([np.ones_like(x), x, y, x * y, x * x + y * y - 1]).reshape(5, -1).T
    for each in factor[:, 0].reshape(256, -1).numpy():
        coefficients, *_ = np.linalg.lstsq(fields, each, rcond=None)
        assert np.allclose(fields @ coefficients, each, atol=1e-5)
        assert abs(coefficients[0] - 1) < 1e-5 and (abs(coefficients[1:]) <= 0.2 + 1e-5).all()
    black = changed(torch.zeros((8, 9, 9, 3), dtype=torch.uint8), illumination=0.9)
    assert torch.allclose(black, torch.tensor(-0.5))


def test_blur_and_noise_change_one_image_in_so_many():
    plain = pixels(IMAGES)
    for first, settings in ((0, {"blur": 1.0}), (1, {"noise": 20.0})):
        out = changed(**settings)
        rows = (out - plain).abs().amax((1, 2, 3)) > 1e-5
        assert rows[first::EVERY].all() and rows.sum() == rows[first::EVERY].sum()
        assert out.isfinite().all() and (out.abs() <= 0.5).all()
    noise = (changed(noise=20.0) - plain)[1::EVERY]
    assert noise.abs().max() <= 20.0 / 255 + 1e-6


def test_blur_lowers_the_differences_between_neighbours():
    out, plain = changed(blur=1.0), pixels(IMAGES)
    before = plain.diff(dim=3).abs().mean((1, 2, 3))[::EVERY]
    assert (out.diff(dim=3).abs().mean((1, 2, 3))[::EVERY] < before).all()
    flat = torch.full((8, 5, 5, 3), 77, dtype=torch.uint8)
    assert torch.allclose(changed(flat, blur=1.0), pixels(flat), atol=1e-6)  # borders too


def test_the_strongest_change_stays_within_the_picture():
    out = changed(
        brightness=128.0, contrast=0.9, color=0.9, illumination=0.9, blur=1.0, noise=128.0
    )
    assert out.isfinite().all() and out.min() == -0.5 and out.max() == 0.5


def test_one_draw_changes_two_batches_alike():
    torch.manual_seed(3)
    change = Photometric(brightness=30.0, color=0.3, illumination=0.3).draw(IMAGES.shape, CPU)
    assert torch.equal(change(IMAGES, torch.float32), change(IMAGES, torch.float32))
    assert not torch.equal(changed(seed=1, color=0.3), changed(seed=2, color=0.3))
