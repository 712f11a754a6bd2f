#!/usr/bin/env python3
"""Robot node: the only node that commands an arm, and the clock of the control loop.

Each tick it publishes the observation, takes the newest action that answers it, limits it,
applies it and publishes what was applied. In lockstep (simulation) the tick waits for its action;
otherwise ticks come at the control rate. No action in time: hold and count; too many in a row:
stop, with the reason on ``robot/status``, until ``rearm``.
"""

import prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import threading
import time

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState, Joy
from std_srvs.srv import Trigger, TriggerResponse
import wires

from ofrl_robot.control.loop import ACTOR_SILENT, OPERATOR, ROBOT_FAULT, ControlLoop
from ofrl_robot.control.pacing import Pacer
from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError, OfrlError


def make_robot(kind: str):
    """Backend by name."""
    if kind == "sim":
        from ofrl_robot.robots.sim import SimRobot

        return SimRobot(rospy.get_param("~task"), int(rospy.get_param("~image_size", 48)))
    raise ConfigError("unknown robot {!r}".format(kind), "use robot:=sim")


class RobotNode:
    def __init__(self) -> None:
        self._robot = make_robot(rospy.get_param("~robot", "sim"))
        self._lockstep = bool(rospy.get_param("~lockstep", True))
        self._timeout = wires.seconds_param("action_timeout", 2.0)
        silent = int(rospy.get_param("~max_silent_ticks", 3))
        self._loop = ControlLoop(self._robot, max_silent_ticks=silent)
        self._arrived = threading.Condition()  # guards the arbiter and the flags below
        self._reset_wanted = threading.Event()
        self._reset_done = threading.Event()
        self._reset_error = ""
        self._seed = 0
        self._clock_ns = 0

        def publisher(topic, kind):
            return rospy.Publisher(topic, kind, queue_size=wires.QUEUE, tcp_nodelay=True)

        self._images = {
            c.name: publisher("camera/{}/image_raw".format(c.name), Image)
            for c in self._robot.observation_spec.cameras
        }
        self._tick = publisher("tick", JointState)
        self._truth = publisher("ground_truth", JointState)
        self._pose = publisher("ee_pose", PoseStamped)
        self._joints = publisher("joint_states", JointState)
        self._applied = publisher("applied_action", Joy)
        self._status = rospy.Publisher("robot/status", DiagnosticStatus, queue_size=10, latch=True)
        for topic, source in wires.SOURCES.items():
            rospy.Subscriber(topic, Joy, self._on_action, callback_args=source, tcp_nodelay=True)
        rospy.Service("stop", Trigger, self._on_stop)
        rospy.Service("rearm", Trigger, self._on_rearm)
        rospy.Service("reset", Trigger, self._on_reset)
        wires.publish_spec(self._robot)
        self._diagnostics = wires.Diagnostics("ofrl/robot", self._describe)
        self._publish_status()

    # -- callbacks (rospy threads) -------------------------------------------------------

    def _on_action(self, message: Joy, source: str) -> None:
        with self._arrived:
            self._loop.arbiter.offer(wires.command_from(message, source))
            self._arrived.notify_all()

    def _on_stop(self, _request) -> TriggerResponse:
        self._stop(OPERATOR)
        return TriggerResponse(True, "stopped; call rearm to allow motion again")

    def _on_rearm(self, _request) -> TriggerResponse:
        with self._arrived:
            self._loop.rearm()
        self._publish_status()
        return TriggerResponse(True, "armed; call reset to start an episode")

    def _on_reset(self, _request) -> TriggerResponse:
        """Start an episode with the seed in parameter ``next_seed``; ends a running one."""
        if self._loop.stopped:
            return TriggerResponse(
                False, "stopped ({}); re-arm first".format(self._loop.stop_reason)
            )
        self._seed = int(rospy.get_param("next_seed", 0))
        self._reset_error = ""
        self._reset_done.clear()
        self._reset_wanted.set()
        with self._arrived:
            self._arrived.notify_all()
        if not self._reset_done.wait(30.0):
            return TriggerResponse(False, "the robot did not reset within 30 s")
        return TriggerResponse(not self._reset_error, self._reset_error or str(self._seed))

    # -- main thread ---------------------------------------------------------------------

    def run(self) -> None:
        """Run episodes as they are asked for, until shutdown."""
        try:
            while not rospy.is_shutdown():
                if not self._reset_wanted.wait(0.1):
                    continue
                self._reset_wanted.clear()
                try:
                    tick = self._loop.reset(self._seed)
                except OfrlError as error:
                    self._reset_error = str(error)
                    self._reset_done.set()
                    continue
                # simulated time runs on across episodes, so that every stamp is unique
                self._clock_ns = max(self._clock_ns, time.time_ns())
                self._reset_done.set()
                self._publish_status()
                self._episode(tick)
                self._publish_status()
        except Exception:
            self._stop(ROBOT_FAULT)
            raise
        finally:
            # after a shutdown the publishers are gone; holding still is what matters
            self._loop.stop(OPERATOR)
            self._robot.close()

    def _episode(self, tick: Tick) -> None:
        pacer = Pacer(1.0 / self._robot.control_rate_hz)
        pacer.start(time.monotonic())
        origin = self._clock_ns
        while not rospy.is_shutdown():
            tick.stamp_ns += origin
            self._clock_ns = tick.stamp_ns
            self._publish(tick)
            if tick.last or self._reset_wanted.is_set() or self._loop.stopped:
                return
            self._await_action(tick.stamp_ns, pacer)
            if rospy.is_shutdown() or self._reset_wanted.is_set() or self._loop.stopped:
                return
            with self._arrived:
                applied = self._loop.apply(tick)
            self._applied.publish(wires.applied_message(applied))
            if self._loop.stopped:
                self._stop(ACTOR_SILENT)
                return
            tick = self._robot.observe()

    def _await_action(self, stamp_ns: int, pacer: Pacer) -> None:
        """Lockstep: until the tick is answered or the timeout; else until the period is over."""
        if not self._lockstep:
            time.sleep(pacer.wait(time.monotonic()))
            pacer.tick(time.monotonic())
            return
        deadline = time.monotonic() + self._timeout
        with self._arrived:
            while (
                self._loop.arbiter.choose(stamp_ns)[0] is None
                and not (self._loop.stopped or self._reset_wanted.is_set() or rospy.is_shutdown())
                and time.monotonic() < deadline
            ):
                self._arrived.wait(0.1)  # wakes at once on an action; 0.1 s notices a shutdown

    def _stop(self, reason: str) -> None:
        with self._arrived:
            self._loop.stop(reason)
            self._arrived.notify_all()
        rospy.logwarn("robot stopped: %s", self._loop.stop_reason)
        self._publish_status()

    def _publish(self, tick: Tick) -> None:
        """Everything observed at a tick, the tick itself last."""
        stamp = tick.stamp_ns
        for name, pixels in tick.images.items():
            self._images[name].publish(wires.image_message(pixels, stamp, name))
        if tick.ground_truth:
            self._truth.publish(wires.ground_truth_message(tick))
        self._pose.publish(wires.pose_message(tick))
        self._joints.publish(wires.named_values(self._robot.joints(), stamp))
        spec = self._robot.observation_spec
        self._tick.publish(wires.tick_message(tick, spec, self._seed))

    def _describe(self):
        stopped = self._loop.stopped
        level = DiagnosticStatus.ERROR if stopped else DiagnosticStatus.OK
        text = "stopped: " + self._loop.stop_reason if stopped else "armed"
        return level, text, self._loop.diagnostics()

    def _publish_status(self) -> None:
        level, text, values = self._describe()
        values["reason"] = self._loop.stop_reason
        self._status.publish(wires.status_message("robot", level, text, values))


if __name__ == "__main__":
    wires.run_node("robot", lambda: RobotNode().run())
