#!/usr/bin/env python3
"""Robot node: the only node that commands an arm, and the clock of the control loop.

Each tick it publishes the observation, takes the newest action that answers it, limits it,
applies it and publishes what was applied. In lockstep (simulation) the tick waits for its action;
otherwise ticks come at the control rate. No action in time: hold and count; too many in a row:
stop, with the reason on ``robot/status``, until ``rearm``. After a stop only ``reset`` moves.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import threading
import time

from ofrl_ros import messages
import rospy
from ofrl_ros import wires
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState, Joy
from std_srvs.srv import Trigger, TriggerResponse

from ofrl_robot.control.loop import OPERATOR, ROBOT_FAULT, ControlLoop
from ofrl_robot.control.pacing import Pacer
from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import CameraStoppedError, ConfigError, OfrlError

RESET_TIMEOUT = 30.0  # s


def make_robot(kind: str, lockstep: bool):
    """Backend by name."""
    if kind == "sim":
        from ofrl_robot.robots.sim import SimRobot
        from ofrl_robot.sim.options import SimOptions

        options = SimOptions(
            image_size=wires.int_param("image_size", 48, low=8),
            sim_backend=wires.word_param("sim_backend", "embedded"),
            realism=wires.word_param("realism", "off"),
            num_objects=wires.int_param("num_objects", 0, low=0),
            roboverse_bugs=wires.bool_param("roboverse_bugs", False),
        )
        task = rospy.get_param("~task")
        if not lockstep:
            return SimRobot(task, options, clock_ns=time.time_ns)
        # simulated time starts at the wall clock: stamps are unique across episodes and nodes
        return SimRobot(task, options, origin_ns=time.time_ns)
    raise ConfigError(f"unknown robot {kind!r}", "use robot:=sim")


class RobotNode:
    def __init__(self) -> None:
        self._lockstep = wires.bool_param("lockstep", True)
        self._robot = make_robot(rospy.get_param("~robot", "sim"), self._lockstep)
        self._timeout = wires.seconds_param("action_timeout", 2.0)
        silent = wires.int_param("max_silent_ticks", 3, low=1)
        self._loop = ControlLoop(self._robot, max_silent_ticks=silent)
        self._pacer = Pacer(1.0 / self._robot.control_rate_hz)
        # guards the control loop and the three fields below; notified when any of it changes
        self._changed = threading.Condition(threading.RLock())
        self._asked = None  # seed of the reset that is asked for, None when there is none
        self._answer = None  # (success, message) of the reset that was carried out
        self._over = True  # no episode runs: only a reset changes that
        self._one_reset = threading.Lock()
        self._seed = 0

        def publisher(topic, kind):
            # latched: a subscriber whose connection completes late still gets the first tick
            return rospy.Publisher(
                topic, kind, queue_size=wires.QUEUE, tcp_nodelay=True, latch=True
            )

        self._images = {
            c.name: publisher(messages.IMAGE_TOPIC.format(c.name), Image)
            for c in self._robot.observation_spec.cameras
        }
        self._captured = dict.fromkeys(self._images, 0)  # stamps of the frames sent last
        self._tick = publisher("tick", JointState)
        self._truth = publisher("ground_truth", JointState)
        self._pose = publisher("ee_pose", PoseStamped)
        self._joints = publisher("joint_states", JointState)
        self._applied = publisher("applied_action", Joy)
        self._status = publisher("robot/status", DiagnosticStatus)
        for topic, source in messages.SOURCES.items():
            rospy.Subscriber(topic, Joy, self._on_action, callback_args=source, tcp_nodelay=True)
        rospy.Service("stop", Trigger, self._on_stop)
        rospy.Service("rearm", Trigger, self._on_rearm)
        rospy.Service("reset", Trigger, self._on_reset)
        self._spec = wires.publish_spec(self._robot)
        wires.Diagnostics("ofrl/robot", self._describe)
        self._publish_status()

    # -- callbacks (rospy threads) -------------------------------------------------------

    def _on_action(self, message: Joy, source: str) -> None:
        with self._changed:
            self._loop.arbiter.offer(messages.command_from(message, source))
            self._changed.notify_all()

    def _on_stop(self, _request) -> TriggerResponse:
        self._stop(OPERATOR)
        return TriggerResponse(True, "stopped; call rearm to allow motion again")

    def _on_rearm(self, _request) -> TriggerResponse:
        with self._changed:
            self._loop.rearm()
        self._publish_status()
        return TriggerResponse(True, "armed; call reset to start an episode")

    def _on_reset(self, _request) -> TriggerResponse:
        """Start an episode with the seed in parameter ``next_seed``; ends a running one."""
        seed = rospy.get_param("next_seed", 0)
        if not isinstance(seed, int) or seed < 0:
            return TriggerResponse(False, f"next_seed is {seed!r}; use 0 or more")
        deadline = time.monotonic() + RESET_TIMEOUT
        with self._one_reset, self._changed:
            if self._loop.stopped:
                reason = self._loop.stop_reason
                return TriggerResponse(False, f"stopped ({reason}); re-arm first")
            self._asked, self._answer, self._over = seed, None, True
            self._changed.notify_all()
            while self._answer is None and time.monotonic() < deadline:
                if rospy.is_shutdown():
                    return TriggerResponse(False, "shutting down")
                self._changed.wait(0.1)
            self._asked = None  # also after a timeout: it must not start by itself later
            return TriggerResponse(*(self._answer or (False, "no reset within 30 s")))

    # -- main thread ---------------------------------------------------------------------

    def run(self) -> None:
        """Run episodes as they are asked for, until shutdown."""
        try:
            while not rospy.is_shutdown():
                tick = self._await_reset()
                if tick is not None:
                    self._episode(tick)
                    self._publish_status()
        except CameraStoppedError as error:
            self._stop(error.what)
            raise
        except Exception:
            if not rospy.is_shutdown():  # else the publishers were closed under us: no fault
                self._stop(ROBOT_FAULT)
                raise
        finally:
            # after a shutdown the publishers are gone; holding still is what matters
            self._loop.stop(OPERATOR)
            self._robot.close()

    def _await_reset(self):
        """Carry out a reset when one is asked for; tick 0, or None when there is none yet."""
        with self._changed:
            if self._asked is None:
                self._changed.wait(0.1)
            if self._asked is None:
                return None
            self._seed, self._asked = self._asked, None
        tick, answer = None, (True, "")
        try:
            tick = self._loop.reset(self._seed)
        except OfrlError as error:
            answer = (False, str(error))
        with self._changed:
            if self._loop.stopped:  # meanwhile
                tick, answer = None, (False, f"stopped ({self._loop.stop_reason})")
            self._answer, self._over = answer, tick is None
            self._changed.notify_all()
        return tick

    def _episode(self, tick: Tick) -> None:
        self._pacer.start(time.monotonic())
        while True:
            self._publish(tick)
            if tick.last:
                with self._changed:
                    self._over = True
                return
            self._await_action(tick.stamp_ns)
            with self._changed:  # no stop can come between this check and the motion
                if self._over or self._loop.stopped or rospy.is_shutdown():
                    return
                applied = self._loop.apply(tick)
            self._applied.publish(messages.applied_message(applied))
            if self._loop.stopped:
                self._stop(self._loop.stop_reason)
                return
            tick = self._robot.observe()

    def _await_action(self, stamp_ns: int) -> None:
        """Lockstep: until the tick is answered or the timeout; else until the period is over."""
        if not self._lockstep:
            time.sleep(self._pacer.wait(time.monotonic()))
            self._pacer.tick(time.monotonic())
            return
        deadline = time.monotonic() + self._timeout
        with self._changed:
            while (
                self._loop.arbiter.choose(stamp_ns)[0] is None
                and not (self._over or rospy.is_shutdown())
                and time.monotonic() < deadline
            ):
                self._changed.wait(0.1)  # wakes at once on an action; 0.1 s notices a shutdown

    def _stop(self, reason: str) -> None:
        with self._changed:
            self._loop.stop(reason)
            self._over = True
            self._changed.notify_all()
        rospy.logwarn("robot stopped: %s", self._loop.stop_reason)
        self._publish_status()

    def _publish(self, tick: Tick) -> None:
        """Everything observed at a tick, the tick itself last; of the frames only new ones."""
        stamp = tick.stamp_ns
        for name, pixels in tick.images.items():
            captured = tick.image_stamps_ns[name]
            if captured != self._captured[name]:
                self._images[name].publish(messages.image_message(pixels, captured, name))
                self._captured[name] = captured
        if tick.ground_truth:
            self._truth.publish(messages.ground_truth_message(tick))
        self._pose.publish(messages.pose_message(tick))
        self._joints.publish(messages.named_values(self._robot.joints(), stamp))
        spec = self._robot.observation_spec
        self._tick.publish(messages.tick_message(tick, spec, self._seed))

    def _describe(self):
        stopped = self._loop.stopped
        level = DiagnosticStatus.ERROR if stopped else DiagnosticStatus.OK
        text = f"stopped: {self._loop.stop_reason}" if stopped else "armed"
        return level, text, dict(self._loop.diagnostics(), late_ticks=self._pacer.late)

    def _publish_status(self) -> None:
        level, text, values = self._describe()
        values["reason"] = self._loop.stop_reason
        self._status.publish(wires.status_message("robot", level, text, values))


if __name__ == "__main__":
    wires.run_node("robot", lambda: RobotNode().run())
