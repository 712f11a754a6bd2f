"""The WidowX driver on the vendor's own client: before our twin, and before the vendor's simulator.

Skipped where the vendor's packages are not installed; docs/widowx.md says which and how.
"""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rospy", reason="ROS 1 is not installed")
pytest.importorskip("interbotix_xs_modules.arm", reason="the vendor's client is not installed")

import rospkg
import rospy
from interbotix_xs_msgs.msg import JointGroupCommand
from std_srvs.srv import Trigger

from ofrl_robot.control.health import StateMonitor, judge_health
from ofrl_robot.control.signals import Setpoint
from ofrl_robot.control.stops import StopReason
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import episode_paths
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import ARMS
from ofrl_robot.robots.widowx_settings import START_POSES
from tests.robots import arm_contract
from tests.robots.fake_interbotix import ARM, SLEEP
from tests.ros.conftest import ROOT, launch, master  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ros")]
TWIN = "wx_twin"  # robot_name, and namespace of the scene
STOCK = "wx250s"
CONTRACT = ("describes_itself", "measures", "stays_on_hold", "moves", "turns", "refuses", "stops")
TIMELESS = ("describes_itself", "measures")


def package(name):
    """Folder of a ROS package, None when it is not installed."""
    try:
        return Path(rospkg.RosPack().get_path(name))
    except rospkg.ResourceNotFound:
        return None


# looked up now: the tests' own master narrows ROS_PACKAGE_PATH to this repository
SDK, CONTROL = package("interbotix_xs_sdk"), package("interbotix_xsarm_control")


def wait(condition, what, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def make_arm(robot_name, **settings):
    settings = {
        "robot_name": robot_name,
        "start_joints": "roboverse",
        "sleep_on_close": False,
        "move_speed": 1.5,
        **settings,
    }
    config = ArmConfig("widowx", "reach", load_arm_file("widowx_twin"), settings=settings)
    return ARMS.load("widowx")(config)


def start(words, namespace, environment, log, folder):
    with open(str(log), "wb") as out:
        return subprocess.Popen(
            words,
            env=dict(environment, ROS_NAMESPACE=namespace),
            cwd=str(folder),
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def end(process):
    process.terminate()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def twin(master, tmp_path_factory):  # noqa: F811 (the fixture)
    folder = tmp_path_factory.mktemp("twin")
    node = [sys.executable, str(ROOT / "ros" / "twin_widowx.py")]
    words = [*node, f"_robot_name:={TWIN}", "_image_size:=16"]
    process = start(words, f"/{TWIN}", master, folder / "log", folder)
    try:
        rospy.wait_for_service(f"/{TWIN}/twin/fault", 30.0)
    except rospy.ROSException:
        end(process)
        pytest.fail((folder / "log").read_text())
    yield process
    end(process)


def fault(text):
    rospy.set_param(f"/{TWIN}/twin/next_fault", text)
    answer = rospy.ServiceProxy(f"/{TWIN}/twin/fault", Trigger)()
    assert answer.success, answer.message


@pytest.fixture
def make(twin):
    arms = []

    def build(**settings):
        arms.append(make_arm(TWIN, **settings))
        arms[-1].home()
        return arms[-1]

    yield build
    fault("none")
    for arm in arms:
        wait(lambda arm=arm: StopReason.ARM_BLOCKED not in reasons(arm), "services answer again")
        arm.rearm()
        arm.close()


@pytest.fixture
def arm(make):
    return make()


def reasons(arm):
    return [found.reason for found in arm.health().faults]


def holding(arm):
    """A setpoint at the last target: what a robot node sends when nobody acts."""
    state = arm.state()
    pose = arm_contract.pose_of(arm)
    return Setpoint(np.zeros(7), pose.position, state.orientation)


def watch(arm, text="", seconds=4.0, away=0.0):
    """Do what the robot node does, at 10 Hz and once a second, from before a fault begins.

    Args:
        text: fault that begins after 0.5 s.
        away: m along x that the arm is then told to move.

    Returns:
        (what was found, seconds after the fault).
    """
    monitor = StateMonitor(arm.health_limits, arm.joint_names, arm.timing.max_state_age)
    found, closed = [], threading.Event()

    def ask():
        while not closed.is_set():
            seen = judge_health(arm.health(), arm.health_limits)
            if seen:
                found.append((seen, time.monotonic()))
                return
            closed.wait(1.0)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    pose, began, faulty = arm_contract.pose_of(arm), time.monotonic(), 0.0
    while time.monotonic() - began < seconds and not found:
        seen = monitor.judge(arm.state(), arm.now_ns())
        if seen:
            found.append((seen, time.monotonic()))
        elif not faulty and time.monotonic() - began > 0.5:
            fault(text or "none")
            faulty = time.monotonic()
            place = pose.position + [away, 0.0, 0.0]
            assert arm.command(Setpoint(np.zeros(7), place, pose.orientation)).refused == ""
        closed.wait(0.1)
    closed.set()
    thread.join(3.0)
    seen, when = found[0] if found else (None, time.monotonic())
    print(f"{text}: {seen} after {when - faulty:.2f} s")
    return seen, when - faulty


# -- the twin --------------------------------------------------------------------------------


@pytest.mark.parametrize("promise", CONTRACT)
def test_the_driver_keeps_the_contract_on_the_vendors_client(arm, promise):
    arguments = () if promise in TIMELESS else (wait,)
    getattr(arm_contract, promise)(arm, *arguments)


@pytest.mark.parametrize("rate", [5, 10, 20])
def test_streamed_targets_are_followed_with_the_lag_of_one_profile(make, rate):
    arm = make(control_rate_hz=rate)
    begin = arm_contract.pose_of(arm)
    speed, errors, calls = 0.05, [], []
    due = time.monotonic()
    for step in range(1, rate + 1):
        place = begin.position + [0.0, speed * step / rate, 0.0]
        called = time.monotonic()
        assert arm.command(Setpoint(np.zeros(7), place, begin.orientation)).refused == ""
        calls.append(time.monotonic() - called)
        due += 1.0 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        errors.append(np.linalg.norm(arm.state().position - place))
    wait(lambda: np.linalg.norm(arm.state().position - place) < 0.001, "it arrives")
    print(
        f"{rate} Hz: error at the end of a period {1e3 * np.median(errors):.2f} mm median, "
        f"{1e3 * max(errors):.2f} max; call {1e3 * np.median(calls):.1f} ms median, "
        f"{1e3 * max(calls):.1f} max"
    )
    assert max(errors) < speed * 1.25 / rate + 0.003, "a profile is 1.25 periods"


@pytest.mark.parametrize(
    "text, reason, within",
    [
        ("states_silent", StopReason.STATE_STALE, 0.6),
        ("states_nan:elbow", StopReason.STATE_INVALID, 0.4),
        ("states_garbage:waist", StopReason.STATE_INVALID, 0.4),
        ("overload:shoulder", StopReason.MOTOR_ERROR, 1.6),
        ("motor_silent:waist", StopReason.MOTOR_SILENT, 1.6),
        ("motor_silent:wrist_angle", StopReason.MOTOR_SILENT, 1.6),
        ("torque_off", StopReason.TORQUE_OFF, 1.6),
        ("hot:elbow", StopReason.OVERHEATED, 1.6),
        ("service_hang", StopReason.ARM_BLOCKED, 2.8),
        ("service_error", StopReason.ARM_BLOCKED, 1.6),
    ],
)
def test_a_fault_is_found_in_time(arm, text, reason, within):
    found, taken = watch(arm, text)
    assert found is not None and found.reason is reason
    assert taken < within
    arm.stop()


@pytest.mark.parametrize("text", ["states_frozen", "blocked:waist"])
def test_an_arm_that_does_not_follow_is_found_when_it_is_moved(arm, text):
    found, _ = watch(arm, text, away=0.04)
    assert found is not None and found.reason in (StopReason.STUCK, StopReason.EFFORT)


def test_a_stop_is_the_last_word_and_the_arm_stands(arm):
    commands = []
    subscriber = rospy.Subscriber(
        f"/{TWIN}/commands/joint_group", JointGroupCommand, lambda m: commands.append(list(m.cmd))
    )
    wait(lambda: subscriber.get_num_connections() > 0, "it listens")
    begin = arm_contract.pose_of(arm)
    moved = Setpoint(np.zeros(7), begin.position + [0.0, 0.05, 0.0], begin.orientation)
    assert arm.command(moved).refused == ""
    wait(lambda: abs(arm.state().position[1] - begin.position[1]) > 0.01, "it moves")
    asked = time.monotonic()
    arm.stop()
    stopped = time.monotonic() - asked
    wait(lambda: max(map(abs, arm.state().joint_velocities.values())) < 0.02, "it stands")
    stands = time.monotonic() - asked
    assert arm.command(moved).refused
    assert arm.state().position[1] < begin.position[1] + 0.045, "it did not go on"
    print(f"stop() took {1e3 * stopped:.1f} ms, the arm stood after {1e3 * stands:.0f} ms")
    held = list(arm.state().joint_targets.values())
    wait(lambda: commands and commands[-1] == pytest.approx(held, abs=1e-6), "the hold is last")
    subscriber.unregister()


def test_an_overloaded_arm_is_mended_by_rearm_and_moves_again(arm):
    found, _ = watch(arm, "overload:elbow")
    assert "motor elbow: overload" in str(found)
    arm.stop()
    arm.rearm()
    assert arm.health().faults == ()
    assert arm._client.registers("Profile_Velocity")[:6] == [250] * 6, "written again"
    arm.home()


def test_a_second_homing_is_refused_while_the_states_are_silent(arm):
    fault("states_silent")
    wait(lambda: arm.now_ns() - arm.state().stamp_ns > 0.3e9, "they are old")
    with pytest.raises(RobotError, match="joint states are"):
        arm.home()


def test_the_gripper_closes_and_opens(arm):
    begin = holding(arm)
    for value, low, high in ((0.0, 0.0, 0.0155), (1.0, 0.0365, 0.04)):
        arm.command(Setpoint(np.zeros(7), begin.position, begin.orientation, value))
        wait(lambda low=low, high=high: low < arm.state().vector[7] < high, f"gripper {value}")


# -- the end of the robot node -----------------------------------------------------------------


@pytest.fixture
def robot_node(twin, master, tmp_path):  # noqa: F811 (the fixture)
    settings = f"{{robot_name: {TWIN}, sleep_on_close: true, move_speed: 1.5}}"
    words = [sys.executable, str(ROOT / "ros" / "robot_node.py"), "_robot:=widowx", "_twin:=true",
             "_task:=Widow250SingleObjGrasp-v0", "_horizon:=30", "_image_size:=16",
             f"_settings:={settings}"]  # fmt: skip
    process = start(words, f"/{TWIN}", master, tmp_path / "log", tmp_path)
    try:
        rospy.wait_for_service(f"/{TWIN}/stop", 30.0)
    except rospy.ROSException:
        end(process)
        pytest.fail((tmp_path / "log").read_text())
    yield process
    if process.poll() is None:
        end(process)


def interrupted(process):
    """Ctrl-C; return the joints and the torque of the arm that is left behind."""
    process.send_signal(signal.SIGINT)
    process.wait(14.0)  # roslaunch kills after 15 s
    arm = make_arm(TWIN)
    joints = np.array([arm.state().joint_positions[name] for name in ARM])
    torque = arm._client.registers("Torque_Enable")[:6]
    arm.rearm()
    arm.home()
    arm.close()
    return joints, torque


def test_at_ctrl_c_the_arm_goes_to_sleep_and_lets_go(robot_node):
    joints, torque = interrupted(robot_node)
    assert joints == pytest.approx(SLEEP, abs=0.3) and torque == [0] * 6


def test_at_ctrl_c_a_stopped_arm_stays_where_it_is(robot_node):
    assert rospy.ServiceProxy(f"/{TWIN}/stop", Trigger)().success
    joints, torque = interrupted(robot_node)
    assert joints == pytest.approx(START_POSES["roboverse"], abs=0.05) and torque == [1] * 6


def test_a_session_is_collected_through_the_twin(launch, tmp_path):  # noqa: F811 (the fixture)
    out = tmp_path / "data"
    text = launch(
        "collect.launch", robot="widowx", twin=True, horizon=30, episodes=2, out=out, image_size=32
    ).wait(100.0)
    assert len(episode_paths(out)) == 2, text[-2000:]
    episode = read_episode(episode_paths(out)[0])
    assert episode.meta.robot == "widowx" and episode.meta.environment["twin"] is True
    assert episode.meta.success == 1, "the scripted policy grasps through the vendor's client"
    assert episode.actions.shape == (30, 7)


# -- the vendor's simulated node -------------------------------------------------------------


@pytest.fixture(scope="module")
def stock(master, tmp_path_factory):  # noqa: F811 (the fixture)
    if None in (SDK, CONTROL):
        pytest.skip("the vendor's node is not on ROS_PACKAGE_PATH")
    script, config = SDK / "scripts" / "xs_sdk_sim", CONTROL / "config"
    pytest.importorskip("urdf_parser_py", reason="the vendor's node needs it")
    sys.path.insert(0, str(ROOT / "ros"))
    describe = importlib.import_module("twin_widowx").describe
    describe(STOCK)
    folder = tmp_path_factory.mktemp("stock")
    words = [
        sys.executable,
        str(script),
        f"_motor_configs:={config / 'wx250s.yaml'}",
        f"_mode_configs:={config / 'modes.yaml'}",
    ]
    process = start(words, f"/{STOCK}", master, folder / "log", folder)
    try:
        rospy.wait_for_service(f"/{STOCK}/get_motor_registers", 30.0)
    except rospy.ROSException:
        end(process)
        pytest.fail((folder / "log").read_text())
    yield process
    end(process)


@pytest.mark.parametrize("promise", CONTRACT)
def test_the_driver_keeps_the_contract_on_the_vendors_simulator(stock, promise):
    arm = make_arm(STOCK)
    arm.home()
    assert arm.state().joint_velocities == {} == arm.state().joint_efforts
    assert arm.health().faults == () and arm.health().temperatures == {}
    arguments = () if promise in TIMELESS else (wait,)
    getattr(arm_contract, promise)(arm, *arguments)
    arm.close()
