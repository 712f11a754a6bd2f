"""The roboverse backend, on a small package of the real one's shape and habits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import pytest

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim import roboverse
from ofrl_robot.sim.tasks import find

# Old API throughout: registration at import, reset without a seed, steps of four, keys that the
# observation space does not declare, PyBullet without a client, prints on every occasion.
REGISTRATION = """
import gym

print("noise of the import")

GRASP = dict(object_names=("shed",), reward_type="grasping")
POOL = dict(object_names=tuple("abcdefgh"), rand_target=True)
ENVIRONMENT_SPECS = tuple(
    dict(id=id, entry_point="roboverse.envs.arm:" + name, kwargs=kwargs)
    for id, name, kwargs in (
        ("Widow250SingleObjGrasp-v0", "Arm", GRASP),
        ("Widow250PickTray-v0", "PickPlace", GRASP),
        ("Widow250DoubleDrawerOpenGraspNeutral-v0", "DoubleDrawer", GRASP),
        ("Widow250ButtonPress-v0", "Button", GRASP),
        ("Widow250PickTrayMult-v0", "PickPlace", POOL),
        ("Widow250SinglePutInBowl-v0", "Unpublished", GRASP),
        ("Widow250PutInBox-v0", "Short", GRASP),
        ("Widow250MultiTaskGrasp-v0", "Shaky", GRASP),
    )
)
for spec in ENVIRONMENT_SPECS:
    gym.register(**spec)
"""

ENVIRONMENT = """
import os
import sys
import gym
import numpy as np
import pybullet as p
from ofrl_robot.sim.world import ASSETS


class Arm(gym.Env):
    def __init__(self, observation_img_dim=48, transpose_image=True, object_names=(),
                 reward_type="grasping", rand_target=False, num_obj_sample=99):
        print("noise of the constructor")
        os.write(1, b"noise of C")
        os.write(2, b"noise of C")
        sys.__stdout__.flush()
        self.observation_img_dim = observation_img_dim
        self.transpose_image = transpose_image
        self.object_names, self.rand_target = object_names, rand_target
        self.num_obj_sample = min(num_obj_sample, len(object_names))
        self.target_object = object_names[0]
        self.observation_space = gym.spaces.Dict(state=gym.spaces.Box(-100, 100, (10,)))
        p.connect(p.DIRECT)
        self.view = p.computeViewMatrixFromYawPitchRoll((0.6, 0.2, -0.28), 0.29, 180, -40, 0, 2)
        self.projection = p.computeProjectionMatrixFOV(60, 1.0, 0.1, 2)
        self.reset()

    def load(self, name, position):
        return p.loadURDF(os.path.join(ASSETS, name + ".urdf"), position)

    def reset(self):
        if self.rand_target:
            self.target_object = np.random.choice(self.object_names[:self.num_obj_sample])
            print("target", self.target_object)
        p.resetSimulation()
        self.robot_id = self.load("wx250s", (0.6, 0.0, -0.4))
        spot = np.random.uniform((0.53, 0.15, -0.3), (0.68, 0.25, -0.3))
        self.objects = {self.target_object: self.load("block", spot)}
        self.is_gripper_open = True
        return self.get_observation()

    def step(self, action):
        print("noise of a step")
        p.setJointMotorControl2(self.robot_id, 0, p.POSITION_CONTROL, float(action[0]))
        self.is_gripper_open = action[6] > -0.5
        for _ in range(10):
            p.stepSimulation()
        info = self.get_info()
        return self.get_observation(), float(info["grasp_success_target"]), False, info

    def get_info(self):
        low = np.float64(self.get_object()[0][2]) < 9.0
        drawn = np.int64(self.object_names.index(self.target_object))
        return {"grasp_success": False, "grasp_success_target": low, "drawn": drawn}

    def get_object(self):
        pose = p.getBasePositionAndOrientation(self.objects[self.target_object])
        return [np.asarray(part) for part in pose]

    def get_observation(self):
        position, orientation = self.get_object()
        ee = p.getLinkState(self.robot_id, 8)
        fingers = [p.getJointState(self.robot_id, joint)[0] for joint in (10, 11)]
        state = np.concatenate((ee[0], ee[1], fingers, [float(self.is_gripper_open)]))
        image = np.float32(self.render_obs().flatten()) / 255.0
        return dict(
            object_position=position, object_orientation=orientation, state=state, image=image
        )

    def render_obs(self):
        size = self.observation_img_dim
        image = p.getCameraImage(size, size, self.view, self.projection, shadow=0)[2][:, :, :-1]
        return np.transpose(image, (2, 0, 1)) if self.transpose_image else image

    def close(self):
        p.disconnect()


class PickPlace(Arm):
    place_success_radius_threshold = 0.04

    def reset(self):
        self.container_position = np.array((0.5, 0.25, -0.37))
        super().reset()
        self.container_id = self.load("block", self.container_position)
        return self.get_observation()

    def get_info(self):
        return dict(super().get_info(), place_success_target=np.bool_(True))


class DoubleDrawer(Arm):
    left_opening, drawer_pos, tray_position = True, (0.47, 0.2, -0.35), (0.8, 0.0, -0.37)

    def reset(self):
        super().reset()
        self.objects["drawer"] = self.load("block", (0.47, 0.2, -0.35))
        self.objects["drawer_top"] = self.load("block", (0.47, 0.2, -0.28))
        self.blocking_object = self.load("block", (0.8, 0.0, -0.34))
        return self.get_observation()

    def get_drawer_handle_pos(self):
        return np.array((0.58, 0.2, -0.35))

    def get_drawer_pos(self, drawer_key="drawer"):
        return np.array(p.getBasePositionAndOrientation(self.objects[drawer_key])[0])

    def get_drawer_opened_percentage(self, drawer_key="drawer"):
        return {"drawer": np.float64(0.25), "drawer_top": np.float64(0.5)}[drawer_key]


class Button(Arm):
    def reset(self):
        super().reset()
        self.objects["button"] = self.load("block", (0.5, 0.2, -0.3))
        return self.get_observation()

    def get_button_pos(self):
        return np.array((0.5, 0.2, -0.3))

    def get_info(self):
        pressed = dict(button_pressed_percentage=np.float64(0.1), button_pressed_success=0.0)
        return dict(super().get_info(), **pressed)


class Unpublished(Arm):
    def reset(self):
        p.loadURDF("bowl/bowl.urdf")  # and PyBullet's C code complains on standard output


class Short(Arm):
    def get_info(self):
        raise KeyError("two_handled_vase")


class Shaky(Arm):
    def step(self, action):
        raise ValueError("lost a bolt")
"""


@pytest.fixture
def package(tmp_path):
    """The folder of such a package, as PYTHONPATH has it."""
    root = tmp_path / "path"
    for name, text in {
        "roboverse/__init__.py": "from .envs.registration import ENVIRONMENT_SPECS\n",
        "roboverse/envs/__init__.py": "",
        "roboverse/envs/registration.py": REGISTRATION,
        "roboverse/envs/arm.py": ENVIRONMENT,
        "roboverse/assets/bullet-objects/ShapeNetCore/metadata.py": "",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


PREAMBLE = """
import sys
import numpy as np
from ofrl_robot.errors import ConfigError, OfrlError, RobotError
from ofrl_robot.sim import make
from ofrl_robot.sim.engine import pybullet

GRASP, TRAY = "Widow250SingleObjGrasp-v0", "Widow250PickTray-v0"
DRAWER = "Widow250DoubleDrawerOpenGraspNeutral-v0"

def real(task, **kwargs):
    return make(task, sim_backend="roboverse", **kwargs)

def refusal(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except OfrlError as error:
        assert "\\n" not in str(error)
        return "{}: {}".format(type(error).__name__, error)
    raise AssertionError("not refused")

def connected():
    return bool(pybullet.getConnectionInfo(physicsClientId=0)["isConnected"])

def rollout(env, seed):
    observation, _ = env.reset(seed=seed)
    bits = [observation[key].tobytes() for key in sorted(observation)]
    for action in np.random.default_rng(1).uniform(-1, 1, (3, 8)):
        observation = env.step(action)[0]
        bits += [observation[key].tobytes() for key in sorted(observation)]
    return b"".join(bits)

"""


def run(package, code, tmp_path):
    """Standard output and error of ``code`` in a process of its own, in an empty folder."""
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)
    paths = os.pathsep.join([str(package)] + [path for path in sys.path if path])
    # Standard output buffered, as it is where it goes to a file.
    settings = dict(PYTHONPATH=paths, PYTHONUNBUFFERED="", OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)],
        cwd=str(here),
        env=dict(os.environ, **settings),
        capture_output=True,
        timeout=120,
    )
    out, error = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, error
    assert not list(here.iterdir()), "left files in the current folder"
    return out, error


@pytest.mark.slow
def test_an_episode_is_a_function_of_its_seed_and_nothing_is_printed(package, tmp_path):
    code = """
    before = np.random.get_state()[1].copy()
    sys.stdout.write("first,")  # still in the buffer when standard output is redirected
    env = real(GRASP)
    first = rollout(env, 5)
    assert rollout(env, 6) != first
    assert rollout(env, 5) == first
    env.close()
    env = real(GRASP, roboverse_bugs=True)  # which it has anyway
    assert rollout(env, 5) == first
    assert np.array_equal(np.random.get_state()[1], before), "numpy's generator was moved"
    print("last")
    """
    assert run(package, code, tmp_path) == ("first,last\n", "")


@pytest.mark.slow
def test_observations_are_those_of_roboverse(package, tmp_path):
    code = """
    import gymnasium
    env = gymnasium.make("ofrl_robot/" + TRAY, sim_backend="roboverse", image_format="hwc",
                         image_size=32, render_mode="rgb_array", render_size=64)
    env.reset(seed=3)
    observation, reward, terminated, truncated, info = env.step(np.zeros(8, np.float32))
    assert env.observation_space.contains(observation)
    simulation = env.unwrapped.simulation
    assert simulation.image(64).shape == env.render().shape == (64, 64, 3)
    own = simulation.image(32)
    state, joints = simulation.state(), simulation.joints()
    assert joints["left_finger"] == state[7] and len(joints) == 9
    assert (reward, terminated, truncated) == (1.0, False, False)
    assert {type(info[key]) for key in ("grasp_success_target", "place_success_target")} == {bool}
    assert type(info["drawn"]) is float
    for _ in range(39):
        truncated = env.step(np.zeros(8, np.float32))[3]
    assert truncated
    env.close()

    # the same by hand
    from gymnasium.utils import seeding
    from roboverse.envs.arm import PickPlace
    theirs = PickPlace(observation_img_dim=32, transpose_image=False, object_names=("shed",))
    np.random.seed(int(seeding.np_random(3)[0].integers(2**32)))
    theirs.reset()
    expected = theirs.step(np.zeros(8))[0]
    assert set(expected) == set(observation)
    for key in expected:
        assert np.array_equal(expected[key], observation[key]), key
    assert np.array_equal(np.uint8(expected["image"] * 255.0).reshape(32, 32, 3), own)
    assert own.std() > 5, "an empty picture"
    """
    run(package, code, tmp_path)


@pytest.mark.slow
def test_scripted_policies_find_what_they_need(package, tmp_path):
    code = """
    from ofrl_robot.sim.scripted import make_scripted
    for task in (GRASP, TRAY, "Widow250ButtonPress-v0", DRAWER):
        ours, theirs = make(task), real(task)
        theirs.reset(seed=0), ours.reset(seed=0)
        truth, twin = theirs.ground_truth(), ours.ground_truth()
        assert set(truth) == set(twin), set(truth) ^ set(twin)
        for key in twin:
            assert truth[key].dtype == np.float64 and truth[key].shape == twin[key].shape, key
        make_scripted(task).act(truth)
        truth["object_position"][:] = 7.0
        assert (theirs.ground_truth()["object_position"] != 7.0).all(), "shared, not copied"
        ours.close(), theirs.close()
    print(truth["drawer_opened"], truth["top_opened"], truth["drawer_direction"])
    """
    assert run(package, code, tmp_path)[0] == "[0.25] [0.5] [1.]\n"


@pytest.mark.slow
def test_one_per_process(package, tmp_path):
    code = """
    env = real(GRASP)
    first = rollout(env, 5)
    print(refusal(real, TRAY))
    beside = make(GRASP)
    moved = rollout(beside, 2)
    assert rollout(env, 5) == first and rollout(beside, 2) == moved
    env.close(), env.close()
    assert not connected()
    assert rollout(beside, 2) == moved, "closing took the embedded world with it"
    env = real(TRAY)
    beside.close()
    env.reset(seed=0)
    env.close()

    beside = make(GRASP)
    moved = rollout(beside, 2)  # has PyBullet's first client now
    print(refusal(real, GRASP))
    assert rollout(beside, 2) == moved
    beside.close()
    real(GRASP).close()
    """
    lines = run(package, code, tmp_path)[0].splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ConfigError") and "first client" in line for line in lines)


@pytest.mark.slow
def test_what_it_cannot_build_is_refused_and_nothing_stays_open(package, tmp_path):
    code = """
    for task in ("SinglePutInBowl", "PutInBox", "DrawerOpen"):
        print(refusal(real, "Widow250{}-v0".format(task)))
        assert not connected()
    print(refusal(real, GRASP, num_objects=3))
    env = real("Widow250PickTrayMult-v0", num_objects=3)
    assert {env.reset(seed=seed)[1]["drawn"] for seed in range(30)} == {0.0, 1.0, 2.0}
    env.close()

    env = real("Widow250MultiTaskGrasp-v0")
    print(refusal(env.step, np.zeros(8)))
    env.reset(seed=0)
    print(refusal(env.step, np.zeros(8)))
    print(refusal(env.step, np.zeros(8)))
    env.reset(seed=0)
    """
    out, error = run(package, code, tmp_path)
    wanted = (
        "SinglePutInBowl-v0.*cannot build.*Cannot load URDF file",
        "PutInBox-v0.*cannot build.*KeyError: 'two_handled_vase'",
        "DrawerOpen-v0: .*no such task",
        "num_objects 3",
        "RobotError: .*no running episode",
        "RobotError: .*ValueError: lost a bolt",
        "RobotError: .*no running episode",
    )
    assert error == ""
    lines = out.splitlines()
    assert len(lines) == len(wanted)
    for line, pattern in zip(lines, wanted):
        assert re.search(pattern, line), line


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False], ids=["gym", "gymnasium"])
def test_gym_is_used_where_it_is_installed_and_gymnasium_else(package, tmp_path, installed):
    gym = package / "gym.py"
    text = "from gymnasium import Env, register, spaces\n" if installed else "raise ImportError\n"
    gym.write_text(text)
    code = """
    env = real(GRASP)
    env.reset(seed=0)
    print(sys.modules["roboverse.envs.arm"].gym.__file__)
    """
    out, _ = run(package, code, tmp_path)
    assert (out.strip() == str(gym)) is installed


def test_a_package_that_does_not_import_is_one_line(package, tmp_path):
    (package / "roboverse" / "envs" / "arm.py").write_text("import nothing_of_this_name\n")
    out, error = run(package, "print(refusal(real, GRASP))", tmp_path)
    assert "cannot be imported" in out and "nothing_of_this_name" in out and error == ""


def locate(monkeypatch, root):
    """Start on a package of a name that cannot be installed already."""
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr(roboverse, "PACKAGE", "roboverse_of_this_test")
    roboverse.RoboverseSimulation(find("Widow250PickTray-v0").spec)


def test_not_installed_says_where_to_get_it(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="not installed.*git clone https://github.com/"):
        locate(monkeypatch, tmp_path)
    (tmp_path / "roboverse_of_this_test").mkdir()  # a clone's outer folder, say
    with pytest.raises(ConfigError, match="not installed"):
        locate(monkeypatch, tmp_path)


def test_missing_assets_say_what_to_copy_where(monkeypatch, tmp_path):
    package = tmp_path / "roboverse_of_this_test"
    (package / "assets" / "bullet-objects").mkdir(parents=True)  # as a dangling submodule is
    (package / "__init__.py").write_text("raise AssertionError('must not be imported')")
    with pytest.raises(ConfigError, match="copy .*bullet-objects of https") as caught:
        locate(monkeypatch, tmp_path)
    assert str(package / "assets" / "bullet-objects") in str(caught.value)
