"""The deployed policy: the networks of the checkpoint, nothing more, and no other spec."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import CheckpointError, SpecMismatchError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.policy.checkpoint import ACTOR, load_checkpoint, part
from ofrl_robot.policy.policy import Policy


def ticks(count=3, size=24):
    rng = np.random.default_rng(0)
    return [
        Tick(i, i, {"image": rng.integers(0, 256, (size, size, 3), dtype=np.uint8)}, np.zeros(10))
        for i in range(count)
    ]


def rollout(policy, seed):
    policy.reset(seed)
    return np.array([policy.act(tick) for tick in ticks()])


def test_the_mode_is_what_the_saved_network_says(save, header):
    path = save()
    actor = Actor(header.nets, header.image_shape, header.action_spec)
    actor.load_state_dict(part(load_checkpoint(path)[1], ACTOR))
    images = torch.from_numpy(np.stack([t.images["image"] for t in ticks()]))
    expected = actor(images).mode.detach().numpy()
    actions = rollout(Policy(path), 0)
    assert actions.shape == (3, 8) and actions.dtype == np.float64
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)
    assert np.ptp(actions, axis=0).max() > 1e-3, "the policy is blind"


@pytest.mark.parametrize(
    "changes",
    [
        {"action_head": "mixture"},
        {"action_head": "mixed"},
        {"resnet_policy": True, "latent": 0},
        {"dropout": 0.5},
        {"bottleneck": True, "bottleneck_place": "policy"},
    ],
    ids=str,
)
def test_networks_of_all_kinds_are_deployed_as_saved_and_drop_and_sample_nothing(
    changes, save, header
):
    """Corrections act in training; a deployed mode is one action per image."""
    nets = dataclasses.replace(header.nets, **changes)
    torch.manual_seed(0)
    actor = Actor(nets, header.image_shape, header.action_spec)
    with torch.no_grad():
        actor.head[-1].weight.normal_(0.0, 0.3)
    path = save(nets=nets, weights={ACTOR + k: v for k, v in actor.state_dict().items()})
    images = torch.from_numpy(np.stack([t.images["image"] for t in ticks()]))
    expected = actor.eval()(images).mode.detach().numpy()
    policy = Policy(path)
    actions = rollout(policy, 0)
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)
    assert np.array_equal(rollout(policy, 1), actions)
    if nets.action_head == "mixed":  # it asks for what the gripper can do
        assert set(actions[:, 6]) <= {-1.0, 0.0, 1.0} and set(actions[:, 7]) <= {0.0, 1.0}


def test_deterministic_by_default_and_sampled_by_seed(save):
    path = save()
    assert np.array_equal(rollout(Policy(path), 1), rollout(Policy(path), 2))
    policy = Policy(path, choice="sample")
    first = rollout(policy, 1)
    torch.manual_seed(99)  # whatever else draws random numbers in this process
    assert np.array_equal(rollout(policy, 1), first)
    assert not np.array_equal(rollout(policy, 2), first)
    assert (np.abs(first) <= 1.0).all() and not np.array_equal(first, rollout(Policy(path), 1))
    assert np.array_equal(rollout(policy, -1), rollout(policy, 0))  # hardware has no seed


def test_acting_leaves_the_global_generator_alone(save):
    policy = Policy(save(), choice="sample")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    rollout(policy, 1)
    assert torch.equal(torch.rand(3), expected)


def test_a_frame_that_is_a_view_or_read_only_is_read_right(save):
    policy, tick = Policy(save()), ticks(1)[0]
    expected = policy.act(tick)
    wide = np.zeros((24, 48, 3), np.uint8)
    wide[:, ::2] = tick.images["image"]
    view = wide[:, ::2]
    view.flags.writeable = False
    assert np.array_equal(policy.act(dataclasses.replace(tick, images={"image": view})), expected)


def test_warm_up_runs(save):
    Policy(save()).warm_up()


@pytest.mark.parametrize(
    "changes",
    [
        lambda h: {"nets": dataclasses.replace(h.nets, latent=9)},
        lambda h: {"nets": dataclasses.replace(h.nets, hidden=(16,))},
        lambda h: {"nets": dataclasses.replace(h.nets, encoder="cog")},
        lambda h: {"action_spec": dataclasses.replace(h.action_spec, names=("x",))},
    ],
)
def test_weights_that_do_not_fit_their_header_are_refused(save, header, changes):
    path = save(**changes(header))
    with pytest.raises(CheckpointError, match="weights do not fit") as caught:
        Policy(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_another_robots_specs_are_refused_with_both_sides_named(save, header):
    path = save()
    policy = Policy(path)
    rate = header.control_rate_hz
    policy.require_specs(header.action_spec, header.observation_spec, rate, "robot sim")
    slow = dataclasses.replace(header.action_spec, scale=(0.1,) * 8)
    with pytest.raises(SpecMismatchError, match="ActionSpec.*scale") as caught:
        policy.require_specs(slow, header.observation_spec, rate, "robot arm2")
    assert str(path) in str(caught.value) and "robot arm2" in str(caught.value)
    larger = dataclasses.replace(header.observation_spec.cameras[0], height=48)
    other = dataclasses.replace(header.observation_spec, cameras=(larger,))
    with pytest.raises(SpecMismatchError, match="ObservationSpec.*cameras") as caught:
        policy.require_specs(header.action_spec, other, rate, "robot arm2")
    with pytest.raises(SpecMismatchError, match="control rate .* robot arm2 is"):
        policy.require_specs(header.action_spec, header.observation_spec, 2 * rate, "robot arm2")
    assert "'height': 24" in str(caught.value) and "'height': 48" in str(caught.value)


def test_identity_says_which_policy_it_was(save):
    policy, sampling = Policy(save()), Policy(save(), choice="sample")
    identity = policy.identity()
    assert (identity["algo"], identity["step"], identity["action_choice"]) == ("cql", 500, "mode")
    assert len(identity["sha256"]) == 64 and sampling.identity()["action_choice"] == "sample"


def test_the_policy_server_loads_no_training_code():
    """What an arm's computer must have installed stays small, and start-up quick."""
    code = (
        "import sys, ofrl_robot.policy.policy\n"
        "rooms = {'ofrl_robot.' + r for r in ('training', 'workflow', 'algos', 'data', 'sim',"
        " 'robots', 'evaluation', 'cli')}\n"
        "foreign = {'h5py', 'pybullet', 'gymnasium', 'scipy', 'tensorboard', 'matplotlib', 'tyro',"
        " 'rich', 'jinja2', 'rospy', 'cv2'}\n"
        "print(sorted((rooms | foreign) & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
