"""Looks: lamp, colours and camera change pictures, by seed, and nothing else."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim import make, make_vec
from ofrl_robot.sim.looks import MOST_OBJECTS, TEXTURES, USUAL, Look, Looks
from ofrl_robot.sim.realism import PRESETS, Realism
from ofrl_robot.sim.simulation import task_camera
from ofrl_robot.sim.world import ASSETS, _displaced

TRAY = "Widow250PickTray-v0"
NAMES = [field.name for field in dataclasses.fields(Looks)]
STRONG = {field.name: field.metadata["most"] / 2.0 for field in dataclasses.fields(Looks)}
STRONG["table_texture"] = 1.0
ACTIONS = np.random.default_rng(3).uniform(-1.0, 1.0, (4, 8))


def look_of(seed=0, **settings) -> Look:
    return Looks(**settings).draw(np.random.default_rng(seed))


def rollout(realism, task=TRAY, seed=7):
    """Pictures, and all that physics says, of a short episode."""
    env = make(task, image_size=24, image_format="uint8", realism=realism)
    observation, info = env.reset(seed=seed)
    pictures, physics = [observation.pop("image")], []
    for action in ACTIONS:
        physics += [observation, env.ground_truth()]
        observation, *_ = env.step(action)
        pictures.append(observation.pop("image"))
    env.close()
    state = b"".join(value.tobytes() for part in physics for value in part.values())
    return np.array(pictures), state, info.get("look")


@pytest.fixture(scope="module")
def usual():
    return rollout("off")


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_changes_the_picture_and_nothing_else(name, usual):
    pictures, state, look = rollout(Realism(looks=Looks(**{name: STRONG[name]})))
    assert state == usual[1]
    assert (pictures != usual[0]).mean() > 0.01
    differs = [key for key, value in look.items() if value != look_of().to_dict()[key]]
    assert len(differs) == 1


def test_a_look_without_a_setting_is_the_usual_picture_to_the_bit(usual):
    env = make(TRAY, image_size=24, image_format="uint8")
    env.reset(seed=7)
    env.simulation.dress(look_of())
    assert np.array_equal(env.simulation.image(24), usual[0][0])
    env.close()


def test_a_seed_gives_the_same_looks_another_gives_others():
    first, again, other = (rollout("looks=harsh", seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(first[0], again[0]) and first[2] == again[2] != other[2]


def test_looks_last_for_one_episode():
    env = make(TRAY, image_size=24, image_format="uint8", realism="looks=harsh")
    first = env.reset(seed=1)[0]["image"]
    env.reset(seed=2)
    assert np.array_equal(env.reset(seed=1)[0]["image"], first)
    env.close()


def test_a_seed_draws_the_same_whatever_else_is_set():
    alone, together = (
        look_of(5, light_gradient=30.0),
        look_of(
            5,
            **STRONG,
        ),
    )
    assert together.light_slopes == pytest.approx(tuple(np.array(alone.light_slopes) * 64 / 30))
    assert look_of(5, camera_tilt_deg=5.0).camera_tilt == together.camera_tilt


def test_noise_does_not_depend_on_the_looks():
    plain, dressed = (
        rollout(Realism(position_noise_m=1e-3, image_noise=1.0, looks=looks))
        for looks in (USUAL, PRESETS["harsh"].looks)
    )
    assert plain[1] == dressed[1]


def test_what_is_drawn_stays_within_its_setting():
    looks = [look_of(seed, **STRONG) for seed in range(200)]
    spans = {
        "light_level": 0.5, "light_slopes": 64 / 255, "table_color": 0.25,
        "object_colors": 0.25, "camera_shift": 0.025, "camera_tilt": np.radians(5.0),
    }  # fmt: skip
    for name, span in spans.items():
        middle = 1.0 if name.startswith(("light_level", "table", "object")) else 0.0
        values = np.array([getattr(look, name) for look in looks]) - middle
        assert 0.95 * span < np.abs(values).max() <= span and abs(values.mean()) < 0.2 * span
    gains = np.array([look.gains for look in looks])
    assert np.abs(gains[:, 1] - 1.0).max() <= 0.25
    assert np.abs(gains[:, ::2] / gains[:, 1:2] - 1.0).max() <= 0.25
    lamp = np.array([look.light_direction for look in looks])
    cosines = lamp.sum(axis=1) / np.linalg.norm(lamp, axis=1) / np.sqrt(3.0)
    assert cosines.min() >= np.cos(np.radians(30.0)) - 1e-9 and cosines.min() < 0.9
    assert {look.table_texture for look in looks} == set(TEXTURES)
    assert np.shape(looks[0].object_colors) == (MOST_OBJECTS, 3)


def test_shade_runs_across_the_picture_and_gains_scale_it():
    gray = np.full((49, 49, 3), 100, np.uint8)
    look = dataclasses.replace(look_of(), light_slopes=(0.2, -0.1), gains=(1.0, 1.0, 0.5))
    shown = look.develop(gray).astype(int)
    assert shown[24, 24].tolist() == [100, 100, 50]
    assert shown[24, [0, 48], 0].tolist() == [80, 120]
    assert shown[[0, 48], 24, 0].tolist() == [110, 90]
    bright = dataclasses.replace(look_of(), gains=(9.0, 9.0, 9.0)).develop(gray)
    assert bright.min() == 255, "clipped, not wrapped round"


def test_the_camera_moves_along_its_own_axes():
    camera = task_camera()
    moved = _displaced(camera.view, dataclasses.replace(look_of(), camera_shift=(0.01, 0.0, 0.02)))
    views = [np.reshape(view, (4, 4), order="F") for view in (camera.view, moved)]
    eyes = [np.linalg.inv(view)[:3, 3] for view in views]
    right, back = views[0][0, :3], views[0][2, :3]
    np.testing.assert_allclose(eyes[1] - eyes[0], 0.01 * right + 0.02 * back, atol=1e-6)
    tilted = _displaced(camera.view, dataclasses.replace(look_of(), camera_tilt=(0.0, 0.0, 0.1)))
    turned = np.reshape(tilted, (4, 4), order="F")
    np.testing.assert_allclose(np.linalg.inv(turned)[:3, 3], eyes[0], atol=1e-6)
    assert turned[0, :3] @ right == pytest.approx(np.cos(0.1))


def test_no_colour_is_too_bright_for_the_renderer(usual):
    env = make(TRAY, image_size=24, image_format="uint8")
    env.reset(seed=7)
    full = ((1.5, 1.5, 1.5),) * MOST_OBJECTS
    look = dataclasses.replace(look_of(), table_color=(1.5, 1.5, 1.5), object_colors=full)
    for texture in ("", *TEXTURES):
        env.simulation.dress(dataclasses.replace(look, table_texture=texture))
        table = env.simulation.image(24)[20, 2:14].astype(int)
        assert (table > 0.8 * usual[0][0][20, 2:14]).all(), "wrapped bytes would be dark"
    env.close()


def test_every_texture_has_its_file():
    for name in TEXTURES:
        assert os.path.isfile(os.path.join(ASSETS, f"table_{name}.png"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-0.1, 1000.0, float("nan")])
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"{name} is .*use 0"):
        Looks(**{name: value})


def test_a_vector_of_environments_has_looks_too():
    envs = make_vec(TRAY, 2, processes=False, image_size=8, realism="looks=harsh")
    _, info = envs.reset(seed=0)
    assert info["look"]["light_level"][0] != info["look"]["light_level"][1]
    envs.step(np.zeros((2, 8)))
    envs.close()
