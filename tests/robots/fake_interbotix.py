"""A small fake of the vendor's Python client and of the node behind it, with measured behaviours.

Not the vendor's code: its API as the driver uses it, and what it was seen to do (docs/widowx.md).
The clock stands still unless a test moves it, and joints arrive at once, so nothing here waits.
"""

from __future__ import annotations

import sys
import threading
import types

import numpy as np

ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
MOTORS = (*ARM, "gripper")
LOWER = (-3.14158, -1.88496, -2.14675, -3.14158, -1.74533, -3.14158)
UPPER = (3.14158, 1.98968, 1.60570, 3.14158, 2.14675, 3.14158)
SLEEP = (0.0, -1.80, 1.55, 0.0, 0.8, 0.0)
NEUTRAL = (-0.1319, -0.7624, 0.4449, -0.0199, 1.7564, -0.1595)
HOME = np.array([[1.0, 0, 0, 0.458325], [0, 1, 0, 0], [0, 0, 1, 0.36065], [0, 0, 0, 1]])
# direction and a point of each axis when every joint is at 0
AXES = (
    ((0, 0, 1), (0, 0, 0)),
    ((0, 1, 0), (0, 0, 0.11065)),
    ((0, 1, 0), (0.04975, 0, 0.36065)),
    ((1, 0, 0), (0, 0, 0.36065)),
    ((0, 1, 0), (0.29975, 0, 0.36065)),
    ((1, 0, 0), (0, 0, 0.36065)),
)
SCREWS = np.array([np.concatenate([d, -np.cross(d, p)]) for d, p in AXES]).T


class Stamp:
    def __init__(self, ns):
        self.ns = ns

    def to_nsec(self):
        return self.ns


class FakeDriver:
    """The node behind the client: what it publishes, its registers, what is wrong with it."""

    def __init__(self):
        self.now_ns = 10**18
        self.positions = dict(zip(ARM, NEUTRAL), gripper=0.0, left_finger=0.03, right_finger=-0.03)
        self.velocities = self.efforts = True  # the vendor's simulated node sends none
        self.registers = {
            "Hardware_Error_Status": dict.fromkeys(MOTORS, 0),
            "Present_Temperature": dict.fromkeys(MOTORS, 31),
            "Torque_Enable": dict.fromkeys(MOTORS, 1),
            "Profile_Velocity": dict.fromkeys(MOTORS, 0),
            "Profile_Acceleration": dict.fromkeys(MOTORS, 0),
        }
        self.absent = False  # no driver: the client ends the process
        self.publishing = True
        self.blocked = ()  # joints that do not follow
        self.silent = None  # motor that does not answer
        self.hang = None  # an Event: services wait for it
        self.gone = False  # services fail
        self.unmendable = False  # a reboot does not help
        self.commands = []  # (group, joints) as published
        self.gripper = []  # PWM as published
        self.gripper_hang = None
        self.subscribers = []
        self.services = []  # (name, arguments)
        self.shutdown = False

    def publish(self, **changed):
        self.positions.update(changed)
        if not self.publishing:
            return
        message = self.message()
        for callback in list(self.subscribers):
            callback(message)

    def message(self):
        names = list(self.positions)
        extra = [0.5] * len(names)
        return types.SimpleNamespace(
            header=types.SimpleNamespace(stamp=Stamp(self.now_ns)),
            name=names,
            position=list(self.positions.values()),
            velocity=extra if self.velocities else [],
            effort=extra if self.efforts else [],
        )

    def joints(self):
        return np.array([self.positions[name] for name in ARM])

    def command(self, group, joints):
        self.commands.append((group, tuple(joints)))
        for name, target in zip(ARM, joints):
            free = name not in self.blocked
            error = self.registers["Hardware_Error_Status"].get(name, 0)
            if free and self.registers["Torque_Enable"].get(name, 1) and not error:
                self.positions[name] = target
        self.publish()

    def push(self, pwm):
        self.gripper.append(pwm)
        left = 0.037 if pwm > 0 else 0.015
        self.publish(left_finger=left, right_finger=-left)

    def service(self, name, *arguments):
        self.services.append((name, arguments))
        if self.hang is not None:
            self.hang.wait(10.0)
        if self.gone:
            raise ServiceException("unable to connect")

    def overload(self, motor):
        """As measured: the bit, no torque, commands ignored until a reboot."""
        self.registers["Hardware_Error_Status"][motor] = 0x20
        self.registers["Torque_Enable"][motor] = 0

    def reboot(self, motor):
        if self.unmendable:
            return
        self.registers["Hardware_Error_Status"][motor] = 0
        self.registers["Torque_Enable"][motor] = 1
        # RAM registers are lost: 0 is no speed limit
        self.registers["Profile_Velocity"][motor] = self.registers["Profile_Acceleration"][
            motor
        ] = 0

    def read(self, register):
        values = self.registers.get(register, {})
        count = list(MOTORS).index(self.silent) if self.silent else len(MOTORS)
        return list(values.values())[:count]


class ServiceException(Exception):
    pass


class ROSException(Exception):
    pass


class Core:
    """``robot.dxl``."""

    def __init__(self, driver):
        self._driver = driver

    def robot_get_robot_info(self, kind, name):
        self._driver.service("get_robot_info", kind, name)
        names = [*ARM, "left_finger"] if name == "all" else list(ARM)
        return types.SimpleNamespace(
            joint_names=names,
            joint_lower_limits=LOWER,
            joint_upper_limits=UPPER,
            joint_velocity_limits=(np.pi,) * 6,
            joint_sleep_positions=SLEEP,
        )

    def robot_get_motor_registers(self, kind, name, register):
        self._driver.service("get_motor_registers", kind, name, register)
        return types.SimpleNamespace(values=self._driver.read(register))

    def robot_set_motor_registers(self, kind, name, register, value):
        self._driver.service("set_motor_registers", kind, name, register, value)
        for motor in ARM:
            self._driver.registers[register][motor] = value

    def robot_reboot_motors(self, kind, name, enable, smart_reboot=False):
        self._driver.service("reboot_motors", kind, name, enable, smart_reboot)
        driver = self._driver
        for motor in MOTORS:
            failed = driver.registers["Hardware_Error_Status"][motor] or motor == driver.silent
            if failed or not smart_reboot:
                driver.reboot(motor)
                if motor == driver.silent and not driver.unmendable:
                    driver.silent = None

    def robot_torque_enable(self, kind, name, enable):
        self._driver.service("torque_enable", kind, name, enable)
        for motor in ARM if kind == "group" else (name,):
            self._driver.registers["Torque_Enable"][motor] = int(enable)

    def robot_write_commands(self, group, joints):
        self._driver.command(group, joints)


class Arm:
    """``robot.arm``; remembers its last command and its moving time, as the vendor's does."""

    def __init__(self, driver, core, moving_time, accel_time):
        self._driver, self._core = driver, core
        self.group_info = core.robot_get_robot_info("group", "arm")
        self.robot_des = types.SimpleNamespace(Slist=SCREWS, M=HOME)
        self.moving_time = self.accel_time = None
        self.joint_commands = list(driver.joints())
        self.set_trajectory_time(moving_time, accel_time)

    def set_trajectory_time(self, moving_time=None, accel_time=None):
        # the cache trap: a value that it has written before is not written again
        if moving_time is not None and moving_time != self.moving_time:
            self.moving_time = moving_time
            self._write("Profile_Velocity", moving_time)
        if accel_time is not None and accel_time != self.accel_time:
            self.accel_time = accel_time
            self._write("Profile_Acceleration", accel_time)

    def _write(self, register, seconds):
        self._core.robot_set_motor_registers("group", "arm", register, int(seconds * 1000))

    def set_joint_positions(self, joints, moving_time=None, accel_time=None, blocking=True):
        assert not blocking, "a blocking call sleeps for the whole motion"
        for low, value, high, before in zip(LOWER, joints, UPPER, self.joint_commands):
            if value < low or value > high:  # NaN passes, as in the vendor's
                return False
            if abs(value - before) / self.moving_time > np.pi:
                return False
        self.joint_commands = list(joints)
        self._driver.command("arm", joints)
        return True

    def capture_joint_positions(self):
        self.joint_commands = list(self._driver.joints())


class Gripper:
    """``robot.gripper``."""

    def __init__(self, driver, pressure):
        self._driver, self._pwm = driver, 150 + 200 * pressure

    def open(self, delay=1.0):
        self._push(self._pwm, delay)

    def close(self, delay=1.0):
        self._push(-self._pwm, delay)

    def _push(self, pwm, delay):
        assert delay == 0.0, "it sleeps that long in its caller"
        if self._driver.gripper_hang is not None:
            self._driver.gripper_hang.wait(10.0)
        self._driver.push(pwm)


def install(monkeypatch, driver):
    """Put the fakes of rospy and the vendor's packages in front of those that are installed."""

    class Robot:
        def __init__(self, robot_model, group_name, gripper_name, robot_name, moving_time,
                     accel_time, gripper_pressure, init_node):  # fmt: skip
            assert init_node is False, "a second process with this arm would end the first"
            if driver.absent:
                sys.exit(1)
            if robot_model != "wx250s":
                raise AttributeError(f"no {robot_model}")
            self.dxl = Core(driver)
            self.arm = Arm(driver, self.dxl, moving_time, accel_time)
            self.gripper = Gripper(driver, gripper_pressure)

    class Subscriber:
        def __init__(self, topic, kind, callback, **_options):
            self._callback = callback
            driver.subscribers.append(callback)

        def unregister(self):
            if self._callback in driver.subscribers:
                driver.subscribers.remove(self._callback)

    def wait_for_message(topic, kind, timeout):
        assert timeout > 0
        if not driver.publishing:
            raise ROSException(f"timeout exceeded while waiting for message on {topic}")
        return driver.message()

    driver.warnings = []
    driver.initialized = True
    rospy = types.ModuleType("rospy")
    rospy.core = types.SimpleNamespace(is_initialized=lambda: driver.initialized)
    rospy.Time = types.SimpleNamespace(now=lambda: Stamp(driver.now_ns))
    rospy.Subscriber, rospy.wait_for_message = Subscriber, wait_for_message
    rospy.ROSException, rospy.ServiceException = ROSException, ServiceException
    rospy.is_shutdown = lambda: driver.shutdown
    rospy.logwarn = lambda text, *values: driver.warnings.append(text % values)
    messages = types.ModuleType("sensor_msgs.msg")
    messages.JointState = object
    client = types.ModuleType("interbotix_xs_modules.arm")
    client.InterbotixManipulatorXS = Robot
    for name, module in (
        ("rospy", rospy),
        ("sensor_msgs", types.ModuleType("sensor_msgs")),
        ("sensor_msgs.msg", messages),
        ("interbotix_xs_modules", types.ModuleType("interbotix_xs_modules")),
        ("interbotix_xs_modules.arm", client),
    ):
        monkeypatch.setitem(sys.modules, name, module)


def hang():
    """Return an Event for ``FakeDriver.hang``; set it to let go."""
    return threading.Event()
