"""The WidowX driver on a fake of the vendor's client: motion, faults, recovery, the end."""

from __future__ import annotations

import dataclasses
import sys
import threading

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ofrl_robot.control.health import StateMonitor, judge_health
from ofrl_robot.control.signals import Setpoint
from ofrl_robot.control.stops import StopReason
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.robots.config import ArmConfig, load_arm_file
from ofrl_robot.robots.registry import ARMS
from ofrl_robot.robots.widowx_settings import START_POSES, WidowXSettings
from tests.robots import arm_contract, fake_interbotix

DOWN = np.array([0.0, 0.7071067811865476, 0.0, 0.7071067811865476])


@pytest.fixture
def driver(monkeypatch):
    fake = fake_interbotix.FakeDriver()
    fake_interbotix.install(monkeypatch, fake)
    return fake


@pytest.fixture
def make(driver):
    arms = []

    def build(**settings):
        settings = {"sleep_on_close": False, "service_timeout": 0.1, "move_speed": 2.0, **settings}
        config = ArmConfig("widowx", "reach", load_arm_file("widowx"), settings=settings)
        arms.append(ARMS.load("widowx")(config))
        return arms[-1]

    yield build
    for arm in arms:
        arm.close()


@pytest.fixture
def arm(make):
    return make()


def target(arm, position, orientation, gripper=None):
    return Setpoint(np.zeros(7), np.asarray(position), np.asarray(orientation), gripper)


def here(arm, gripper=None, **moved):
    state = arm.state()
    offset = [moved.get(axis, 0.0) for axis in "xyz"]
    return target(arm, state.position + offset, state.orientation, gripper)


def reasons(arm):
    return [fault.reason for fault in arm.health().faults]


# -- the contract of an arm ------------------------------------------------------------------


@pytest.mark.parametrize(
    "promise",
    ["describes_itself", "measures", "stays_on_hold", "moves", "turns", "refuses", "stops"],
)
def test_it_keeps_the_contract_of_an_arm(arm, promise):
    getattr(arm_contract, promise)(arm)


def test_it_can_be_closed_twice(arm):
    arm_contract.closes(arm)


# -- connecting ------------------------------------------------------------------------------


def test_missing_vendor_packages_are_one_line_that_names_the_page(driver, make, monkeypatch):
    monkeypatch.setitem(sys.modules, "interbotix_xs_modules.arm", None)
    with pytest.raises(ConfigError, match=r"interbotix_xs_msgs.*docs/widowx\.md") as caught:
        make()
    assert "\n" not in str(caught.value)


def test_without_a_ros_node_it_says_so(driver, make):
    driver.initialized = False
    with pytest.raises(RobotError, match="no ROS node"):
        make()


def test_a_driver_without_joint_states_does_not_make_it_spin(driver, make):
    driver.publishing = False
    with pytest.raises(RobotError, match="nothing on /wx250s/joint_states"):
        make()


def test_a_client_that_ends_the_process_ends_only_the_call(driver, make):
    driver.absent = True
    with pytest.raises(RobotError, match="SystemExit"):
        make()


def test_an_unknown_model_and_a_wrong_setting_are_named(driver, make):
    with pytest.raises(ConfigError, match="does not know model 'wx999'"):
        make(model="wx999")
    with pytest.raises(ConfigError, match="control_rate_hz is 7; use 5, 10 or 20"):
        make(control_rate_hz=7)
    with pytest.raises(ConfigError, match="no setting 'rate'"):
        make(rate=5)


def test_joint_limits_come_from_the_robot_and_the_file_can_only_narrow_them(driver):
    file = load_arm_file("widowx")
    limits = dataclasses.replace(
        file.limits,
        joints={"waist": (-1.0, 9.0)},
        joint_speeds={"waist": 1.0, "shoulder": 99.0},
    )
    config = ArmConfig("widowx", "reach", dataclasses.replace(file, limits=limits))
    arm = ARMS.load("widowx")(dataclasses.replace(config, settings={"sleep_on_close": False}))
    assert arm.limits.joints["waist"] == pytest.approx((-1.0, 3.14158))
    assert arm.limits.joints["elbow"] == pytest.approx((-2.14675, 1.60570))
    assert arm.limits.joint_speeds["waist"] == 1.0
    assert arm.limits.joint_speeds["shoulder"] == pytest.approx(np.pi)
    arm.close()


# -- kinematics ------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_rotation_at_gripper_down_comes_back_as_that_rotation(make, driver, axis, sign):
    driver.positions.update(zip(fake_interbotix.ARM, START_POSES["roboverse"]))
    arm = make()
    place = arm.state().position
    pointing = Rotation.from_quat(arm.state().orientation).apply([1.0, 0.0, 0.0])
    assert pointing == pytest.approx([0.0, 0.0, -1.0], abs=0.05), "the gripper points down"
    turn = Rotation.from_rotvec(sign * np.radians(14.0) * np.eye(3)[axis])
    wanted = (turn * Rotation.from_quat(arm.state().orientation)).as_quat()
    assert arm.command(target(arm, place, wanted)).refused == ""
    found = Rotation.from_quat(arm.state().orientation)
    assert (found * Rotation.from_quat(wanted).inv()).magnitude() < 2e-3
    assert arm.state().position == pytest.approx(place, abs=2e-4), "about the end effector"


def test_a_step_of_half_a_millimetre_is_a_step(arm):
    begin = arm.state().position
    arm.command(here(arm, x=0.0005))
    assert arm.state().position - begin == pytest.approx([0.0005, 0, 0], abs=1e-4)


def test_refusals_have_names_and_nothing_is_sent(arm, driver):
    sent = len(driver.commands)
    assert arm.command(target(arm, [2.0, 0.0, 0.3], DOWN)).refused == "no_ik"
    assert arm.command(here(arm, z=0.2)).refused == "joint_speed"
    arm.limits = dataclasses.replace(arm.limits, joints={"waist": (-0.13, 3.0)})
    assert arm.command(here(arm, y=-0.02)).refused == "joint_limit"
    assert len(driver.commands) == sent


# -- what is measured ------------------------------------------------------------------------


def test_a_driver_without_velocities_and_efforts_is_read_all_the_same(driver, make):
    driver.velocities = driver.efforts = False
    state = make().state()
    assert state.joint_velocities == {} == state.joint_efforts
    assert np.isfinite(state.vector).all() and set(fake_interbotix.ARM) < set(state.joint_positions)


def test_joints_are_found_by_name_in_any_order(arm, driver):
    before = arm.state().vector
    driver.positions = dict(reversed(list(driver.positions.items())))
    driver.publish()
    assert arm.state().vector == pytest.approx(before)


@pytest.mark.parametrize(
    "fault, reason",
    [
        (lambda d: d.publish(waist=float("nan")), StopReason.STATE_INVALID),
        (lambda d: d.publish(waist=-np.pi), StopReason.STATE_INVALID),
        (lambda d: d.positions.pop("elbow") and d.publish(), StopReason.STATE_INVALID),
        (lambda d: setattr(d, "publishing", False), StopReason.STATE_STALE),
    ],
)
def test_what_the_vendor_lets_pass_is_found_in_the_state(arm, driver, fault, reason):
    monitor = StateMonitor(arm.health_limits, arm.joint_names, arm.timing.max_state_age)
    assert monitor.judge(arm.state(), arm.now_ns()) is None
    driver.now_ns += 50_000_000
    fault(driver)
    if reason is StopReason.STATE_STALE:
        driver.now_ns += 260_000_000
    found = monitor.judge(arm.state(), arm.now_ns())
    assert found is not None and found.reason is reason


def test_a_joint_that_does_not_follow_is_seen_although_stamps_are_new(arm, driver):
    monitor = StateMonitor(arm.health_limits, arm.joint_names, arm.timing.max_state_age)
    driver.blocked = fake_interbotix.ARM
    assert arm.command(here(arm, y=0.03)).refused == ""
    found = None
    for _ in range(12):
        driver.now_ns += 100_000_000
        driver.publish()
        found = found or monitor.judge(arm.state(), arm.now_ns())
    assert found is not None and found.reason is StopReason.STUCK


# -- motors ----------------------------------------------------------------------------------


def test_healthy_motors_have_temperatures_and_no_fault(arm):
    health = arm.health()
    assert health.faults == () and health.temperatures == dict.fromkeys(fake_interbotix.MOTORS, 31)


def test_a_hot_motor_stops_the_arm(arm, driver):
    driver.registers["Present_Temperature"]["elbow"] = 70
    fault = judge_health(arm.health(), arm.health_limits)
    assert fault.reason is StopReason.OVERHEATED and "elbow" in fault.text


def test_error_bits_have_names(arm, driver):
    driver.registers["Hardware_Error_Status"]["shoulder"] = 0x24
    fault = arm.health().faults[0]
    assert fault.reason is StopReason.MOTOR_ERROR
    assert fault.text == "motor shoulder: overheating, overload"


def test_a_list_that_ends_early_names_the_silent_motor(arm, driver):
    driver.silent = "elbow"
    fault = arm.health().faults[0]
    assert fault.reason is StopReason.MOTOR_SILENT and "elbow" in fault.text


def test_the_first_motor_can_be_silent_too(arm, driver):
    driver.silent = "waist"
    assert reasons(arm) == [StopReason.MOTOR_SILENT]


def test_torque_off_is_a_reason_of_its_own(arm, driver):
    driver.registers["Torque_Enable"]["gripper"] = 0
    assert reasons(arm) == [StopReason.TORQUE_OFF]


def test_a_driver_without_registers_is_said_once_and_is_no_fault(driver, make):
    for register in ("Hardware_Error_Status", "Present_Temperature", "Torque_Enable"):
        driver.registers[register] = {}
    arm = make()
    assert arm.health().faults == () == arm.health().faults
    assert len(driver.warnings) == 1 and "not watched" in driver.warnings[0]
    arm.rearm()


def test_a_hung_service_blocks_nobody(arm, driver):
    driver.hang = threading.Event()
    try:
        assert reasons(arm) == [StopReason.ARM_BLOCKED]
        assert reasons(arm) == [StopReason.ARM_BLOCKED], "at once, without a second thread"
        assert arm.command(here(arm, x=0.01)).refused == "", "motion needs no service"
        arm.stop()
        with pytest.raises(RobotError, match="not answered"):
            arm.rearm()
    finally:
        driver.hang.set()


def test_a_dead_driver_is_a_fault_and_not_an_exception(arm, driver):
    driver.gone = True
    assert reasons(arm) == [StopReason.ARM_BLOCKED]
    with pytest.raises(RobotError, match="failed"):
        arm.rearm()


# -- recovery --------------------------------------------------------------------------------


def test_profiles_are_written_explicitly_after_a_reboot(arm, driver):
    written = driver.registers["Profile_Velocity"]
    assert set(written.values()) == {250, 0}, "1.25 periods of 5 Hz; not the gripper's"
    driver.overload("shoulder")
    arm.stop()
    arm.rearm()
    assert ("reboot_motors", ("group", "all", True, True)) in driver.services
    assert driver.registers["Torque_Enable"]["shoulder"] == 1
    assert written["shoulder"] == 250, "the client alone would not write what it wrote before"
    assert driver.registers["Profile_Acceleration"]["shoulder"] == 100


def test_after_a_reboot_it_starts_where_it_has_fallen_to(arm, driver):
    driver.overload("shoulder")
    arm.stop()
    driver.publish(shoulder=driver.positions["shoulder"] + 0.3)
    arm.rearm()
    assert arm.state().joint_targets["shoulder"] == pytest.approx(driver.positions["shoulder"])
    fallen = driver.joints()
    assert arm.command(here(arm)).refused == ""
    assert driver.joints() == pytest.approx(fallen, abs=1e-3), "no jump"


def test_a_healthy_arm_is_not_rebooted(arm, driver):
    arm.stop()
    arm.rearm()
    assert "reboot_motors" not in [name for name, _ in driver.services]


def test_torque_off_is_recovered_by_torque_on(arm, driver):
    driver.registers["Torque_Enable"].update(waist=0, gripper=0)
    arm.stop()
    arm.rearm()
    assert arm.health().faults == ()
    assert "reboot_motors" not in [name for name, _ in driver.services]


def test_a_motor_that_stays_in_its_error_cannot_be_rearmed(arm, driver):
    driver.overload("elbow")
    driver.unmendable = True
    with pytest.raises(RobotError, match="motor elbow: overload after reboot"):
        arm.rearm()


def test_old_joint_states_cannot_be_rearmed(arm, driver):
    driver.publishing = False
    driver.now_ns += 10**9
    with pytest.raises(RobotError, match="1.00 s old"):
        arm.rearm()


# -- stop ------------------------------------------------------------------------------------


def test_stop_commands_the_measured_joints_and_repeats_them(arm, driver):
    driver.blocked = fake_interbotix.ARM
    arm.command(here(arm, x=0.02))
    measured = driver.joints()
    arm.stop()
    assert driver.commands[-1][1] == pytest.approx(measured)
    driver.publish(shoulder=driver.positions["shoulder"] + 0.05)  # it sags
    arm.stop()
    assert driver.commands[-1][1] == pytest.approx(measured), "a second stop must not creep"


def test_stop_sends_nothing_when_it_does_not_know_where_the_arm_is(arm, driver):
    driver.publish(waist=float("nan"))
    sent = len(driver.commands)
    arm.stop()
    assert len(driver.commands) == sent
    assert arm.command(target(arm, [0.25, 0.0, 0.2], DOWN)).refused


def homing(arm):
    """A thread, not started, that homes the arm; and what home said when it failed."""
    errors = []

    def home():
        try:
            arm.home()
        except RobotError as error:
            errors.append(str(error))

    return threading.Thread(target=home), errors


def test_stop_reaches_a_homing_move_from_another_thread(make, driver):
    arm = make(start_joints=[1.5, *fake_interbotix.NEUTRAL[1:]], move_speed=0.5)
    thread, errors = homing(arm)
    begin = driver.joints()[0]
    thread.start()
    while abs(driver.joints()[0] - begin) < 0.02:
        assert thread.is_alive(), errors
    arm.stop()
    thread.join(5.0)
    assert errors == ["widowx: the move was stopped; re-arm the arm"]
    assert abs(driver.joints()[0] - 1.5) > 1.0, "it did not go on"


# -- homing and gripper ----------------------------------------------------------------------


def test_home_opens_the_gripper_and_arrives_in_small_steps(make, driver):
    start = np.array(fake_interbotix.NEUTRAL) + [0.3, 0.1, 0.1, 0.0, -0.1, 0.0]
    arm = make(start_joints=start.tolist())
    begin = driver.joints()
    arm.home()
    assert driver.joints() == pytest.approx(start)
    path = np.array([begin, *(joints for _, joints in driver.commands)])
    assert np.abs(np.diff(path, axis=0)).max() < 0.2, "a stop would find a short motion"
    wait_until(lambda: driver.gripper == [250.0])


def test_home_names_the_joint_that_does_not_arrive(make, driver, monkeypatch):
    monkeypatch.setattr("ofrl_robot.robots.widowx.ARRIVAL_TIME", 0.1)
    arm = make(start_joints=(np.array(fake_interbotix.NEUTRAL) + 0.2).tolist())
    driver.blocked = ("elbow",)
    with pytest.raises(RobotError, match="joint elbow is 0.20 rad from its goal"):
        arm.home()


def test_home_comes_back_from_a_little_past_a_joint_limit(make, driver):
    driver.positions["elbow"] = fake_interbotix.UPPER[2] + 0.05
    arm = make(start_joints=[*fake_interbotix.NEUTRAL[:2], 1.4, *fake_interbotix.NEUTRAL[3:]])
    arm.home()
    assert driver.positions["elbow"] == pytest.approx(1.4)


def test_home_refuses_to_go_on_blindly(make, driver):
    arm = make(start_joints=(np.array(fake_interbotix.NEUTRAL) + 0.2).tolist())
    driver.publishing = False
    driver.now_ns += 10**9
    with pytest.raises(RobotError, match="old"):
        arm.home()


def test_the_gripper_is_told_on_change_only(arm, driver):
    for value in (0.0, 0.0, None, 0.5, 0.0, 1.0, 1.0, 0.0):
        arm.command(here(arm, gripper=value))
        wait_until(lambda: not arm._gripper._pending)
    wait_until(lambda: len(driver.gripper) == 3)
    assert driver.gripper == [-250.0, 250.0, -250.0]
    assert arm.state().vector[-1] == 0.0


def test_a_gripper_that_blocks_does_not_block_the_arm(arm, driver):
    driver.gripper_hang = threading.Event()
    try:
        arm.command(here(arm, gripper=0.0))
        begin = arm.state().position
        assert arm.command(here(arm, gripper=0.0, x=0.01)).refused == ""
        assert arm.state().position[0] > begin[0] + 0.009
        assert driver.gripper == []
    finally:
        driver.gripper_hang.set()
    wait_until(lambda: driver.gripper == [-250.0])


# -- the end ---------------------------------------------------------------------------------


def test_close_goes_to_sleep_and_lets_go(make, driver):
    driver.positions.update(zip(fake_interbotix.ARM, np.array(fake_interbotix.SLEEP) + 0.2))
    arm = make(sleep_on_close=True)
    arm.close()
    assert driver.joints() == pytest.approx(fake_interbotix.SLEEP)
    assert driver.registers["Torque_Enable"]["shoulder"] == 0
    sent = len(driver.commands)
    arm.stop()
    assert len(driver.commands) == sent, "a late stop does not command an arm without torque"


def test_closing_takes_the_arm_out_of_a_homing_move(make, driver):
    driver.positions.update(zip(fake_interbotix.ARM, fake_interbotix.SLEEP))
    start = np.array(fake_interbotix.SLEEP) + [1.0, 0, 0, 0, 0, 0]
    arm = make(start_joints=start.tolist(), move_speed=1.0, sleep_on_close=True)
    thread, errors = homing(arm)
    thread.start()
    wait_until(lambda: driver.joints()[0] > 0.05)
    arm.close()
    thread.join(5.0)
    assert "another move has begun" in errors[0]
    assert driver.joints() == pytest.approx(fake_interbotix.SLEEP)
    assert arm.command(here(arm)).refused, "an arm that is closed stays"


def test_a_stopped_arm_does_not_move_when_it_is_closed(make, driver):
    arm = make(sleep_on_close=True)
    arm.stop()
    before = driver.joints()
    arm.close()
    assert driver.joints() == pytest.approx(before)
    assert driver.registers["Torque_Enable"]["shoulder"] == 1
    assert "was stopped" in driver.warnings[-1] and "keeps its torque" in driver.warnings[-1]


def test_an_arm_that_is_not_well_keeps_its_torque(make, driver):
    arm = make(sleep_on_close=True)
    driver.overload("waist")
    before = driver.joints()
    arm.close()
    assert driver.joints() == pytest.approx(before)
    assert driver.registers["Torque_Enable"]["shoulder"] == 1
    assert "keeps its torque" in driver.warnings[-1]


def test_without_sleep_on_close_it_holds(arm, driver):
    sent = len(driver.commands)
    arm.close()
    assert len(driver.commands) == sent and driver.registers["Torque_Enable"]["waist"] == 1


def test_after_a_shutdown_of_ros_it_only_lets_go_of_the_line(make, driver):
    arm = make(sleep_on_close=True)
    driver.shutdown = True
    arm.close()
    assert driver.registers["Torque_Enable"]["waist"] == 1 and driver.subscribers == []


def test_settings_have_the_shape_that_episodes_store():
    settings = WidowXSettings.from_dict({"start_joints": "roboverse", "action_scale": [0.04, 8]})
    assert settings.start_joints == START_POSES["roboverse"] and settings.action_scale == (0.04, 8)
    with pytest.raises(ConfigError, match="start_joints is 'nowhere'"):
        WidowXSettings.from_dict({"start_joints": "nowhere"})


def wait_until(condition, seconds=5.0):
    done = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        done.wait(0.005)
    raise AssertionError("it did not happen")
