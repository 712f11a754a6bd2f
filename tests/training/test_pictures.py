"""The summary of the training pictures that a run puts into its checkpoints."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ofrl_robot.control.signals import Tick
from ofrl_robot.data.datasets.splits import split
from ofrl_robot.policy.checkpoint import save_checkpoint
from ofrl_robot.policy.light import measure
from ofrl_robot.policy.picture_check import ALARM
from ofrl_robot.policy.policy import Policy
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.pictures import LEAST_EPISODES, PictureData, compared_steps
from tests.training.small_run import config

NEW = np.random.default_rng(99)


def learner(make_dataset, episodes=40, **changes):
    return Learner(config(make_dataset(episodes=episodes, **changes.pop("data", {})), **changes))


def policy_of(trained, tmp_path):
    path = tmp_path / "step.safetensors"
    save_checkpoint(path, trained.header({}), trained.weights())
    return Policy(path)


def score(policy, white=False):
    """Of an episode of frames like those of ``make_dataset`` (noise), or of white ones."""
    policy.reset(0)
    for step in range(5):
        image = NEW.integers(255 if white else 0, 256, (24, 24, 3)).astype(np.uint8)
        policy.act(Tick(step + 1, step, {"front": image}, np.zeros(2)))
    return policy.pictures


@pytest.mark.parametrize(
    "length, steps", [(1, (0,)), (3, (0, 1, 2)), (16, tuple(range(16))), (25, None), (80, None)]
)
def test_compared_steps_lie_within_the_episode(length, steps):
    found = compared_steps(length)
    assert found[0] == 0 and found[-1] == length - 1 and len(found) == min(16, length)
    assert steps is None or found == steps


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["bc", "cql"])
def test_unseen_episodes_are_inside_and_white_ones_outside(make_dataset, tmp_path, algo):
    trained = learner(make_dataset, 60, algo=algo)
    for _ in range(3):
        trained.update()
    policy = policy_of(trained, tmp_path)
    assert max(score(policy).score for _ in range(20)) < ALARM
    report = score(policy, white=True)
    assert report.outside and "brighter" in report.words and "camera front" in report.words


def test_light_is_of_the_frames_that_actions_answer(make_dataset):
    trained = learner(make_dataset, 30)
    summary = trained.header({}).picture_summary()
    assert (summary.steps, [s.frames for s in summary.stages]) == ((0, 1, 2, 3, 4), [1, 2, 4])
    store = trained.data.stores[0]
    firsts = [measure(store.observations["front"].block(a, a + 1)[0]) for a, _ in store.frame_spans]
    expected = np.quantile(firsts, (0.01, 0.99), 0)
    assert summary.stages[0].light["front"] == pytest.approx(expected, rel=1e-4)


def test_a_checkpoint_costs_no_random_number_and_is_the_same_again(make_dataset):
    trained = learner(make_dataset, 30)
    before = torch.get_rng_state()
    first = trained.header({}).pictures
    assert torch.equal(torch.get_rng_state(), before)
    assert trained.header({}).pictures == first
    assert not trained.algorithm.average_actor.head[-1]._forward_pre_hooks


def test_weights_change_the_summary(make_dataset):
    trained = learner(make_dataset, 30)
    before = trained.header({}).picture_summary().stages[0]
    with torch.no_grad():
        trained.algorithm.average_actor.head[0].bias.add_(1.0)
    after = trained.header({}).picture_summary().stages[0]
    assert not np.allclose(after.mean, before.mean)
    assert np.array_equal(after.light["front"], before.light["front"])


def test_few_episodes_have_no_summary(make_dataset):
    assert learner(make_dataset, LEAST_EPISODES - 1).header({}).pictures == {}


def test_episodes_that_end_early_shorten_what_is_compared(make_dataset):
    trained = learner(make_dataset, 30, data={"steps": 2})
    summary = trained.header({}).picture_summary()
    assert (summary.steps, [s.frames for s in summary.stages]) == ((0, 1), [1, 2])


@pytest.mark.slow
def test_held_out_episodes_move_the_limits_only(make_dataset):
    data = make_dataset(episodes=120)
    split(data, valid=0.25)
    trained = Learner(config(data, split="train"))
    train, valid = trained.data.stores[0], trained.data.valid.stores[0]
    alone = PictureData(train, None).summary(trained.algorithm)
    both = trained.header({}).picture_summary()
    for a, b in zip(alone.stages, both.stages):
        assert np.allclose(a.mean, b.mean, rtol=1e-4) and b.limit >= a.limit * 0.9999
    far = dataclasses.replace(valid, observations={"front": White(valid)})
    moved = PictureData(train, far).summary(trained.algorithm)
    limits = [[stage.limit for stage in each.stages] for each in (alone, moved)]
    assert all(np.array(limits[1]) >= limits[0]) and limits[1][-1] > 1.2 * limits[0][-1]


class White:
    """White frames in the place of a store's."""

    def __init__(self, store):
        file = store.observations["front"]
        self.shape, self.dtype = file.shape, file.dtype

    def read(self, first, second, out):
        out[:] = 255


def test_the_header_says_where_the_data_comes_from(make_dataset):
    header = learner(make_dataset, 6).header({})
    assert header.environment == {"backend": "hardware", "realism": ""}
