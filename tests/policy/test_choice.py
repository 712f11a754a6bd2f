"""How a deployed policy takes its action: by its mode, by a sample, by the largest Q."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ofrl_robot.cli import main
from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic
from ofrl_robot.policy.checkpoint import ACTOR, CRITIC
from ofrl_robot.policy.choice import recorded_choice
from ofrl_robot.policy.policy import Policy

NETS = NetConfig(latent=8, hidden=(16, 8))
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)


def actions_of(policy, seed=0):
    policy.reset(seed)
    return np.array([policy.act(Tick(i, i, {"image": f}, np.zeros(10)))
                     for i, f in enumerate(FRAMES)])  # fmt: skip


@pytest.fixture
def save_both(save, header):
    """Function (nets) -> path of a checkpoint with a critic, its actor and its critic."""

    def write(nets=NETS):
        torch.manual_seed(0)
        actor = Actor(nets, header.shapes, header.action_spec).eval()
        critic = Critic(nets, header.shapes, header.action_spec.size).eval()
        with torch.no_grad():  # larger than at the start, so that Q depends on the action
            critic.heads.output[-1].weight.normal_(0.0, 0.3)
        weights = {ACTOR + k: v for k, v in actor.state_dict().items()}
        weights.update({CRITIC + k: v for k, v in critic.state_dict().items()})
        return save(nets=nets, weights=weights), actor, critic

    return write


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"critic_encoders": "separate"},
        {"action_head": "mixture"},
        {"action_head": "mixed"},
        {"dropout": 0.5},  # nothing is dropped, and a bottleneck gives its mean
        {"bottleneck": True},
    ],
    ids=lambda c: "-".join(map(str, c.values())) or "plain",
)
def test_max_q_is_the_best_of_ten_samples_by_the_first_critic(save_both, changes):
    path, actor, critic = save_both(dataclasses.replace(NETS, **changes))
    generator = torch.Generator().manual_seed(7)
    expected, of_the_second = [], []
    with torch.no_grad():
        for frame in torch.from_numpy(FRAMES).unsqueeze(1):
            observations = {"image": frame}
            drawn = actor(observations).sample(10, generator)[0]
            first, second = critic.q(critic.encode(observations), drawn)[:, 0]
            expected.append(drawn[0, first.argmax()].double().numpy())
            of_the_second.append(drawn[0, second.argmax()].double().numpy())
    actions = actions_of(Policy(path, "max_q"), 7)
    assert actions.shape == (5, 8) and actions.dtype == np.float64
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)
    assert not np.allclose(actions, of_the_second), "the critics agree: nothing was tested"


def test_the_three_choices_differ_and_the_seed_fixes_what_is_drawn(save_both):
    path = save_both()[0]
    policies = {choice: Policy(path, choice) for choice in ("mode", "sample", "max_q")}
    first = {choice: actions_of(policy, 1) for choice, policy in policies.items()}
    assert len({a.tobytes() for a in first.values()}) == 3
    policies["max_q"].warm_up()
    torch.manual_seed(99)  # whatever else draws random numbers in this process
    for choice, policy in policies.items():
        assert np.array_equal(actions_of(policy, 1), first[choice])
        assert np.array_equal(actions_of(policy, 2), first[choice]) == (choice == "mode")
        assert policy.identity()["action_choice"] == choice


def test_without_a_critic_max_q_is_refused_and_the_others_work(save):
    path = save(algo="bc")
    with pytest.raises(CheckpointError, match="max_q needs a critic.*this bc.*mode or") as caught:
        Policy(path, "max_q")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    for choice in ("mode", "sample"):
        assert actions_of(Policy(path, choice)).shape == (5, 8)


def test_a_critic_that_does_not_fit_its_header_is_refused(save, save_both):
    path, actor, critic = save_both()
    weights = {ACTOR + k: v for k, v in actor.state_dict().items()}
    weights.update(
        {CRITIC + k: v for k, v in critic.state_dict().items() if "action_layer" not in k}
    )
    with pytest.raises(CheckpointError, match="weights do not fit"):
        Policy(save(weights=weights), "max_q")


@pytest.mark.parametrize("choice", ["best", "", "Mode", True])
def test_an_unknown_choice_is_refused_by_name_before_the_file_is_read(tmp_path, choice):
    with pytest.raises(ConfigError, match=f"{choice!r}.*mode or sample or max_q"):
        Policy(tmp_path / "nothing", choice)


@pytest.mark.parametrize(
    ("identity", "choice"),
    [
        ({"action_choice": "max_q"}, "max_q"),
        ({"action_choice": "mode"}, "mode"),
        ({"sample": True}, "sample"),  # as written before there was max_q
        ({"sample": False}, "mode"),
        ({}, "mode"),
    ],
)
def test_the_choice_is_read_from_old_episodes_too(identity, choice):
    assert recorded_choice(identity) == choice


def test_evaluate_refuses_before_anything_is_written(save, tmp_path, capsys):
    words = ["evaluate", str(save(algo="bc")), "--out", str(tmp_path / "trials")]
    assert main([*words, "--action-choice", "max_q"]) == 2
    error = capsys.readouterr().err
    assert "max_q needs a critic" in error and error.count("\n") == 1
    assert not (tmp_path / "trials").exists()
