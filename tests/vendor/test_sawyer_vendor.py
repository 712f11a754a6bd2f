"""The Sawyer driver on the vendor's own client, before our twin.

Skipped where the vendor's packages are not installed; docs/sawyer.md says which and how.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rospy", reason="ROS 1 is not installed")
pytest.importorskip("intera_interface", reason="the vendor's client is not installed")

import rospy
from intera_core_msgs.msg import JointCommand
from std_srvs.srv import Trigger

from ofrl_robot.control.health import StateMonitor, judge_health
from ofrl_robot.control.pose import turned
from ofrl_robot.control.signals import Setpoint
from ofrl_robot.control.stops import StopReason
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import ARMS
from tests.robots import arm_contract
from tests.ros.conftest import ROOT, master  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow
TWIN = "sawyer_twin"
COMMANDS = "/robot/limb/right/joint_command"


def until(condition, what="it did not happen", seconds=4.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture(scope="module")
def twin(master, tmp_path_factory):  # noqa: F811 (the fixture)
    folder = tmp_path_factory.mktemp("twin")
    with open(str(folder / "log"), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "ros" / "twin_sawyer.py"), "_image_size:=16"],
            env=dict(master, ROS_NAMESPACE=f"/{TWIN}"), cwd=str(folder),
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        rospy.wait_for_service(f"/{TWIN}/twin/arrange", 30.0)
    except rospy.ROSException:
        process.kill()
        pytest.fail((folder / "log").read_text())
    yield process
    process.terminate()
    process.wait(10.0)


def fault(text):
    rospy.set_param(f"/{TWIN}/twin/next_fault", text)
    answer = rospy.ServiceProxy(f"/{TWIN}/twin/fault", Trigger)()
    assert answer.success, answer.message
    time.sleep(0.03)  # the twin looks 100 times a second


@pytest.fixture
def arm(twin):
    config = ArmConfig("sawyer", "task", load_arm_file("sawyer_twin"), settings={"home_speed": 0.3})
    arm = ARMS.load("sawyer")(config)
    try:
        arm.rearm()  # the one before disabled the robot
        arm.home()
        yield arm
    finally:  # one that is left open goes on sending
        fault("none")
        arm.close()


class Witness:
    """Hears what reaches the robot: joint commands, when they came, how far apart."""

    def __init__(self):
        self.heard = []
        self._subscriber = rospy.Subscriber(
            COMMANDS, JointCommand, self._on_command, queue_size=100, tcp_nodelay=True
        )
        time.sleep(0.2)

    def _on_command(self, message):
        self.heard.append((time.monotonic(), np.array(message.position)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._subscriber.unregister()


def step(arm, move=(0.0, 0.0, 0.0), gripper=None):
    """Command a pose that far from the measured one."""
    state = arm.state()
    target = Setpoint(np.zeros(7), state.position + move, state.orientation, gripper)
    return target, arm.command(target)


@pytest.mark.parametrize(
    "behaviour",
    [
        arm_contract.describes_itself, arm_contract.measures, arm_contract.stays_on_hold,
        arm_contract.moves, arm_contract.turns, arm_contract.refuses, arm_contract.stops,
    ],
)  # fmt: skip
def test_it_is_an_arm(arm, behaviour):
    timeless = behaviour in (arm_contract.describes_itself, arm_contract.measures)
    behaviour(arm) if timeless else behaviour(arm, until)


# -- commands


@pytest.mark.parametrize("rate", [5, 10, 20])
def test_streamed_targets_are_followed(arm, rate):
    """A target that moves at 0.15 m/s round a square; measured at the end of each period."""
    arm.control_rate_hz = float(rate)
    start, orientation = arm.state().position, arm.state().orientation
    errors, calls = [], []
    stride = 0.15 / rate
    sides = [np.array(side) for side in ((1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, -1, 0))]
    target, due = start.copy(), time.monotonic()
    for side in sides:
        for _ in range(int(0.5 * rate)):
            target = target + stride * side
            begun = time.monotonic()
            assert arm.command(Setpoint(np.zeros(7), target, orientation)).refused == ""
            calls.append(time.monotonic() - begun)
            due += 1.0 / rate
            time.sleep(max(due - time.monotonic(), 0.0))
            errors.append(np.linalg.norm(arm.state().position - target))
    print(
        f"{rate} Hz: {1e3 * np.median(errors):.1f} mm median, {1e3 * max(errors):.1f} mm most; "
        f"call {1e3 * np.median(calls):.1f} ms median, {1e3 * max(calls):.1f} ms most"
    )
    assert np.median(errors) < 0.01 and np.median(calls) < 0.03
    until(lambda: np.linalg.norm(arm.state().position - target) < 0.001, "it arrives")


def test_commands_come_at_100_hz_and_never_jump(arm):
    with Witness() as witness:
        step(arm, (0.03, 0.0, 0.0))
        time.sleep(0.5)
        times = np.diff([moment for moment, _ in witness.heard])
        jumps = np.abs(np.diff([joints for _, joints in witness.heard], axis=0)).max()
    print(f"commands: period {1e3 * np.median(times):.1f} ms median, {1e3 * times.max():.1f} most")
    assert np.median(times) == pytest.approx(0.01, abs=0.002)
    assert times.max() < 0.1, "half of the robot's time-out"
    assert jumps < 0.05


def test_a_stop_while_it_moves(arm):
    target, _ = step(arm, (0.045, 0.0, 0.0))
    time.sleep(0.1)
    with Witness() as witness:
        step(arm, (0.045, 0.0, 0.0))
        time.sleep(0.05)
        begun = time.monotonic()
        arm.stop()
        time.sleep(0.3)
        last = [t for t, q in witness.heard if np.abs(q - witness.heard[-1][1]).max() > 1e-4]
    print(f"stop to the last command that moves: {1e3 * max(0.0, max(last) - begun):.1f} ms")
    assert max(last) - begun < 0.05
    here = arm.state().position
    time.sleep(0.2)
    assert np.linalg.norm(arm.state().position - here) < 0.001


def test_the_gripper_does_not_delay_a_command(arm):
    begun = time.monotonic()
    step(arm, (0.002, 0.0, 0.0), gripper=0.0)
    assert time.monotonic() - begun < 0.1
    until(lambda: arm.state().vector[-1] < 0.002, "it closes")


def test_turning_the_hand_by_a_right_angle_in_steps(arm):
    begin = arm.state()
    orientation = begin.orientation
    for _ in range(6):
        orientation = turned(orientation, np.array([0.0, 0.0, 10.0]))
        assert arm.command(Setpoint(np.zeros(7), begin.position, orientation)).refused == ""
        time.sleep(0.2)
    until(lambda: abs(arm.state().orientation @ orientation) > 0.99999)
    assert np.linalg.norm(arm.state().position - begin.position) < 0.002


# -- what goes wrong


def watch(arm, text, seconds=8.0):
    """Inject a fault and do what the robot node does; return (fault, s until it is found)."""
    monitor = StateMonitor(arm.health_limits, arm.joint_names, arm.timing.max_state_age)
    found, closed = [], threading.Event()

    def ask():
        while not closed.is_set() and not found:
            health = judge_health(arm.health(), arm.health_limits)
            if health:
                found.append(health)
            closed.wait(1.0)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(0.3)
    fault(text)
    begun, start = time.monotonic(), arm.state()
    count = 0
    while not found and time.monotonic() - begun < seconds:
        judged = monitor.judge(arm.state(), arm.now_ns())
        if judged:
            found.append(judged)
            break
        count += 1  # to and back, so that an arm that does not follow is noticed
        away = start.position + [0.0, 0.0, 0.04 * min(count, 3)]
        arm.command(Setpoint(np.zeros(7), away, start.orientation, 1.0 - (count > 2)))
        time.sleep(0.2)
    took = time.monotonic() - begun
    closed.set()
    thread.join(2.0)
    assert found, f"{text} is not noticed within {seconds} s"
    print(f"{text}: {found[0]} after {took:.2f} s")
    return found[0].reason, took


@pytest.mark.parametrize(
    ("text", "reason", "seconds"),
    [
        ("joints_silent", StopReason.STATE_STALE, 0.6),
        ("joints_frozen", StopReason.STATE_STALE, 0.6),
        ("joints_nan", StopReason.STATE_INVALID, 0.4),
        ("joints_restamped", StopReason.STUCK, 3.0),
        ("stuck", StopReason.STUCK, 3.0),
        ("state_silent", StopReason.MOTOR_SILENT, 3.5),
        ("estop", StopReason.EMERGENCY_STOP, 1.5),
        ("error", StopReason.MOTOR_ERROR, 1.5),
        ("disabled", StopReason.TORQUE_OFF, 1.5),
        ("collision", StopReason.COLLISION, 1.5),
        ("ik_hang", StopReason.ROBOT_FAULT, 3.0),
        ("ik_empty", StopReason.ROBOT_FAULT, 3.0),
        ("ik_gone", StopReason.ROBOT_FAULT, 4.5),
        ("gripper_silent", StopReason.MOTOR_SILENT, 4.5),
    ],
)
def test_a_fault_is_found_and_a_rearm_recovers(arm, text, reason, seconds):
    found, took = watch(arm, text)
    assert found == reason
    assert took < seconds
    arm.stop()
    fault("none")
    until(lambda: _rearmed(arm), "it can be re-armed", 8.0)
    _, sent = step(arm, (0.01, 0.0, 0.0))
    assert sent.refused == ""


def _rearmed(arm):
    try:
        arm.rearm()
    except RobotError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "refused"),
    [("ik_none", "no_ik"), ("ik_nan", "no_ik"), ("ik_outside", "joint_limit")],
)
def test_bad_answers_of_the_service_are_refused(arm, text, refused):
    fault(text)
    begin = arm.state().joint_targets
    _, sent = step(arm, (0.01, 0.0, 0.0))
    assert sent.refused == refused
    assert arm.state().joint_targets == begin


def test_a_pressed_emergency_stop_must_be_released_by_a_person(arm):
    fault("estop")
    with pytest.raises(RobotError, match="release it"):
        arm.rearm()
    arm.stop()
    fault("none")
    until(lambda: _rearmed(arm), "reset and enabled", 3.0)


def test_it_is_disabled_at_the_end(arm):
    arm.close()
    state = rospy.wait_for_message("/robot/state", type(arm._client._state), 2.0)
    assert not state.enabled


def test_home_comes_back_to_the_start_pose(arm):
    for _ in range(4):
        _, sent = step(arm, (0.02, -0.03, 0.0))
        assert sent.refused == ""
        time.sleep(0.2)
    begun = time.monotonic()
    arm.home()
    print(f"home: {time.monotonic() - begun:.1f} s")
    neutral = [0.0, -1.18, 0.0, 2.18, 0.0, 0.57, 3.3161]
    joints = np.array(list(arm.state().joint_positions.values()))
    assert np.abs(joints - neutral).max() < 0.003
