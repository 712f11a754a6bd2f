"""Realism: every imperfection does what its name says, and nothing besides."""

from __future__ import annotations

import dataclasses
import math

import gymnasium
import numpy as np
import pytest

from ofrl_robot import specs
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import episode_paths
from ofrl_robot.errors import ConfigError
from ofrl_robot.recording.session import episode_meta, record_episodes
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import make_rig
from ofrl_robot.sim import arm, make
from ofrl_robot.sim.arm import CONTROL_PERIOD_S, Actuators
from ofrl_robot.sim.realism import PRESETS, Imperfections, Realism
from ofrl_robot.sim.scripted import make_scripted
from ofrl_robot.teleop.scripted import ScriptedDevice

GRASP, TRAY = "Widow250SingleObjGrasp-v0", "Widow250PickTray-v0"
ACTIONS = np.random.default_rng(3).uniform(-1.0, 1.0, (8, specs.WIDOWX_ACTION.size))


def imperfect(seed: int = 0, **settings: object) -> Imperfections:
    return Imperfections(Realism(**settings), np.random.default_rng(seed), 8)


def numbered(steps: int, size: int = 4):
    """Frames that show the number of the step at which they were captured."""
    return (np.full((size, size, 3), step, np.int16) for step in range(steps))


def rollout(actions=ACTIONS, task=GRASP, **settings):
    """Observations, infos and ground truths of one episode; images as uint8."""
    env = make(task, image_size=16, image_format="uint8", **settings)
    steps = [(*env.reset(seed=7), env.ground_truth())]
    for action in actions:
        observation, _, _, _, info = env.step(action)
        steps.append((observation, info, env.ground_truth()))
    env.close()
    return tuple(zip(*steps))


def same(first, second) -> bool:
    """Whether two lists of dicts of arrays are equal to the bit."""
    return len(first) == len(second) and all(
        a[key].tobytes() == b[key].tobytes() for a, b in zip(first, second) for key in a
    )


# -- off -------------------------------------------------------------------------------------


def test_off_is_what_one_gets_without_asking_to_the_bit():
    plain = rollout()
    for realism in ("off", Realism()):
        off = rollout(realism=realism)
        assert same(plain[0], off[0]) and same(plain[2], off[2])
    assert all(info["image_age_s"] == 0.0 for info in plain[1])


@pytest.mark.parametrize("name", ["mild", "harsh"])
def test_a_seed_gives_the_same_imperfections_and_the_same_placement(name):
    first, again = rollout(realism=name), rollout(realism=name)
    assert same(first[0], again[0])
    assert [i["image_age_s"] for i in first[1]] == [i["image_age_s"] for i in again[1]]
    off = rollout()
    assert same(first[2][:1], off[2][:1]), "objects lie and the arm stands where they would"
    assert not same(first[0], off[0])


def test_another_seed_gives_other_imperfections():
    env = make(GRASP, image_size=16, realism=Realism(image_noise=5.0, position_noise_m=1e-3))
    noises = [env.reset(seed=s)[0]["state"][:3] - env.simulation.state()[:3] for s in (1, 2)]
    env.close()
    assert (noises[0] != noises[1]).all()


# -- camera ----------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0, 1, 3])
def test_latency_shows_the_frame_captured_that_many_steps_ago(latency):
    camera = imperfect(camera_latency=latency)
    for step, frame in enumerate(numbered(10)):
        shown, age = camera.show(frame)
        assert age == min(step, latency), "the first frame only grows older until the second came"
        assert (shown == step - age).all()


def test_a_lost_frame_leaves_the_one_before_and_the_next_is_as_old_as_ever():
    camera, latency, steps, rate = imperfect(camera_latency=2, dropped_frames=0.1), 2, 5000, 0.1
    lost, before = 0, 0
    for step, frame in enumerate(numbered(steps)):
        shown, age = camera.show(frame)
        captured = int(shown[0, 0, 0])
        assert captured == step - age
        if step > latency:
            assert captured in (before, step - latency), "nothing in between can be shown"
            lost += captured == before
        before = captured
    for seed in range(20):
        shown, age = imperfect(seed, dropped_frames=0.9).show(np.ones((1, 1, 3), np.uint8))
        assert shown.all() and age == 0, "there is always a first frame"
    # four standard deviations of a binomial count
    assert abs(lost - rate * steps) < 4.0 * math.sqrt(rate * (1.0 - rate) * steps)


def test_image_noise_has_its_size_and_belongs_to_the_frame():
    camera = imperfect(image_noise=6.0, camera_latency=1, dropped_frames=0.3)
    gray, seen = np.full((32, 32, 3), 128, np.uint8), {}
    for step in range(60):
        shown, age = camera.show(gray)
        assert shown.dtype == np.uint8
        kept = seen.setdefault(step - age, shown.tobytes())
        assert shown.tobytes() == kept, "a frame that stays must be seen to stay"
    assert len(set(seen.values())) == len(seen), "every captured frame has noise of its own"
    pixels = np.frombuffer(b"".join(seen.values()), np.uint8).astype(float)
    assert pixels.std() == pytest.approx(6.0, rel=0.02)
    assert pixels.mean() == pytest.approx(128.0, abs=0.1)
    white, _ = imperfect(image_noise=6.0).show(np.full((8, 8, 3), 255, np.uint8))
    assert white.min() > 200, "clipped, not wrapped round"


def test_the_camera_changes_nothing_but_the_image():
    off = rollout()
    late = rollout(realism=Realism(camera_latency=2))
    assert same(late[2], off[2])
    assert [o["state"].tobytes() for o in late[0]] == [o["state"].tobytes() for o in off[0]]
    for step, (observation, info) in enumerate(zip(*late[:2])):
        age = min(step, 2)
        assert info["image_age_s"] == pytest.approx(age * CONTROL_PERIOD_S)
        assert np.array_equal(observation["image"], off[0][step - age]["image"])


# -- measurement -----------------------------------------------------------------------------


def test_position_noise_is_on_the_measured_position_only():
    off = rollout()
    noisy = rollout(realism=Realism(position_noise_m=1e-3))
    assert same(noisy[2], off[2]), "the ground truth and the motion are free of noise"
    for measured, true in zip(noisy[0], off[0]):
        assert (measured["state"][:3] != true["state"][:3]).all()
        assert np.array_equal(measured["state"][3:], true["state"][3:])
        assert all(np.array_equal(measured[k], true[k]) for k in true if k != "state")
    sensor, state = imperfect(position_noise_m=1e-3), np.arange(10.0)
    errors = np.array([sensor.measure(state)[:3] - state[:3] for _ in range(2000)])
    assert errors.std(axis=0) == pytest.approx(np.full(3, 1e-3), rel=0.1)
    assert abs(errors.mean()) < 1e-4
    assert np.array_equal(state, np.arange(10.0)), "the true state is not written on"


# -- actions and motors ----------------------------------------------------------------------


@pytest.mark.parametrize("delay", [1, 3])
def test_action_delay_is_zero_actions_first_and_then_the_same_motion(delay):
    closing = ACTIONS.copy()
    closing[:, 6] = -1.0
    delayed = rollout(closing, realism=Realism(action_delay=delay))
    expected = rollout(np.concatenate([np.zeros((delay, 8)), closing[:-delay]]))
    assert same(delayed[0], expected[0]) and same(delayed[2], expected[2])
    assert [o["state"][9] for o in delayed[0][: delay + 1]] == [1.0] * (delay + 1)


@pytest.fixture
def commands(monkeypatch):
    """A rollout's arm commands: joint targets (7,) rad asked for and told, joints measured."""
    engine, asked, told = arm.pybullet, [], []
    inverse, control = engine.calculateInverseKinematics, engine.setJointMotorControlArray

    def spy_inverse(*args, **kwargs):
        asked.append(np.array(inverse(*args, **kwargs)[:7]))
        return (*asked[-1], 0.0, 0.0)

    def spy_control(body, joints, *args, targetPositions, physicsClientId, **kwargs):
        if tuple(joints) == arm.MOVABLE_JOINTS[:7]:
            states = engine.getJointStates(body, joints, physicsClientId=physicsClientId)
            told.append((np.array(targetPositions), np.array([state[0] for state in states])))
        control(
            body, joints, *args, targetPositions=targetPositions,
            physicsClientId=physicsClientId, **kwargs,
        )  # fmt: skip

    monkeypatch.setattr(engine, "calculateInverseKinematics", spy_inverse)
    monkeypatch.setattr(engine, "setJointMotorControlArray", spy_control)

    def run(actions, actuators, task=GRASP):
        rollout(actions, task, realism=Realism(actuators=actuators))
        return [(a, *t) for a, t in zip(asked, told)]

    return run


def test_lag_is_first_order(commands):
    actuators = Actuators(lag_s=0.05)
    passed = 1.0 - math.exp(-CONTROL_PERIOD_S / actuators.lag_s)
    before = np.array(arm.RESET_JOINTS[:7])
    for asked, told, _ in commands(ACTIONS, actuators):
        np.testing.assert_allclose(told, before + passed * (asked - before), atol=1e-12)
        before = told


def test_lag_starts_anew_from_the_pose_of_the_neutral_action(commands):
    """Else the first step after it would pull the arm back to where it came from."""
    actuators = Actuators(lag_s=0.05)
    actions = np.zeros((6, 8))
    actions[:4, 0], actions[4, 7] = 1.0, 1.0
    home = np.array(arm.RESET_JOINTS[:7])
    asked, told, _ = commands(actions, actuators, TRAY)[5]
    passed = 1.0 - math.exp(-CONTROL_PERIOD_S / actuators.lag_s)
    np.testing.assert_allclose(told, home + passed * (asked - home), atol=1e-12)


def test_stiction_holds_joints_that_are_asked_for_less(commands):
    actuators, counts = Actuators(stiction_rad=0.03), [0, 0]
    for asked, told, measured in commands(0.3 * ACTIONS, actuators):
        held = np.abs(asked - measured) < actuators.stiction_rad
        assert np.array_equal(told[held], measured[held])
        assert np.array_equal(told[~held], asked[~held])
        counts[0] += held.sum()
        counts[1] += (~held).sum()
    assert min(counts) > 5, "both kinds were seen"


def test_a_zero_action_moves_no_joint_that_sticks():
    moved = {}
    for stiction in (0.0, 0.01):
        env = make(GRASP, image_size=8, realism=Realism(actuators=Actuators(0.0, stiction)))
        env.reset(seed=0)
        before = np.array(list(env.joints().values()))
        for _ in range(3):
            env.step(np.zeros(8))
        moved[stiction] = np.abs(np.array(list(env.joints().values())) - before).max()
        env.close()
    assert moved[0.0] > 3e-3 and moved[0.01] < 1e-4


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"camera_latency": -1},
        {"camera_latency": 101},
        {"camera_latency": 1.5},
        {"action_delay": math.nan},
        {"action_delay": math.inf},
        {"dropped_frames": 1.0},
        {"dropped_frames": -0.1},
        {"dropped_frames": math.nan},
        {"image_noise": -1.0},
        {"image_noise": math.nan},
        {"image_noise": math.inf},
        {"position_noise_m": math.nan},
        {"position_noise_m": math.inf},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        Realism(**settings)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["lag_s", "stiction_rad"])
def test_impossible_actuators_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        Actuators(**{name: value})


def test_presets_by_name_and_own_settings_by_gymnasium():
    with pytest.raises(ConfigError, match="off or mild or harsh"):
        make(GRASP, realism="wild")
    own = dataclasses.replace(PRESETS["harsh"], camera_latency=5)
    env = gymnasium.make(f"ofrl_robot/{GRASP}", image_size=8, realism=own)
    env.reset(seed=0)
    ages = [env.step(np.zeros(8, np.float32))[4]["image_age_s"] for _ in range(20)]
    env.close()
    # harsh also loses frames: then the age grows beyond the latency
    assert max(ages) > min(ages[5:]) == pytest.approx(5 * CONTROL_PERIOD_S)


# -- the robot and its recording -------------------------------------------------------------


@pytest.mark.slow
def test_a_recorded_episode_says_how_old_its_frames_were(tmp_path):
    settings = {"image_size": 16, "realism": "harsh"}
    robot = make_rig(ArmConfig("sim", GRASP, load_arm_file("sim"), True, True, settings))
    actor = ScriptedDevice(GRASP)
    record_episodes(robot, actor, tmp_path, 2, 0, episode_meta(robot))
    robot.close()
    period = round(1e9 / robot.control_rate_hz)
    latency = PRESETS["harsh"].camera_latency
    for episode in map(read_episode, episode_paths(tmp_path)):
        ticks, captured = episode.timestamps["obs"], episode.timestamps["image"]
        ages = (ticks - captured) / period
        assert np.array_equal(ages, ages.astype(int)), "whole steps, to the nanosecond"
        assert np.array_equal(ages[: latency + 1], np.arange(latency + 1))
        assert (ages[latency:] >= latency).all() and (np.diff(captured) >= 0).all()
        frames = episode.images["image"]
        for stamp in captured:
            shown = frames[captured == stamp]
            assert (shown == shown[0]).all(), "one capture time, one frame"


# -- gripper, action noise, object size ------------------------------------------------------


def test_gripper_delay_holds_back_the_gripper_only():
    late = imperfect(gripper_delay=2, action_delay=1)
    sent = [np.full(8, step / 10.0) for step in range(1, 7)]
    effects = np.array([late.delay(action) for action in sent])
    np.testing.assert_allclose(effects[:, 0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(effects[:, 7], effects[:, 0])
    np.testing.assert_allclose(effects[:, 6], [0.0, 0.0, 0.0, 0.1, 0.2, 0.3])
    assert sent[5].tolist() == [0.6] * 8, "the action that was sent is not written on"


def test_action_noise_is_on_the_entries_that_move_the_arm():
    shaky, action = imperfect(action_noise=0.1), np.array([0.5] * 7 + [-1.0])
    effects = np.array([shaky.delay(action) for _ in range(2000)])
    assert effects[:, :6].std(axis=0) == pytest.approx(np.full(6, 0.1), rel=0.1)
    assert effects[:, :6].mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(effects[:, 6:], np.tile(action[6:], (2000, 1)))
    full = np.array([imperfect(s, action_noise=0.5).delay(np.ones(8)) for s in range(50)])
    assert full.max() == 1.0 and full[:, :6].min() < 1.0


@pytest.mark.parametrize("task", [TRAY, "Widow250PickTrayMult-v0"])
def test_object_size_scales_the_object_where_it_lies(task):
    tops, places = [], []
    for size in (0.7, 1.0, 1.3):
        env = make(task, image_size=8, realism=f"object_size={size}")
        env.reset(seed=3)
        body, client = env.simulation._placement.target, env.simulation._world.client
        low, high = arm.pybullet.getAABB(body, physicsClientId=client)
        tops.append(high[2] + 0.375)
        places.append(env.ground_truth()["object_position"][:2])
        env.close()
    assert tops[0] / tops[1] == pytest.approx(0.7, rel=0.08)
    assert tops[2] / tops[1] == pytest.approx(1.3, rel=0.08)
    np.testing.assert_allclose(places, np.tile(places[1], (3, 1)), atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", [GRASP, "Widow250PlaceTray-v0", "Widow250DrawerGrasp-v0"], ids=["grasp", "held", "ball"]
)
@pytest.mark.parametrize("size", [0.8, 1.2])
def test_objects_of_another_size_can_be_handled(task, size):
    env, policy = make(task, image_size=4, realism=f"object_size={size}"), make_scripted(task)
    wins = 0
    for seed in range(5):
        env.reset(seed=seed)
        policy.reset(seed)
        ended = False
        while not ended:
            _, reward, _, ended, _ = env.step(policy.act(env.ground_truth()))
        wins += reward > 0.0
    env.close()
    assert wins >= 4
