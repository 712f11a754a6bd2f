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
from ofrl_robot.specs import STATE, ActionSpec
from tests.policy.conftest import actor_of


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
    actor = Actor(header.nets, header.shapes, header.action_spec)
    actor.load_state_dict(part(load_checkpoint(path)[1], ACTOR))
    images = torch.from_numpy(np.stack([t.images["image"] for t in ticks()]))
    expected = actor({"image": images}).mode.detach().numpy()
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
    actor = Actor(nets, header.shapes, header.action_spec)
    with torch.no_grad():
        actor.head[-1].weight.normal_(0.0, 0.3)
    path = save(nets=nets, weights={ACTOR + k: v for k, v in actor.state_dict().items()})
    images = torch.from_numpy(np.stack([t.images["image"] for t in ticks()]))
    expected = actor.eval()({"image": images}).mode.detach().numpy()
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        lambda h: {"nets": dataclasses.replace(h.nets, latent=9)},
        lambda h: {"nets": dataclasses.replace(h.nets, hidden=(16,))},
        lambda h: {"nets": dataclasses.replace(h.nets, encoder="cog")},
        lambda h: {"action_spec": ActionSpec(("x",), ("m",), (0.2,), "world")},
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
    rate, task = header.control_rate_hz, header.task
    policy.require_specs(header.action_spec, header.observation_spec, rate, "robot sim", task)
    slow = dataclasses.replace(header.action_spec, scale=(0.1,) * 8)
    with pytest.raises(SpecMismatchError, match="ActionSpec.*scale") as caught:
        policy.require_specs(slow, header.observation_spec, rate, "robot arm2", task)
    assert str(path) in str(caught.value) and "robot arm2" in str(caught.value)
    larger = dataclasses.replace(header.observation_spec.cameras[0], height=48)
    other = dataclasses.replace(header.observation_spec, cameras=(larger,))
    with pytest.raises(SpecMismatchError, match="ObservationSpec.*cameras") as caught:
        policy.require_specs(header.action_spec, other, rate, "robot arm2", task)
    with pytest.raises(SpecMismatchError, match="control rate .* robot arm2 is"):
        policy.require_specs(
            header.action_spec, header.observation_spec, 2 * rate, "robot arm2", task
        )
    assert "'height': 24" in str(caught.value) and "'height': 48" in str(caught.value)


@pytest.mark.parametrize("side", ["action", "state"])
def test_another_frame_of_reference_is_refused(side, save, header):
    policy = Policy(save())
    action, observation = header.action_spec, header.observation_spec
    if side == "action":
        action = dataclasses.replace(action, frame="base")
    else:
        observation = dataclasses.replace(observation, state_frame="base")
    with pytest.raises(SpecMismatchError, match="frame: world != base"):
        policy.require_specs(action, observation, header.control_rate_hz, "arm", header.task)


def test_the_observations_that_it_reads_are_listed_where_a_robot_gives_others(save, header):
    policy = Policy(save())
    other = dataclasses.replace(header.observation_spec, state_names=("a",), state_units=("m",))
    with pytest.raises(SpecMismatchError, match="which reads image.*state_names"):
        policy.require_specs(header.action_spec, other, header.control_rate_hz, "arm", header.task)


@pytest.mark.parametrize("rate", [float("nan"), 0.0, -5.0, float("inf"), None, "5"], ids=str)
def test_a_robot_without_a_control_rate_is_refused(rate, save, header):
    """NaN compares with nothing: it passed every check of a difference."""
    policy = Policy(save())
    with pytest.raises(SpecMismatchError, match="control rate of arm is .*above 0"):
        policy.require_specs(header.action_spec, header.observation_spec, rate, "arm", header.task)


def test_a_policy_of_another_task_is_refused_unless_any_task_is_allowed(save, header):
    path = save()
    policy, rate = Policy(path), header.control_rate_hz
    specs = header.action_spec, header.observation_spec
    with pytest.raises(SpecMismatchError, match="SingleObjGrasp-v0'.*arm does 'Drawer'") as caught:
        policy.require_specs(*specs, rate, "arm", "Drawer")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    policy.require_specs(*specs, rate, "arm", "Drawer", any_task=True)


def with_state(header, seed=0):
    """Header and weights of a policy that reads the camera and the state."""
    header = dataclasses.replace(header, observe=("image", STATE))
    actor = actor_of(header, seed)
    actor.encoder.normalise_state(torch.full((10,), 0.5), torch.full((10,), 2.0))
    weights = {ACTOR + k: v for k, v in actor.state_dict().items()}
    return header, weights, actor.eval()


def test_a_policy_that_observes_the_state_reads_it_from_the_tick(save, header):
    header, weights, actor = with_state(header)
    policy = Policy(save(weights=weights, observe=header.observe))
    policy.warm_up()
    tick = dataclasses.replace(ticks(1)[0], state=np.linspace(-1.0, 1.0, 10))
    image = torch.from_numpy(tick.images["image"]).unsqueeze(0)
    state = torch.from_numpy(tick.state).float().unsqueeze(0)
    expected = actor({"image": image, STATE: state}).mode[0].detach().numpy()
    np.testing.assert_allclose(policy.act(tick), expected, rtol=0, atol=1e-6)
    moved = policy.act(dataclasses.replace(tick, state=-tick.state))
    assert np.abs(moved - expected).max() > 1e-4, "the state is not read"


def test_a_checkpoint_with_the_state_and_one_without_are_told_apart(save, header):
    """A header that claims one and weights of the other: the message lists the observations."""
    with pytest.raises(CheckpointError, match="weights do not fit.*observations: image, state"):
        Policy(save(observe=("image", STATE)))
    _, weights, _ = with_state(header)
    with pytest.raises(CheckpointError, match=r"weights do not fit.*observations: image\)"):
        Policy(save(weights=weights))


def test_a_header_that_claims_huge_networks_allocates_nothing(save, header):
    """Within the bounds of each setting, these are 10^11 numbers; the file has a few thousand."""
    nets = dataclasses.replace(header.nets, hidden=(65536,) * 64, latent=65536)
    with pytest.raises(CheckpointError, match="weights do not fit"):
        Policy(save(nets=nets))
    cameras = (dataclasses.replace(header.observation_spec.cameras[0], height=4096, width=4096),)
    spec = dataclasses.replace(header.observation_spec, cameras=cameras)
    with pytest.raises(CheckpointError, match="weights do not fit"):
        Policy(save(observation_spec=spec))


def test_identity_says_which_policy_it_was(save):
    policy, sampling = Policy(save()), Policy(save(), choice="sample")
    identity = policy.identity()
    assert (identity["algo"], identity["step"], identity["action_choice"]) == ("cql", 500, "mode")
    assert len(identity["sha256"]) == 64 and sampling.identity()["action_choice"] == "sample"


@pytest.mark.slow
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
