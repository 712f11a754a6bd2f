"""Speak to the vendor's Python client of a WidowX (interbotix_xs_modules), with every call bounded.

The only module of the driver that imports the vendor's packages and rospy, when it connects.
docs/widowx.md says what to install, and what was measured on the client.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.robots.bounded import BoundedCalls
from ofrl_robot.robots.widowx_kinematics import ScrewChain
from ofrl_robot.robots.widowx_settings import WidowXSettings

ARM, ALL, GRIPPER = "arm", "all", "gripper"  # names of groups and motors in the vendor's driver
LEFT_FINGER, RIGHT_FINGER = "left_finger", "right_finger"
PROFILE_TIME, PROFILE_ACCELERATION = "Profile_Velocity", "Profile_Acceleration"  # ms


class Joints(NamedTuple):
    """The newest message on ``joint_states``.

    Attributes:
        stamp_ns: time in its header.
        positions: rad by joint (fingers: m); NaN and garbage pass through the vendor's driver.
        velocities, efforts: rad/s and mA by joint; empty when the driver sends none.
    """

    stamp_ns: int
    positions: Dict[str, float]
    velocities: Dict[str, float]
    efforts: Dict[str, float]


class InterbotixClient:
    """One arm behind the vendor's driver.

    Services may block without end (rospy has no time-out), so each goes through
    :class:`BoundedCalls`. Publishing never blocks, and never says that nobody listens.

    Args:
        settings: names, times and the gripper's pressure.

    Attributes:
        joint_names: of the group ``arm``, in the order of every array here.
        motors: every motor that is asked for registers.
        lower, upper, speeds: limits of the joints, rad and rad/s, as the robot gives them.
        sleep_joints: where the arm can be left without torque, rad.
        chain: its kinematics.

    Raises:
        ConfigError: the vendor's packages are not installed, or do not know the model.
        RobotError: no ROS node in this process, no driver, or a silent one.
    """

    def __init__(self, settings: WidowXSettings) -> None:
        self._settings = settings
        self._rospy, vendor, message = _imports()
        if not self._rospy.core.is_initialized():
            raise RobotError("this process is no ROS node", "call rospy.init_node first", "widowx")
        self._services = BoundedCalls(f"a service of /{settings.robot_name}")
        self._newest: Optional[Joints] = None
        topic = f"/{settings.robot_name}/joint_states"
        self._wait_for_states(topic, message)
        self._subscriber = self._rospy.Subscriber(
            topic, message, self._on_states, queue_size=1, tcp_nodelay=True
        )
        try:
            self._robot = self._construct(vendor)
            self._ask_robot()
        except Exception:
            self.close()
            raise

    def _ask_robot(self) -> None:
        """Take names, limits and kinematics from the robot."""
        arm = self._robot.arm
        self.joint_names: Tuple[str, ...] = tuple(arm.group_info.joint_names)
        self.lower = np.array(arm.group_info.joint_lower_limits, np.float64)
        self.upper = np.array(arm.group_info.joint_upper_limits, np.float64)
        self.speeds = np.array(arm.group_info.joint_velocity_limits, np.float64)
        if not len(self.lower) == len(self.upper) == len(self.speeds) == len(self.joint_names):
            raise RobotError(
                "the vendor's driver has no joint limits",
                f"load the arm's URDF into /{self._settings.robot_name}/robot_description",
                "widowx",
            )
        self.sleep_joints = np.array(arm.group_info.joint_sleep_positions, np.float64)
        self.chain = ScrewChain(arm.robot_des.Slist, arm.robot_des.M)
        info = self._call(lambda: self._robot.dxl.robot_get_robot_info("group", ALL))
        # the gripper's motor is listed there by the name of its left finger
        self.motors: Tuple[str, ...] = tuple(
            GRIPPER if name == LEFT_FINGER else name for name in info.joint_names
        )

    # -- measurements --------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the time by the clock that stamps ``joint_states``."""
        return int(self._rospy.Time.now().to_nsec())

    def newest(self) -> Joints:
        """Return the newest joint states; their stamp says how old they are."""
        assert self._newest is not None  # the constructor waited for the first
        return self._newest

    def _on_states(self, message: Any) -> None:
        """In a thread of rospy. Indexed by name: the order is the driver's own business."""
        names = list(message.name)
        self._newest = Joints(
            int(message.header.stamp.to_nsec()),
            _by_name(names, message.position),
            _by_name(names, message.velocity),
            _by_name(names, message.effort),
        )

    # -- commands ------------------------------------------------------------------------

    def send(self, joints: np.ndarray) -> bool:
        """Command the arm's joints, rad; returns at once. False: the client refused it."""
        return bool(self._robot.arm.set_joint_positions(list(map(float, joints)), blocking=False))

    def hold(self, joints: np.ndarray) -> None:
        """Command the arm's joints past the client's checks and memory; from any thread."""
        self._robot.dxl.robot_write_commands(ARM, list(map(float, joints)))

    def move_gripper(self, open_it: bool) -> None:
        """Drive the fingers; they push until their limit, or as long as they hold something."""
        gripper = self._robot.gripper
        (gripper.open if open_it else gripper.close)(delay=0.0)

    def set_profile(self, duration: float, acceleration: float) -> None:
        """Write how long a motion of the arm and its acceleration last, s.

        The client writes only what differs from what it wrote last, and a rebooted motor has
        forgotten it (0: no speed limit); so the registers are written in any case. The client is
        told first: it judges speeds by its own copy of the duration.

        Raises:
            RobotError: the vendor's driver does not answer.
        """
        self._call(lambda: self._robot.arm.set_trajectory_time(duration, acceleration))
        for register, seconds in ((PROFILE_TIME, duration), (PROFILE_ACCELERATION, acceleration)):
            self._write(register, int(round(1000.0 * seconds)))

    def _write(self, register: str, value: int) -> None:
        set_registers = self._robot.dxl.robot_set_motor_registers
        self._call(lambda: set_registers("group", ARM, register, value))

    def capture(self) -> None:
        """Make the client forget what it commanded: it starts again from the measured joints."""
        self._robot.arm.capture_joint_positions()

    # -- motors --------------------------------------------------------------------------

    def registers(self, register: str) -> List[int]:
        """Return a register of every motor, in the order of ``motors``.

        Fewer values: the driver gave up at the first motor that did not answer. None at all: that,
        or a driver without this register.

        Raises:
            RobotError: the vendor's driver does not answer.
        """
        read = self._robot.dxl.robot_get_motor_registers
        return list(self._call(lambda: read("group", ALL, register)).values)

    def reboot_failed_motors(self) -> None:
        """Reboot the motors with an error and those that are silent; they let go meanwhile."""
        reboot = self._robot.dxl.robot_reboot_motors
        # 0.5 s per motor on the bus, one after the other
        self._call(lambda: reboot("group", ALL, True, smart_reboot=True), 10.0)

    def set_torque(self, on: bool) -> None:
        """Switch the torque of the arm on or off. Without it the arm falls."""
        self._call(lambda: self._robot.dxl.robot_torque_enable("group", ARM, on))

    def set_gripper_torque(self, on: bool) -> None:
        """Switch the torque of the gripper on or off."""
        self._call(lambda: self._robot.dxl.robot_torque_enable("single", GRIPPER, on))

    # -- life ----------------------------------------------------------------------------

    def warn(self, text: str) -> None:
        """Log a warning."""
        self._rospy.logwarn("widowx: %s", text)

    @property
    def connected(self) -> bool:
        """Whether this process can still publish: after a shutdown of ROS it cannot."""
        return not self._rospy.is_shutdown()

    def close(self) -> None:
        """Stop to listen. Calling it again does nothing."""
        self._subscriber.unregister()

    def _wait_for_states(self, topic: str, message: Any) -> None:
        """Wait for the first joint states: the client's constructor would spin for ever."""
        try:
            first = self._rospy.wait_for_message(topic, message, self._settings.connect_timeout)
        except self._rospy.ROSException as error:
            raise RobotError(
                f"nothing on {topic} within {self._settings.connect_timeout:g} s",
                "start the vendor's driver (docs/widowx.md) and see what it prints",
                "widowx",
            ) from error
        self._on_states(first)

    def _construct(self, vendor: Any) -> Any:
        """Build the vendor's client; it ends the process (SystemExit) when it finds no driver."""
        settings = self._settings
        duration, acceleration = settings.profile

        def build() -> Any:
            return vendor.InterbotixManipulatorXS(
                robot_model=settings.model,
                group_name=ARM,
                gripper_name=GRIPPER,
                robot_name=settings.robot_name,
                moving_time=duration,
                accel_time=acceleration,
                gripper_pressure=settings.gripper_pressure,
                init_node=False,  # else a second process with this arm would end the first
            )

        try:
            return self._call(build, 5.0 + settings.connect_timeout)
        except AttributeError as error:
            raise ConfigError(
                f"the vendor's client does not know model {settings.model!r} ({error})",
                "use wx250s",
                "settings of widowx",
            ) from error

    def _call(self, function: Callable[[], Any], timeout: Optional[float] = None) -> Any:
        """Call a service of the vendor's driver; RobotError when it fails or hangs."""
        seconds = self._settings.service_timeout if timeout is None else timeout
        try:
            return self._services.call(function, seconds)
        except (self._rospy.ServiceException, self._rospy.ROSException) as error:
            raise RobotError(
                f"a service of /{self._settings.robot_name} failed ({error})",
                "see whether the vendor's driver still runs",
                "widowx",
            ) from error


def _by_name(names: List[str], values: Sequence[float]) -> Dict[str, float]:
    """Return values by name; nothing when the driver sends none (velocity, effort)."""
    return dict(zip(names, map(float, values))) if len(values) == len(names) else {}


def _imports() -> Tuple[Any, Any, Any]:
    """Return rospy, the vendor's module and the type of ``joint_states``."""
    try:
        rospy = importlib.import_module("rospy")
        message = importlib.import_module("sensor_msgs.msg").JointState
        return rospy, importlib.import_module("interbotix_xs_modules.arm"), message
    except ImportError as error:
        raise ConfigError(
            f"the vendor's client of the WidowX cannot be imported ({error})",
            "install interbotix_xs_modules, interbotix_xs_msgs and modern_robotics as "
            "docs/widowx.md says, and source their workspace",
        ) from error
