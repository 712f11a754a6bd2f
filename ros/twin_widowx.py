#!/usr/bin/env python3
"""Twin of a WidowX: the vendor driver's topics and services in front of a simulated arm.

It takes the place of ``xs_sdk``, so that the vendor's unmodified client and our driver run without
the arm, in real time. The vendor's message package must be installed (docs/widowx.md). The scene
around the arm is on ``twin/...`` and ``camera/...`` in the node's own namespace.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import importlib
import threading
import time
from typing import Any, Tuple
from xml.etree import ElementTree

import numpy as np
import rospy
from ofrl_ros.messages import stamp_of
from ofrl_ros.node import run_node
from ofrl_ros.params import int_param
from ofrl_ros.twin.dynamixel import GRIPPER, GROUPS, MOTOR_FAULTS, MOTORS, Registers
from ofrl_ros.twin.widowx_arm import ARM_JOINTS, SIGNS, TwinWidowX
from ofrl_ros.twin.widowx_scene import WidowXScene
from ofrl_ros.twin.world import TwinFaults, TwinWorld, run_at
from sensor_msgs.msg import JointState

from ofrl_robot.errors import ConfigError
from ofrl_robot.sim.real_time import RealTimePhysics
from ofrl_robot.sim.world import ASSETS, World

STATE_HZ = 100.0  # the vendor's update_rate for this arm
BUS_TIME = 0.002  # s to read or write a register of one motor on the bus
SLEEP_JOINTS = (0.0, -1.80, 1.55, 0.0, 0.8, 0.0)
MOTOR_IDS = (1, 2, 4, 6, 7, 8, 9)  # 3 and 5 are shadow motors
FAULTS = {
    **MOTOR_FAULTS,
    "states_silent": (),
    "states_nan": ARM_JOINTS,
    "states_garbage": ARM_JOINTS,  # what the vendor's driver makes of a failed read: -pi
    "states_frozen": (),  # old positions under new stamps
    "service_hang": (),
    "service_error": (),
}


class TwinNode:
    """The vendor's topics and services under ``/<robot_name>``."""

    def __init__(self) -> None:
        messages, services = _vendor_messages()
        self._services = services
        name = str(rospy.get_param("~robot_name", "wx250s"))
        self._world = World()
        self._world.clear()
        self._twin = TwinWidowX(self._world)
        self._limits = describe(name)
        task = str(rospy.get_param("~task", "Widow250SingleObjGrasp-v0"))
        size = int_param("image_size", 48, low=1, high=1024)
        scene = WidowXScene(self._world, self._twin, task, size)
        self._physics = RealTimePhysics(self._twin.advance)
        self._lock = self._physics.lock
        self._faults = TwinFaults(FAULTS)
        self._registers = Registers(self._twin, self._faults)
        self._modes = {"arm": ["position", "time"], GRIPPER: ["pwm", "velocity"]}
        camera = str(rospy.get_param("~camera", "image"))
        self._surroundings = TwinWorld(
            scene, self._physics, camera, int_param("fps", 25, low=1, high=60)
        )
        self._frozen: Any = None
        self._closed = threading.Event()
        root = f"/{name}/"
        self._states = rospy.Publisher(
            root + "joint_states", JointState, queue_size=1, tcp_nodelay=True
        )
        for topic, kind, heard in (
            ("joint_group", messages.JointGroupCommand, self._on_group),
            ("joint_single", messages.JointSingleCommand, self._on_single),
        ):
            rospy.Subscriber(
                root + "commands/" + topic, kind, heard, queue_size=5, tcp_nodelay=True
            )
        for service, kind, answer in (
            ("torque_enable", services.TorqueEnable, self._torque_enable),
            ("reboot_motors", services.Reboot, self._reboot),
            ("get_robot_info", services.RobotInfo, self._robot_info),
            ("set_operating_modes", services.OperatingModes, self._set_modes),
            ("set_motor_pid_gains", services.MotorGains, self._set_gains),
            ("set_motor_registers", services.RegisterValues, self._write),
            ("get_motor_registers", services.RegisterValues, self._read),
        ):
            rospy.Service(root + service, kind, self._faulty(answer))

    def run(self) -> None:
        """Publish joint states until shutdown."""
        self._surroundings.start()
        try:
            run_at(STATE_HZ, self._publish, self._closed)
        finally:
            self._closed.set()
            self._surroundings.close()
            self._physics.close()
            self._world.close()

    # -- topics --------------------------------------------------------------------------

    def _publish(self) -> None:
        with self._lock:
            self._physics.require_alive()
            self._registers.follow()
            stamp = time.time_ns()
            state = self._twin.joint_state()
        if "states_silent" in self._faults:
            return
        if "states_frozen" in self._faults:
            state = self._frozen = self._frozen or state
        else:
            self._frozen = None
        positions, speeds, efforts = state
        for fault, value in (("states_nan", float("nan")), ("states_garbage", -np.pi)):
            if fault in self._faults:
                positions[self._faults.detail(fault)] = value
        message = JointState(
            name=list(positions),
            position=list(positions.values()),
            velocity=list(speeds.values()),
            effort=list(efforts.values()),
        )
        message.header.stamp = stamp_of(stamp)
        self._states.publish(message)

    def _on_group(self, message: Any) -> None:
        if message.name == "arm" and len(message.cmd) == len(ARM_JOINTS):
            with self._lock:
                self._twin.command(message.cmd, self._registers.profile_seconds)

    def _on_single(self, message: Any) -> None:
        with self._lock:
            if message.name == GRIPPER:
                self._twin.drive_gripper(message.cmd)
            elif message.name in ARM_JOINTS:
                goal = self._twin.goal
                goal[ARM_JOINTS.index(message.name)] = message.cmd
                self._twin.command(goal, self._registers.profile_seconds)

    # -- services ------------------------------------------------------------------------

    def _faulty(self, answer: Any) -> Any:
        """Return a service that hangs or fails while that fault is injected."""

        def call(request: Any) -> Any:
            while "service_hang" in self._faults and not rospy.is_shutdown():
                time.sleep(0.02)
            if "service_error" in self._faults:
                raise rospy.ServiceException("the driver failed")
            return answer(request)

        return call

    def _torque_enable(self, request: Any) -> Any:
        with self._lock:
            self._registers.set_torque(_motors(request), request.enable)
        return self._services.TorqueEnableResponse()

    def _reboot(self, request: Any) -> Any:
        smart = request.smart_reboot and request.cmd_type == "group"
        with self._lock:
            self._registers.reboot(_motors(request), request.enable, smart)
        return self._services.RebootResponse()

    def _set_modes(self, request: Any) -> Any:
        with self._lock:
            for motor in ("arm", GRIPPER):
                if request.name in (motor, "all"):
                    self._modes[motor] = [request.mode, request.profile_type]
        return self._services.OperatingModesResponse()

    def _set_gains(self, _request: Any) -> Any:
        return self._services.MotorGainsResponse()

    def _write(self, request: Any) -> Any:
        motors = _motors(request)
        time.sleep(BUS_TIME * len(motors))
        with self._lock:
            self._registers.write(motors, request.reg, request.value)
        return self._services.RegisterValuesResponse()

    def _read(self, request: Any) -> Any:
        motors = _motors(request)
        time.sleep(BUS_TIME * len(motors))
        with self._lock:
            values = self._registers.read(motors, request.reg)
        return self._services.RegisterValuesResponse(values=values)

    def _robot_info(self, request: Any) -> Any:
        motors = _motors(request)
        mode, profile = self._modes[GRIPPER if request.name == GRIPPER else "arm"]
        answer = self._services.RobotInfoResponse(
            mode=mode, profile_type=profile, num_joints=len(motors)
        )
        for motor in motors:
            index = MOTORS.index(motor)
            joint = "left_finger" if motor == GRIPPER else motor
            low, high, speed = self._limits[joint]
            answer.joint_names.append(joint)
            answer.joint_ids.append(MOTOR_IDS[index])
            answer.joint_lower_limits.append(low)
            answer.joint_upper_limits.append(high)
            answer.joint_velocity_limits.append(speed)
            answer.joint_sleep_positions.append((*SLEEP_JOINTS, 0.0)[index])
            answer.joint_state_indices.append(index + (joint != motor))
        answer.name = list(GROUPS) if request.name == "all" else [request.name]
        return answer


def describe(robot_name: str) -> dict:
    """Load the URDF, with the vendor's signs, into ``/<robot_name>/robot_description``.

    Returns:
        (low, high, fastest) of every joint that has limits, rad or m, by name.
    """
    tree = ElementTree.parse(f"{ASSETS}/wx250s.urdf")
    flipped = [name for name, sign in zip(ARM_JOINTS, SIGNS) if sign < 0]
    limits = {}
    for joint in tree.getroot().findall("joint"):
        name, limit, axis = joint.get("name"), joint.find("limit"), joint.find("axis")
        if limit is None or axis is None or limit.get("lower") is None:
            continue
        low, high = float(limit.get("lower", "0")), float(limit.get("upper", "0"))
        if name in flipped:
            low, high = -high, -low
            axis.set("xyz", " ".join(f"{-float(v):g}" for v in axis.get("xyz", "").split()))
            limit.set("lower", repr(low))
            limit.set("upper", repr(high))
        limits[name] = (low, high, float(limit.get("velocity", "3.14159")))
    text = ElementTree.tostring(tree.getroot(), encoding="unicode")
    rospy.set_param(f"/{robot_name}/robot_description", text)
    return limits


def _motors(request: Any) -> Tuple[str, ...]:
    """Return the motors that a request of the vendor's services names."""
    if request.cmd_type == "group":
        found = GROUPS.get(request.name, ())
    else:
        found = tuple(m for m in MOTORS if m == request.name)
    if not found:
        raise rospy.ServiceException(f"no motor or group {request.name!r}")
    return found


def _vendor_messages() -> Tuple[Any, Any]:
    """Return the vendor's messages and services, from wherever they are installed."""
    try:
        messages = importlib.import_module("interbotix_xs_msgs.msg")
        return messages, importlib.import_module("interbotix_xs_msgs.srv")
    except ImportError as error:
        raise ConfigError(
            f"the vendor's messages cannot be imported ({error})",
            "install interbotix_xs_msgs as docs/widowx.md says, and source its workspace",
        ) from error


if __name__ == "__main__":
    run_node("twin", lambda: TwinNode().run())
