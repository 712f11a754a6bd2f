#!/usr/bin/env python3
"""Robot node: the only node that commands an arm, and the clock of the control loop.

Each tick it publishes the observation, takes the newest action that answers it, limits it,
applies it and publishes what was applied. In lockstep (simulation) the tick waits for its action;
otherwise ticks come at the control rate. No action in time: hold; silent for too long: stop, with
the reason on ``robot/status``, until ``rearm``. After a stop only ``reset`` moves the arm.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import threading
import time

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from ofrl_ros import messages
from ofrl_ros.description import publish_description
from ofrl_ros.diagnostics import Diagnostics, status_message
from ofrl_ros.node import QUEUE, run_node
from ofrl_ros.params import bool_param, seconds_param
from ofrl_ros.reset_requests import ResetRequests
from ofrl_ros.rig_params import rig_from_params
from ofrl_ros.topic_cameras import TopicCameras
from sensor_msgs.msg import Image, JointState, Joy
from std_srvs.srv import Trigger, TriggerResponse
from tf2_msgs.msg import TFMessage

from ofrl_robot.control.loop import OPERATOR, ROBOT_FAULT, ControlLoop
from ofrl_robot.control.pacing import Pacer
from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import CameraStoppedError, OfrlError

WAITING = "waiting"  # state on robot/status while a person prepares the scene


class RobotNode:
    """One rig and its control loop. The main thread runs episodes; callbacks only hand over."""

    def __init__(self) -> None:
        self._lockstep = bool_param("lockstep", True)
        self._timeout = seconds_param("action_timeout", 2.0)
        self._rig = rig_from_params()
        limits = self._rig.arm.limits
        self._loop = ControlLoop(self._rig.arm, seconds_param("max_silence", limits.max_silence))
        self._pacer = Pacer(1.0 / self._rig.control_rate_hz)
        # guards the control loop and the fields below; notified when any of it changes
        self._changed = threading.Condition(threading.RLock())
        self._resets = ResetRequests(self._changed)
        self._over = True  # no episode runs: only a reset changes that
        self._scene_ready = False
        self._request = ""  # what a person is asked to do before the episode starts
        self._info = messages.TickInfo(seed=0, episode=0)

        def publisher(topic, kind):
            # latched: a subscriber whose connection completes late still gets the first tick
            return rospy.Publisher(topic, kind, queue_size=QUEUE, tcp_nodelay=True, latch=True)

        self._images = {
            camera.name: publisher(messages.IMAGE_TOPIC.format(camera.name), Image)
            for camera in self._rig.observation_spec.cameras
            if not isinstance(self._rig.cameras, TopicCameras)
        }
        self._captured = dict.fromkeys(self._images, 0)  # stamps of the frames sent last
        self._tick = publisher("tick", JointState)
        self._truth = publisher("ground_truth", JointState)
        self._pose = publisher("ee_pose", PoseStamped)
        self._joints = publisher("joint_states", JointState)
        self._applied = publisher("applied_action", Joy)
        self._status = publisher("robot/status", DiagnosticStatus)
        self._transform = publisher("/tf_static", TFMessage)
        for topic, source in messages.SOURCES.items():
            rospy.Subscriber(topic, Joy, self._on_action, callback_args=source, tcp_nodelay=True)
        rospy.Service("stop", Trigger, self._on_stop)
        rospy.Service("rearm", Trigger, self._on_rearm)
        rospy.Service("reset", Trigger, self._on_reset)
        rospy.Service("scene_ready", Trigger, self._on_scene_ready)
        self._description = publish_description(self._rig)
        if self._rig.arm.base_pose is not None:
            self._transform.publish(messages.base_transform(self._rig.arm.base_pose))
        Diagnostics("ofrl/robot", self._describe)
        self._publish_status()

    # -- callbacks (rospy threads) -------------------------------------------------------

    def _on_action(self, message: Joy, source: str) -> None:
        with self._changed:
            self._loop.offer(messages.command_from(message, source))
            self._changed.notify_all()

    def _on_stop(self, _request) -> TriggerResponse:
        self._stop(OPERATOR)
        return TriggerResponse(True, "stopped; call rearm to allow motion again")

    def _on_rearm(self, _request) -> TriggerResponse:
        with self._changed:
            self._loop.rearm()
        self._publish_status()
        return TriggerResponse(True, "armed; call reset to start an episode")

    def _on_scene_ready(self, _request) -> TriggerResponse:
        with self._changed:
            if not self._request:
                return TriggerResponse(False, "no reset waits for the scene")
            self._scene_ready = True
            self._changed.notify_all()
        return TriggerResponse(True, "starting the episode")

    def _on_reset(self, _request) -> TriggerResponse:
        """Start an episode with the seed in parameter ``next_seed``; ends a running one.

        Answers when tick 0 is there. On a real arm that takes until a person called
        ``scene_ready``, so nothing here times out.
        """
        seed = rospy.get_param("next_seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            return TriggerResponse(False, f"next_seed is {seed!r}; use 0 or more")
        with self._changed:
            if self._loop.stopped:
                return TriggerResponse(False, f"stopped ({self._loop.stop_reason}); re-arm first")
            self._over = True
            return TriggerResponse(*self._resets.ask(seed))

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
            if not rospy.is_shutdown():  # else the publishers were closed meanwhile: no fault
                self._stop(ROBOT_FAULT)
                raise
        finally:
            # after a shutdown the publishers are gone; to hold still is what matters
            self._loop.stop(OPERATOR)
            self._rig.close()

    def _await_reset(self):
        """Carry out a reset when one is asked for; return tick 0, or None."""
        seed = self._resets.wait(0.1)
        if seed is None:
            return None
        tick, answer = None, (True, "")
        try:
            with self._changed:
                self._loop.begin()
            request = self._rig.arrange(seed)
            if not request or self._confirmed(request):
                tick = self._rig.begin()
            else:
                answer = (False, "given up before the scene was ready")
        except OfrlError as error:
            answer = (False, str(error))
        with self._changed:
            if self._loop.stopped:  # meanwhile
                tick, answer = None, (False, f"stopped ({self._loop.stop_reason})")
            self._info = messages.TickInfo(seed, self._info.episode + 1)
            self._over = tick is None
            self._resets.answer(*answer)
        return tick

    def _confirmed(self, request: str) -> bool:
        """Wait until a person says that the scene is ready; False when the reset is given up."""
        service = rospy.resolve_name("scene_ready")
        rospy.loginfo("%s; then call: rosservice call %s", request, service)
        with self._changed:
            self._request, self._scene_ready = request, False
            self._publish_status()
            while not (self._scene_ready or self._loop.stopped or rospy.is_shutdown()):
                if self._resets.superseded:
                    break
                self._changed.wait(0.1)
            self._request = ""
            self._publish_status()
            return self._scene_ready and not self._loop.stopped

    def _episode(self, tick: Tick) -> None:
        before = time.monotonic()
        self._pacer.start(before)
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
                now = time.monotonic()
                applied = self._loop.apply(tick, None if self._lockstep else now - before)
                before = now
            self._applied.publish(messages.applied_message(applied))
            if self._loop.stopped:
                self._stop(self._loop.stop_reason)
                return
            tick = self._rig.observe()

    def _await_action(self, stamp_ns: int) -> None:
        """Wait: in lockstep until the tick is answered or the timeout, else for the period."""
        if not self._lockstep:
            time.sleep(self._pacer.wait(time.monotonic()))
            self._pacer.tick(time.monotonic())
            return
        deadline = time.monotonic() + self._timeout
        with self._changed:
            while (
                not self._loop.answered(stamp_ns)
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
        """Publish everything observed at a tick, the tick itself last; only new frames."""
        for name, publisher in self._images.items():
            captured = tick.image_stamps_ns[name]
            if captured != self._captured[name]:
                publisher.publish(messages.image_message(tick.originals[name], captured, name))
                self._captured[name] = captured
        if tick.ground_truth:
            self._truth.publish(messages.ground_truth_message(tick))
        state, spec = self._rig.arm.state(), self._rig.observation_spec
        self._pose.publish(messages.pose_message(state, spec.state_frame))
        self._joints.publish(messages.named_values(state.joint_positions, state.stamp_ns))
        self._tick.publish(messages.tick_message(tick, spec, self._info))

    def _describe(self):
        stopped = self._loop.stopped
        level = DiagnosticStatus.ERROR if stopped else DiagnosticStatus.OK
        text = f"stopped: {self._loop.stop_reason}" if stopped else "armed"
        if self._request and not stopped:
            level, text = DiagnosticStatus.WARN, f"{WAITING}: {self._request}; call scene_ready"
        return level, text, dict(self._loop.diagnostics(), late_ticks=self._pacer.late)

    def _publish_status(self) -> None:
        level, text, values = self._describe()
        values["reason"] = self._loop.stop_reason
        self._status.publish(status_message("robot", level, text, values))


if __name__ == "__main__":
    run_node("robot", lambda: RobotNode().run())
