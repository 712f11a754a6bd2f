"""The Sawyer driver against a fake of the vendor's client: what it sends, refuses and notices."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from ofrl_robot.control.health import StateMonitor
from ofrl_robot.control.pose import rotation_from, rotation_vector, turned
from ofrl_robot.control.signals import Setpoint
from ofrl_robot.control.stops import StopReason
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import ARMS
from ofrl_robot.robots.sawyer_client import SawyerClient
from ofrl_robot.robots.sawyer_settings import SawyerSettings
from tests.robots import arm_contract
from tests.robots.fake_intera import NAMES, NEUTRAL, SPEEDS, FakeRobot, forward, modules


@pytest.fixture
def robot(monkeypatch):
    robot = FakeRobot()
    for name, module in modules(robot).items():
        monkeypatch.setitem(sys.modules, name, module)
    yield robot
    robot.close()


@pytest.fixture
def build(robot):
    arms = []

    def start(**settings):
        # 10 Hz: a step takes half as long as by default
        config = ArmConfig("sawyer", "task", load_arm_file("sawyer_twin"), settings={
            "control_rate_hz": 10, "disable_on_close": False, **settings
        })  # fmt: skip
        arms.append(ARMS.load("sawyer")(config))
        return arms[-1]

    yield start
    robot.release.set()
    for arm in arms:
        arm.close()


@pytest.fixture
def arm(build):
    return build()


def until(condition, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def setpoint(arm, move=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), gripper=None):
    state = arm.state()
    return Setpoint(
        np.zeros(7), state.position + move, turned(state.orientation, np.array(turn)), gripper
    )


def reasons(arm):
    return [fault.reason for fault in arm.health().faults]


# -- what every arm must do


@pytest.mark.parametrize(
    "behaviour",
    [
        arm_contract.describes_itself, arm_contract.measures, arm_contract.closes,
    ],
)  # fmt: skip
def test_it_is_an_arm(arm, behaviour):
    behaviour(arm)


@pytest.mark.slow
@pytest.mark.parametrize(
    "behaviour",
    [
        arm_contract.stays_on_hold, arm_contract.moves, arm_contract.turns,
        arm_contract.refuses, arm_contract.stops,
    ],
)  # fmt: skip
def test_it_moves_as_an_arm(arm, behaviour):
    behaviour(arm, lambda condition, what: until(condition))


# -- commands


def test_a_command_moves_the_tip_there(arm, robot):
    target = setpoint(arm, (0.02, -0.01, 0.015))
    assert arm.command(target).refused == ""
    until(lambda: np.abs(arm.state().position - target.position).max() < 1e-3)


@pytest.mark.parametrize("axis", range(3))
def test_a_turn_about_each_axis_comes_back_as_that_turn(arm, axis):
    before = arm.state().orientation
    turn = 8.0 * np.eye(3)[axis]
    assert arm.command(setpoint(arm, turn=turn)).refused == ""
    origin = rotation_from(before)
    until(lambda: np.abs(rotation_vector(arm.state().orientation, origin) - turn).max() < 0.1)


def test_the_target_is_sent_at_100_hz_by_one_thread_and_never_jumps(arm, robot):
    arm.command(setpoint(arm, (0.03, 0.0, 0.0)))
    time.sleep(0.25)
    sent = list(robot.commands)
    times = np.diff([moment for moment, _, _ in sent])
    assert len({thread for _, thread, _ in sent}) == 1
    assert np.median(times) == pytest.approx(0.01, abs=0.002)
    steps = np.abs(np.diff([joints for _, _, joints in sent], axis=0)).max(axis=1)
    # 0.06 rad in 0.1 s; a message may be late, then its step is longer
    assert (steps < 0.6 * (times + 0.005)).all()
    assert np.max([joints[0] for _, _, joints in sent]) == pytest.approx(0.06, abs=1e-6)


def test_the_same_target_is_not_solved_again_so_a_hold_cannot_creep(arm, robot):
    target = setpoint(arm, (0.01, 0.0, 0.0))
    for _ in range(5):
        assert arm.command(target).refused == ""
    assert robot.calls.count("ik") == 1


@pytest.mark.parametrize(
    ("ik", "refused"),
    [
        ("none", "no_ik"),
        ("gone", "no_ik"),
        ("empty", "no_ik"),
        ("nan", "no_ik"),
        ("hang", "no_ik"),
        ("outside", "joint_limit"),
        ("far", "joint_speed"),
    ],
)
def test_what_cannot_be_reached_is_refused_and_nothing_moves(arm, robot, ik, refused):
    robot.ik = ik
    target, goal = setpoint(arm, (0.02, 0.0, 0.0), gripper=0.0), arm._stream.goal()
    begun = time.monotonic()
    assert arm.command(target).refused == refused
    assert time.monotonic() - begun < 0.3
    assert np.array_equal(arm._stream.goal(), goal)
    assert robot.gripper_commands == []


def test_a_joint_never_moves_faster_than_its_limit_and_what_takes_too_long_is_refused(arm, robot):
    speed = 0.5 * SPEEDS[0]  # rad/s
    step = speed * 0.1 * 0.5  # m in a period: the toy arm moves 0.5 m per rad
    assert arm.command(setpoint(arm, (2.1 * step, 0.0, 0.0))).refused == "joint_speed"
    robot.commands.clear()
    assert arm.command(setpoint(arm, (1.9 * step, 0.0, 0.0))).refused == ""
    time.sleep(0.25)
    times, _, joints = zip(*robot.commands)
    moved = np.diff([one[0] for one in joints])
    assert joints[-1][0] == pytest.approx(1.9 * speed * 0.1, abs=1e-6)
    assert (moved <= speed * (np.diff(times) + 0.005)).all()


def test_limits_of_joints_are_those_of_the_robot(arm):
    assert arm.limits.joints["right_j6"] == (-4.71, 4.71)
    assert arm.limits.joint_speeds["right_j1"] == pytest.approx(0.5 * 1.328)


# -- inverse kinematics that fails for good


def test_a_service_that_hangs_becomes_a_fault_and_a_rearm_asks_anew(arm, robot, monkeypatch):
    monkeypatch.setattr("ofrl_robot.robots.sawyer._UNANSWERED", 0.3)
    robot.ik = "hang"
    arm.command(setpoint(arm, (0.01, 0.0, 0.0)))
    assert reasons(arm) == [], "one late answer is no fault"
    time.sleep(0.2)
    arm.command(setpoint(arm, (0.01, 0.0, 0.0)))
    assert robot.calls.count("ik") == 1, "no second request while the first hangs"
    assert reasons(arm) == [StopReason.ROBOT_FAULT]
    robot.ik = "ok"
    arm.rearm()
    assert reasons(arm) == []
    assert arm.command(setpoint(arm, (0.01, 0.0, 0.0))).refused == ""


def test_a_service_that_is_gone_is_told_from_poses_out_of_reach(arm, robot):
    robot.ik = "gone"
    for i in range(10):
        assert reasons(arm) == [], i
        arm.command(setpoint(arm, (0.01, 0.0, 0.0)))
    assert reasons(arm) == [StopReason.ROBOT_FAULT]


# -- stop, re-arm


def test_a_stop_holds_the_measured_pose_in_any_thread_and_twice(arm, robot):
    arm.command(setpoint(arm, (0.04, 0.0, 0.0)))
    time.sleep(0.04)
    threads = [threading.Thread(target=arm.stop) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    here = robot.joints[0]
    time.sleep(0.15)
    assert robot.joints[0] == pytest.approx(here, abs=0.02)
    assert robot.joints[0] < 0.06, "it did not go on to its target"
    assert np.abs(robot.commands[-1][2] - robot.joints).max() < 1e-6, "it goes on being held"


def test_a_stop_wins_over_a_command_that_is_being_solved(arm, robot):
    robot.ik = "hang"
    stopper = threading.Timer(0.03, lambda: (arm.stop(), robot.release.set()))
    goal = arm._stream.goal()

    def solve(*_):
        robot.release.wait(1.0)
        return NEUTRAL + [0.01, 0, 0, 0, 0, 0, 0]

    arm._client.solve = solve
    stopper.start()
    assert arm.command(setpoint(arm, (0.005, 0.0, 0.0))).refused == "stopped"
    assert np.abs(arm._stream.goal() - goal).max() < 1e-9


def test_a_stop_with_an_unusable_measurement_holds_the_target(arm, robot):
    robot.nan = True
    until(lambda: np.isnan(arm.state().joint_positions["right_j0"]))
    arm.stop()
    assert np.isfinite(arm._stream.goal()).all()
    robot.nan = False


def test_rearm_resets_and_enables_and_aims_at_where_the_arm_was_moved_to(arm, robot):
    robot.press()
    until(lambda: reasons(arm)[:1] == [StopReason.EMERGENCY_STOP])
    with pytest.raises(RobotError, match="release it"):
        arm.rearm()
    robot.unpress()
    robot.joints = NEUTRAL + 0.1  # by hand
    time.sleep(0.03)
    robot.commands.clear()
    arm.rearm()
    time.sleep(0.05)
    assert [call for call in robot.calls if call != "ik"] == ["reset", "enable"]
    assert reasons(arm) == []
    moved = np.array([joints for _, _, joints in robot.commands])
    assert np.abs(moved - robot.joints).max() < 1e-6, "it does not spring back"


def test_an_error_of_a_robot_that_is_not_stopped_is_cleared(arm, robot):
    robot.error = True
    until(lambda: reasons(arm) == [StopReason.MOTOR_ERROR])
    arm.rearm()
    assert robot.calls == ["stop", "reset", "enable"] and reasons(arm) == []


def test_an_error_that_survives_the_reset_is_said(arm, robot):
    robot.press()
    robot.unpress()
    robot.error = robot.error_survives = True
    time.sleep(0.03)
    with pytest.raises(RobotError, match="left after the reset"):
        arm.rearm()


def test_a_robot_that_is_found_disabled_is_enabled_by_a_rearm(build, robot):
    robot.enabled = False
    arm = build()
    until(lambda: reasons(arm) == [StopReason.TORQUE_OFF])
    assert arm.command(setpoint(arm, (0.01, 0.0, 0.0))).refused == "stopped"
    arm.rearm()
    assert reasons(arm) == [] and robot.enabled
    assert arm.command(setpoint(arm, (0.01, 0.0, 0.0))).refused == ""


def test_a_stop_while_it_is_rearmed_stays(arm, robot, monkeypatch):
    arm.stop()
    measured = arm._measured

    def interrupted():
        arm.stop()
        return measured()

    monkeypatch.setattr(arm, "_measured", interrupted)
    with pytest.raises(RobotError, match="stopped meanwhile"):
        arm.rearm()
    assert arm.command(setpoint(arm)).refused == "stopped"


def test_nothing_is_sent_while_the_robot_is_not_enabled(arm, robot):
    robot.enabled = False
    until(lambda: StopReason.TORQUE_OFF in reasons(arm))
    robot.commands.clear()
    time.sleep(0.05)
    assert robot.commands == []


# -- what it measures and reports


def test_the_state_names_joints_and_carries_the_stamp_of_the_measurement(arm, robot):
    state = arm.state()
    assert list(state.joint_positions) == list(NAMES)
    assert abs(time.time_ns() - state.stamp_ns) < 0.1e9
    assert np.abs(state.position - forward(robot.joints)[0]).max() < 1e-6
    assert state.vector.shape == (len(arm.state_names),) == (len(arm.state_units),)
    assert state.vector[-1] == robot.opening
    assert state.joint_targets["right_j3"] == pytest.approx(NEUTRAL[3])


def test_empty_velocities_are_tolerated(arm, robot):
    robot.short = True
    until(lambda: arm.state().joint_velocities == {})
    assert len(arm.state().joint_positions) == 7


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["/robot/joint_states", "/robot/limb/right/tip_states"])
def test_a_silent_robot_is_noticed_by_the_age_of_its_state(arm, robot, topic):
    monitor = StateMonitor(arm.health_limits, arm.joint_names, arm.timing.max_state_age)
    assert monitor.judge(arm.state(), arm.now_ns()) is None
    robot.silent.add(topic)
    time.sleep(0.3)
    assert monitor.judge(arm.state(), arm.now_ns()).reason == StopReason.STATE_STALE


def test_the_sign_of_the_quaternion_does_not_flip(arm, robot):
    state = arm.state()
    tip = arm._client.tip()
    arm._client._tip = tip._replace(orientation=-tip.orientation)
    assert arm.state().orientation @ state.orientation > 0.9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(enabled=False), StopReason.TORQUE_OFF),
        (dict(error=True), StopReason.MOTOR_ERROR),
        (dict(stopped=True, estop_source=3), StopReason.MOTOR_ERROR),
        (dict(stopped=True, enabled=False, estop_button=1), StopReason.EMERGENCY_STOP),
        (dict(ready=False), StopReason.ROBOT_FAULT),
        (dict(collided=True), StopReason.COLLISION),
        (dict(gripper_error=True), StopReason.MOTOR_ERROR),
    ],
)
def test_what_the_robot_reports_becomes_a_reason_to_stop(arm, robot, change, reason):
    assert reasons(arm) == []
    vars(robot).update(change)
    until(lambda: reasons(arm)[:1] == [reason])


def test_a_collision_stops_the_arm_at_once_and_is_kept_until_a_rearm(arm, robot):
    arm.command(setpoint(arm, (0.04, 0.0, 0.0)))
    robot.collided = True
    until(lambda: StopReason.COLLISION in reasons(arm))
    with pytest.raises(RobotError, match="collision"):
        arm.rearm()
    robot.collided = False
    assert reasons(arm) == [StopReason.COLLISION]
    assert np.abs(arm._stream.goal() - robot.joints).max() < 0.03
    arm.rearm()
    assert reasons(arm) == []


# -- gripper


def test_the_gripper_moves_off_the_control_thread_and_only_on_a_change(arm, robot):
    begun = time.monotonic()
    for wish in (0.0, 0.0, None, 0.0, 0.5):
        arm.command(setpoint(arm, (0.001, 0.0, 0.0), gripper=wish))
    assert time.monotonic() - begun < 0.05
    until(lambda: robot.opening == 0.0)
    assert robot.gripper_commands == [0.0]


@pytest.mark.slow
def test_a_gripper_that_does_not_acknowledge_is_reported_while_it_waits(arm, robot):
    robot.acknowledges = False
    arm.command(setpoint(arm, (0.001, 0.0, 0.0), gripper=0.0))
    assert reasons(arm) == []
    until(lambda: reasons(arm) == [StopReason.MOTOR_SILENT])
    with pytest.raises(RobotError, match="acknowledge"):
        arm.rearm()


# -- start pose


@pytest.mark.slow
def test_home_opens_the_gripper_rises_and_goes_to_the_start_pose(build, robot):
    arm = build(home_speed=0.5, start_joints=(NEUTRAL + 0.1).tolist())
    robot.calibrated = False
    begun = time.monotonic()
    arm.home()
    assert np.abs(robot.joints - NEUTRAL - 0.1).max() < 0.0087
    assert robot.gripper_commands == [0.041667] and "calibrate" in robot.calls
    heights = [forward(joints)[0][2] for _, _, joints in robot.commands]
    assert max(heights) > heights[0] + 0.09, "it rises first"
    speeds = np.diff([j for t, _, j in robot.commands if t > begun], axis=0).max(axis=0) / 0.01
    assert (speeds < 2.0 * 0.5 * SPEEDS).all()


@pytest.mark.slow
def test_home_names_the_joint_that_does_not_arrive(build, robot, monkeypatch):
    monkeypatch.setattr("ofrl_robot.robots.sawyer._SETTLE", 0.2)
    arm = build(home_speed=0.5, lift=0.0, start_joints=(NEUTRAL + 0.1).tolist())
    robot.stuck = {"right_j3"}
    with pytest.raises(RobotError, match="right_j3 is 0.10 rad from the start pose"):
        arm.home()
    assert np.abs(arm._stream.goal() - robot.joints).max() < 1e-6, "it does not go on pushing"


@pytest.mark.slow
def test_a_stop_ends_the_way_to_the_start_pose(build, robot):
    arm = build(home_speed=0.05, lift=0.0, start_joints=(NEUTRAL + 0.5).tolist())
    threading.Timer(0.3, arm.stop).start()
    with pytest.raises(RobotError, match="stopped on its way"):
        arm.home()
    assert np.abs(robot.joints - NEUTRAL).max() < 0.1


def test_home_needs_a_robot_that_is_ready(arm, robot):
    robot.press()
    until(lambda: reasons(arm) != [])
    with pytest.raises(RobotError, match="not ready"):
        arm.home()


# -- beginning and end


def test_it_is_disabled_at_the_end_and_the_stream_ends(build, robot):
    arm = build(disable_on_close=True)
    arm.close()
    assert robot.calls[-1] == "disable"
    robot.commands.clear()
    arm.close()
    time.sleep(0.05)
    assert robot.commands == [] and robot.calls.count("disable") == 1
    assert arm.command(setpoint(arm)).refused == "stopped"


def test_a_shutdown_of_the_node_closes_the_arm_while_messages_get_out(build, robot):
    build(disable_on_close=True)
    for hook in robot.hooks:
        hook()
    assert robot.calls[-1] == "disable"


def test_a_missing_client_is_one_line_that_names_the_documentation(robot, monkeypatch, build):
    monkeypatch.setitem(sys.modules, "intera_interface", None)
    with pytest.raises(ConfigError, match=r"intera_interface.*docs/sawyer\.md"):
        build()


def test_messages_that_come_late_at_first_are_no_clock_that_differs(build, robot):
    robot.skew = -3.0
    threading.Timer(0.1, lambda: setattr(robot, "skew", 0.0)).start()
    assert abs(time.time_ns() - build().state().stamp_ns) < 1e9


def test_a_clock_that_differs_is_refused_or_arrivals_are_used(build, robot, monkeypatch):
    monkeypatch.setattr("ofrl_robot.robots.sawyer_client._CLOCK", 0.1)
    robot.skew = -3.0
    time.sleep(0.03)
    with pytest.raises(RobotError, match="differ by 3.0 s"):
        build()
    arm = build(stamps="arrival")
    assert abs(time.time_ns() - arm.state().stamp_ns) < 0.1e9
    robot.silent.add("/robot/joint_states")
    time.sleep(0.1)
    assert time.time_ns() - arm.state().stamp_ns > 0.09e9


def test_an_unknown_tip_is_refused(build, monkeypatch):
    monkeypatch.setattr("ofrl_robot.robots.sawyer_client._FIRST", 0.1)
    with pytest.raises(RobotError, match="tip_states of right_gripper_tip"):
        build(tip="right_gripper_tip")


def test_a_client_that_ends_the_process_is_an_error(robot, monkeypatch):
    def leave(versioned):
        raise SystemExit(1)

    monkeypatch.setattr(sys.modules["intera_interface"], "RobotEnable", leave)
    with pytest.raises(RobotError, match="SystemExit"):
        SawyerClient(SawyerSettings())


@pytest.mark.parametrize(
    "settings",
    [
        dict(control_rate_hz=7), dict(action_scale=[0.5, 5.0]), dict(action_scale=0.1),
        dict(speed_ratio=2.0), dict(start_joints=[0.0]), dict(gripper="yes"), dict(tip=""),
        dict(stamps="mine"), dict(colour="red"), dict(ik_timeout=float("nan")),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        SawyerSettings.from_dict(settings)
