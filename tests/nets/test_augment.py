"""Random shift against a naive implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofrl_robot.nets.augment import random_shift


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
