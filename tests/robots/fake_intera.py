"""A fake of what a Sawyer's driver imports: rospy and the vendor's client, as they were measured.

A thread plays the robot: it moves the joints towards what was commanded, at the speed of the
ratio that was set, and sends its messages 100 times a second. The geometry is a toy (the first
three joints place the tip, the last three turn it), so inverse kinematics is one line. What the
real client does when something fails is repeated here (docs/sawyer.md, "measured").
"""

from __future__ import annotations

import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np

from ofrl_robot.control.pose import rotation_from, rotation_vector, turned

NAMES = tuple(f"right_j{i}" for i in range(7))
NEUTRAL = np.array([0.0, -1.18, 0.0, 2.18, 0.0, 0.57, 3.3161])
LOW = np.array([-3.05, -3.81, -3.04, -3.04, -2.98, -2.98, -4.71])
HIGH = np.array([3.05, 2.27, 3.04, 3.04, 2.98, 2.98, 4.71])
SPEEDS = np.array([1.74, 1.328, 1.957, 1.957, 3.485, 3.485, 4.545])
TIP, DOWN = np.array([0.45, 0.16, 0.22]), np.array([0.5**0.5, 0.5**0.5, 0.0, 0.0])
REACH = 0.5  # m that a radian of the first three joints moves the tip


class ROSError(Exception):
    """rospy.ROSException."""


def stamp(ns):
    return SimpleNamespace(to_nsec=lambda: ns)


def forward(joints):
    """Pose of the tip."""
    position = TIP + REACH * (joints[:3] - NEUTRAL[:3])
    return position, turned(DOWN, np.rad2deg(joints[4:7] - NEUTRAL[4:7]))


def inverse(position, orientation):
    joints = NEUTRAL.copy()
    joints[:3] += (np.asarray(position) - TIP) / REACH
    joints[4:7] += np.deg2rad(rotation_vector(orientation, rotation_from(DOWN)))
    return joints


def pose_message(position, orientation):
    return SimpleNamespace(
        position=SimpleNamespace(**dict(zip("xyz", position))),
        orientation=SimpleNamespace(**dict(zip("xyzw", orientation))),
    )


class FakeRobot:
    """The robot behind the fake modules; tests set its attributes to make it fail.

    Attributes:
        silent: topics that are not sent any more.
        skew: s by which its clock is ahead.
        ik: "ok", "none", "gone", "hang", "empty", "nan", "outside", "far".
        acknowledges: whether the gripper does.
        stuck: joints that do not move.
    """

    def __init__(self):
        self.joints, self.target = NEUTRAL.copy(), None
        self.homed = self.ready = self.enabled = True
        self.stopped = self.error = self.collided = False
        self.estop_button = self.estop_source = 0
        self.error_survives = False
        self.ratio, self.opening = 0.3, 0.02
        self.silent, self.skew, self.ik, self.stuck = set(), 0.0, "ok", set()
        self.short, self.nan = False, False  # joint states without velocities; with a NaN
        self.acknowledges = self.calibrated = True
        self.gripper_error = False
        self.subscribers, self.hooks = {}, []
        self.commands = []  # (time, thread, joints)
        self.gripper_commands = []
        self.calls = []
        self.release = threading.Event()  # ends what hangs
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self):
        self.release.set()
        self._end.set()
        self._thread.join(2.0)

    def _run(self):
        before = time.monotonic()
        while not self._end.wait(0.01):
            now = time.monotonic()
            self._move(now - before)
            before = now
            self._send()

    def _move(self, seconds):
        if not self.enabled:
            self.target = None  # it holds where it is when it is enabled again
        if self.target is None:
            return
        most = SPEEDS * self.ratio * seconds
        step = np.clip(self.target - self.joints, -most, most)
        step[[i for i, name in enumerate(NAMES) if name in self.stuck]] = 0.0
        self.joints = self.joints + step

    def _send(self):
        now = time.time_ns() + int(self.skew * 1e9)
        joints = [float("nan")] + self.joints.tolist()[1:] if self.nan else self.joints.tolist()
        empty = [] if self.short else [0.0] * 8
        self._emit("/robot/joint_states", SimpleNamespace(
            header=SimpleNamespace(stamp=stamp(now)), name=["head_pan", *NAMES],
            position=[0.0, *joints], velocity=empty, effort=empty,
        ))  # fmt: skip
        state = SimpleNamespace(
            header=SimpleNamespace(stamp=stamp(now)), pose=pose_message(*forward(self.joints))
        )
        self._emit("/robot/limb/right/tip_states", SimpleNamespace(
            header=state.header, names=["right_hand"], states=[state]
        ))  # fmt: skip
        self._emit("/robot/state", self.state())

    def state(self):
        return SimpleNamespace(
            homed=self.homed, ready=self.ready, enabled=self.enabled, stopped=self.stopped,
            error=self.error, estop_button=self.estop_button, estop_source=self.estop_source,
            ESTOP_BUTTON_PRESSED=1, ESTOP_SOURCE_FAULT=3,
        )  # fmt: skip

    def _emit(self, topic, message):
        if topic not in self.silent:
            for callback in list(self.subscribers.get(topic, [])):
                callback(message)

    def press(self):
        """Press the emergency stop."""
        self.stopped, self.enabled, self.estop_button, self.estop_source = True, False, 1, 1

    def unpress(self):
        """Release it: the robot stays stopped."""
        self.estop_button = 3


class Limb:
    def __init__(self, robot):
        self._robot, self.name = robot, "right"

    def joint_names(self):
        return list(NAMES)

    def has_collided(self):
        return self._robot.collided

    def set_joint_position_speed(self, ratio):
        self._robot.ratio = ratio

    def set_joint_positions(self, positions):
        robot = self._robot
        target = np.array([positions[name] for name in NAMES])
        robot.commands.append((time.monotonic(), threading.get_ident(), target))
        robot.target = target

    def fk_request(self, joints, tip):
        position, orientation = forward(np.array([joints[name] for name in NAMES]))
        stamped = SimpleNamespace(pose=pose_message(position, orientation))
        return SimpleNamespace(isValid=[tip == "right_hand"], pose_stamp=[stamped])

    def ik_request(self, pose, tip, seed):
        robot = self._robot
        robot.calls.append("ik")
        if robot.ik in ("none", "gone"):
            return False
        if robot.ik == "hang":
            robot.release.wait(10.0)
            return False
        if robot.ik == "empty":
            return [][0]  # the client takes the first of no answers
        position, turn = pose.position, pose.orientation
        joints = inverse((position.x, position.y, position.z), (turn.x, turn.y, turn.z, turn.w))
        joints[3] += {"outside": 3.0, "far": 0.8}.get(robot.ik, 0.0)
        if robot.ik == "nan":
            joints[2] = float("nan")
        return dict(zip(NAMES, joints.tolist()))


class RobotEnable:
    def __init__(self, robot):
        self._robot = robot

    def state(self):
        return self._robot.state()

    def enable(self):
        if self._robot.stopped:
            self.reset()
        self._robot.calls.append("enable")
        self._robot.enabled = True

    def disable(self):
        self._robot.calls.append("disable")
        self._robot.enabled = False

    def stop(self):
        self._robot.calls.append("stop")
        self._robot.stopped, self._robot.enabled = True, False

    def reset(self):
        robot = self._robot
        robot.calls.append("reset")
        if not robot.stopped:
            raise OSError(121, "Failed to Reset due to lack of Error State.")
        if robot.estop_button == 1:
            raise OSError(121, "Failed to Reset: E-Stop Engaged")
        robot.stopped, robot.estop_button, robot.estop_source = False, 0, 0
        if robot.error_survives:
            return False
        robot.error = False
        return None


class Gripper:
    def __init__(self, robot):
        self._robot = robot

    def set_position(self, metres):
        robot = self._robot
        robot.gripper_commands.append(metres)
        if not robot.acknowledges:
            robot.release.wait(5.0)
            return
        time.sleep(0.1)
        robot.opening = metres

    def get_position(self):
        return self._robot.opening

    def has_error(self):
        return self._robot.gripper_error

    def reboot(self):
        self._robot.calls.append("reboot")
        self._robot.gripper_error = False

    def is_calibrated(self):
        return self._robot.calibrated

    def calibrate(self):
        self._robot.calls.append("calibrate")
        self._robot.calibrated = True
        return True


class JointLimits:
    def get_joint_lower_limits(self, names):
        return LOW.tolist()

    def get_joint_upper_limits(self, names):
        return HIGH.tolist()

    def get_joint_velocity_limits(self, names):
        return SPEEDS.tolist()


def modules(robot):
    """Return the fake modules by name, for ``sys.modules``."""

    class Subscriber:
        def __init__(self, topic, kind, callback, **_):
            self._entry = robot.subscribers.setdefault(topic, []), callback
            self._entry[0].append(callback)

        def unregister(self):
            callbacks, callback = self._entry
            if callback in callbacks:
                callbacks.remove(callback)

    def module(name, **attributes):
        made = ModuleType(name)
        vars(made).update(attributes)
        return made

    empty = SimpleNamespace
    made = [
        module(
            "rospy",
            ROSException=ROSError,
            Subscriber=Subscriber,
            core=SimpleNamespace(is_initialized=lambda: True),
            names=SimpleNamespace(get_resolved_mappings=dict),
            resolve_name=lambda name: f"/arm/{name}",
            get_param=lambda name, default: default,
            on_shutdown=robot.hooks.append,
        ),
        module(
            "intera_interface",
            CHECK_VERSION=True,
            RobotEnable=lambda versioned: RobotEnable(robot),
            Limb=lambda name: Limb(robot),
            JointLimits=JointLimits,
            Gripper=lambda name, calibrate: Gripper(robot),
        ),
        module("intera_core_msgs"),
        module("intera_core_msgs.msg", EndpointStates=empty, RobotAssemblyState=empty),
        module("geometry_msgs"),
        module("geometry_msgs.msg", Pose=lambda: pose_message((0, 0, 0), (0, 0, 0, 1))),
        module("sensor_msgs"),
        module("sensor_msgs.msg", JointState=empty),
    ]
    return {one.__name__: one for one in made}
