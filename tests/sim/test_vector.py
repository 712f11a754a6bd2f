"""Several environments behind gymnasium's vector API."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest

from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.sim import make, make_vec
from ofrl_robot.sim.env import WidowXEnv

TASK = "Widow250SingleObjGrasp-v0"


@pytest.fixture
def vec():
    """make_vec; what it made is closed, and then no process of it is left."""
    made = []

    def build(*args, **kwargs):
        made.append(make_vec(*args, **kwargs))
        return made[-1]

    yield build
    for env in made:
        env.close()
        env.close()  # a second time does nothing
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [True, False])
def test_each_is_the_single_environment_of_its_seed(vec, processes):
    options = dict(image_size=12, image_format="uint8", realism="mild")
    vector = vec(TASK, 2, processes=processes, **options)
    singles = [make(TASK, **options) for _ in range(2)]
    rng = np.random.default_rng(0)
    observations, _ = vector.reset(seed=5)
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    for _ in range(4):
        for i in range(2):
            for key, value in expected[i].items():
                assert np.array_equal(observations[key][i], value), key
        actions = rng.uniform(-1.0, 1.0, (2, 8))
        observations, rewards, _, _, infos = vector.step(actions)
        expected = [env.step(action)[0] for env, action in zip(singles, actions)]
    assert observations["image"].shape == (2, 12, 12, 3)
    assert observations["image"].dtype == np.uint8 and rewards.shape == (2,)
    assert infos["image_age_s"].shape == (2,)
    for env in singles:
        env.close()


def test_the_step_after_the_last_resets_and_ignores_the_action(vec):
    vector = vec(TASK, 1, processes=False, image_size=8)
    single = make(TASK, image_size=8)
    vector.reset(seed=3)
    single.reset(seed=3)
    for step in range(1, 26):
        truncated = vector.step(np.zeros((1, 8)))[3]
        single.step(np.zeros(8))
        assert truncated.tolist() == [step == 25]
    observations, rewards, _, truncated, _ = vector.step(np.ones((1, 8)))
    assert not truncated.any() and rewards.tolist() == [0.0]
    assert np.array_equal(observations["state"][0], single.reset()[0]["state"])
    single.close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((TASK, 0), "n 0 is below 1"),
        (("Widow250SingleObjGrisp-v0", 2), TASK),
        ((TASK, 2, True, "image_size", 0), "image_size 0"),
    ],
)
def test_what_cannot_be_built_is_refused_before_a_process_starts(monkeypatch, arguments, text):
    def start(self):
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    options = dict(zip(arguments[3::2], arguments[4::2]))
    with pytest.raises(ConfigError, match=text):
        make_vec(*arguments[:3], **options)


@pytest.mark.parametrize(
    "actions", [np.zeros((2, 7)), np.zeros(8), [[0.0] * 8, [np.nan] * 8], [["x"] * 8] * 2]
)
def test_a_bad_batch_moves_nothing(vec, actions):
    vector = vec(TASK, 2, processes=False, image_size=8)
    vector.reset(seed=0)
    with pytest.raises(RobotError):
        vector.step(actions)
    after, _, _, _, _ = vector.step(np.zeros((2, 8)))
    single = make(TASK, image_size=8)
    single.reset(seed=0)
    assert np.array_equal(after["state"][0], single.step(np.zeros(8))[0]["state"])
    single.close()


def test_a_process_that_dies_closes_the_vector(vec):
    vector = vec(TASK, 2, image_size=8)
    vector.reset(seed=0)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(RobotError, match="has ended"):
        vector.step(np.zeros((2, 8)))
    assert not multiprocessing.active_children()


def test_an_environment_that_fails_to_build_leaves_no_other_open(monkeypatch):
    closed, close, build = [], WidowXEnv.close, WidowXEnv.__init__

    def second_fails(self, *args, **kwargs):
        build(self, *args, **kwargs)
        if built:
            raise ConfigError("only one")
        built.append(self)

    built = []
    monkeypatch.setattr(WidowXEnv, "__init__", second_fails)
    monkeypatch.setattr(WidowXEnv, "close", lambda self: (closed.append(self), close(self)))
    with pytest.raises(ConfigError, match="only one"):
        make_vec(TASK, 3, processes=False)
    assert closed == built
