"""The catalogue of objects: sizes, looks, and that they stand where they are put."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.items import CATALOGUE, catalogue
from ofrl_robot.sim.tasks.base import TABLE_HEIGHT
from ofrl_robot.sim.world import Camera, World

UPSIDE = (0.0, 0.0, 1.0, 0.0)
CAMERA = Camera((0.6, 0.2, -0.28), distance=0.29, yaw_deg=180.0, pitch_deg=-40.0)


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def test_every_item_fits_the_gripper_and_has_its_frame_at_the_centre_of_mass():
    assert len(CATALOGUE) == 35 and len({item.name for item in CATALOGUE}) == 35
    for item in CATALOGUE:
        width, length, height = item.high - item.low
        assert 0.01 < width < 0.0301, item.name  # the open fingers are 5 cm apart
        assert 0.01 < length < 0.0501 and 0.01 < height < 0.0501, item.name
        moment = sum(part.volume * np.array(part.position) for part in item.parts)
        np.testing.assert_allclose(moment, 0.0, atol=1e-9)


def test_every_item_stands_still_after_a_fall(world):
    for item in CATALOGUE:
        world.clear()
        body = world.add(item, (0.6, 0.2, -0.30), UPSIDE)
        world.step(50)
        position, quaternion = world.pose(body)
        rest = [0.6, 0.2, TABLE_HEIGHT - item.low[2]]
        np.testing.assert_allclose(position, rest, atol=2e-3, err_msg=item.name)
        np.testing.assert_allclose(np.abs(quaternion), UPSIDE, atol=0.05, err_msg=item.name)


def test_any_two_items_look_different_to_the_policy(world):
    """Mean difference over the pixels that either covers; the closest two have 47 of 255."""
    world.clear()
    empty = CAMERA.render(world, 48).astype(int)
    images = []
    for item in CATALOGUE:
        world.clear()
        world.add(item, (0.62, 0.22, TABLE_HEIGHT - item.low[2]), UPSIDE)
        images.append(CAMERA.render(world, 48).astype(int))
    covers = [(image != empty).any(axis=2) for image in images]
    assert min(cover.sum() for cover in covers) >= 15
    for one, other in itertools.combinations(range(len(CATALOGUE)), 2):
        either = covers[one] | covers[other]
        difference = np.abs(images[one] - images[other])[either].mean()
        assert difference > 40, (CATALOGUE[one].name, CATALOGUE[other].name)


def test_catalogue_takes_from_the_front_and_refuses_what_it_does_not_have():
    assert catalogue(5) == CATALOGUE[:5] and catalogue(35) == CATALOGUE
    for count in (0, -1, 36):
        with pytest.raises(ConfigError, match="1..35"):
            catalogue(count)
