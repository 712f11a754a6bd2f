#!/usr/bin/env python3
"""Robot node: the only node that commands an arm, and the clock of the control loop.

Each tick it publishes the observation, takes the newest action that answers it, limits it,
applies it and publishes what was applied. In lockstep (simulation) the tick waits for its action.
In real time ticks come at the control rate, and an action leaves for the arm a constant time
after its tick (``action_latency``): a later answer leaves at once, none means hold.

Whatever goes wrong stops the arm, with one reason on ``robot/status``, until ``rearm``; the node
lives on. After a stop only ``reset`` moves the arm.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import collections
import threading
import time
from typing import Deque

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from ofrl_ros import messages
from ofrl_ros.diagnostics import Diagnostics, status_message
from ofrl_ros.node import run_node, trigger_service
from ofrl_ros.params import optional_seconds_param, seconds_param, sources_param
from ofrl_ros.reset_requests import ResetRequests
from ofrl_ros.rig_params import lockstep_param, rig_from_params
from ofrl_ros.rig_topics import RigTopics
from ofrl_ros.session_watch import watch_session
from ofrl_ros.speakers import Speaker, refused_nodes
from ofrl_ros.watchdogs import Watchdogs
from sensor_msgs.msg import Joy
from std_srvs.srv import TriggerResponse

from ofrl_robot.control.loop import ControlLoop
from ofrl_robot.control.pacing import Pacer
from ofrl_robot.control.stops import StopReason
from ofrl_robot.errors import CameraStoppedError, OfrlError
from ofrl_robot.robots.rehearsed import complaint

WAITING, PAUSED = "waiting", "paused"  # states on robot/status beside armed and stopped
LATE_TOLERANCE = 0.005  # s after the action latency before an action counts as late
SIMULATED = ("sim", "rehearsal")  # arms that need no rehearsal
ANSWERS = 100_000  # whose times of arrival are kept for the summary
BUSY_TIMEOUT = 5.0  # s that rearm waits for a call of the driver to return


class RobotNode:
    """One rig and its control loop. The main thread runs episodes; callbacks only hand over."""

    def __init__(self) -> None:
        self._lockstep = lockstep_param()
        self._timeout = seconds_param("action_timeout", 2.0)
        self._rig = rig_from_params()
        arm = self._rig.arm
        silence = optional_seconds_param("max_silence")
        sources, awaited = sources_param()
        self._loop = ControlLoop(arm, silence, sources, awaited)
        self._latency = None if self._lockstep else arm.timing.action_latency
        self._pacer = Pacer(1.0 / self._rig.control_rate_hz)
        # guards the fields below and the loop's commands; notified when any of it changes. Nobody
        # holds it while the driver is called, so that a stop never waits for the driver.
        self._changed = threading.Condition(threading.RLock())
        self._telling = threading.RLock()
        self._arm_in_use = threading.Lock()  # held during a reset, an episode and a re-arm
        self._resets = ResetRequests(self._changed)
        self._over = True  # no episode runs: only a reset changes that
        self._paused = False
        self._scene_ready = False
        self._request = ""  # what a person is asked to do before the episode starts
        self._info = messages.TickInfo(seed=0, episode=0)
        self._answers: Deque[float] = collections.deque(maxlen=ANSWERS)  # ms after their ticks

        self._topics = RigTopics(self._rig, self._latency or 0.0)
        self._speakers = {
            topic: Speaker(topic, Joy, lambda m, s=source: self._on_action(m, s))
            for topic, source in messages.ACTION_TOPICS.items()
        }
        self._watchdogs = Watchdogs(arm, self._stop, real_time=not self._lockstep)
        trigger_service("stop", self._on_stop)
        trigger_service("rearm", self._on_rearm)
        trigger_service("reset", self._on_reset)
        trigger_service("end_episode", self._on_end_episode)
        trigger_service("scene_ready", self._on_scene_ready)
        trigger_service("pause", lambda: self._on_pause(True))
        trigger_service("resume", lambda: self._on_pause(False))
        rospy.on_shutdown(self._end)
        watch_session().on_lost(lambda lost: self._stop(StopReason.MASTER_LOST, lost))
        if arm.name not in SIMULATED and complaint(arm.name):
            rospy.logwarn("%s; run `ofrl rehearse --robot %s`", complaint(arm.name), arm.name)
        Diagnostics("ofrl/robot", self._report)
        self._publish_status()

    # -- callbacks (rospy threads) -------------------------------------------------------

    def _on_action(self, message: Joy, source: str) -> None:
        arrived = time.time_ns()
        with self._changed:
            if not self._lockstep:
                self._answers.append((arrived - message.header.stamp.to_nsec()) * 1e-6)
            self._loop.offer(messages.command_from(message, source))
            self._changed.notify_all()

    def _on_stop(self) -> TriggerResponse:
        self._stop(StopReason.OPERATOR)
        return TriggerResponse(True, "stopped; call rearm to allow motion again")

    def _on_rearm(self) -> TriggerResponse:
        """Make the arm ready again, when the episode that was stopped has ended."""
        if not self._arm_in_use.acquire(timeout=BUSY_TIMEOUT):
            return TriggerResponse(False, "the driver is busy: no call of it has returned")
        try:
            with self._changed:
                self._paused = False
            self._loop.rearm()
        except OfrlError as error:
            return TriggerResponse(False, str(error))
        finally:
            self._arm_in_use.release()
        self._watchdogs.clear()
        self._publish_status()
        if self._loop.stopped:
            return TriggerResponse(False, f"stopped meanwhile ({self._loop.fault})")
        return TriggerResponse(True, "armed; call reset to start an episode")

    def _on_scene_ready(self) -> TriggerResponse:
        with self._changed:
            if not self._request:
                return TriggerResponse(False, "no reset waits for the scene")
            self._scene_ready = True
            self._changed.notify_all()
        return TriggerResponse(True, "starting the episode")

    def _on_pause(self, paused: bool) -> TriggerResponse:
        """Let the running episode wait, the arm holding still, or go on."""
        with self._changed:
            if self._over or self._loop.stopped:
                return TriggerResponse(False, "no episode is running")
            if self._paused == paused:
                return TriggerResponse(False, "it is paused already" if paused else "not paused")
            self._paused = paused
            self._changed.notify_all()
        self._publish_status()
        return TriggerResponse(True, "call resume to go on" if paused else "going on")

    def _on_reset(self) -> TriggerResponse:
        """Start an episode with the seed in parameter ``next_seed``; ends a running one.

        Answers when tick 0 is there. On a real arm that takes until a person called
        ``scene_ready``, so nothing here times out.
        """
        seed = rospy.get_param("next_seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            return TriggerResponse(False, f"next_seed is {seed!r}; use 0 or more")
        with self._changed:
            if self._loop.stopped:
                return TriggerResponse(False, f"stopped ({self._loop.fault}); re-arm first")
            self._over = True
            self._changed.notify_all()
            return TriggerResponse(*self._resets.ask(seed))

    def _on_end_episode(self) -> TriggerResponse:
        """End the running episode: no further action is taken until the next reset.

        The recorder calls it when an operator labels or discards an episode. Without it the actor
        would go on moving the arm, unrecorded, until the file is saved.
        """
        with self._changed:
            if self._over:
                return TriggerResponse(False, "no episode is running")
            self._over, self._paused = True, False
            self._changed.notify_all()
        self._publish_status()
        return TriggerResponse(True, "ended")

    # -- main thread ---------------------------------------------------------------------

    def run(self) -> None:
        """Run episodes as they are asked for, until shutdown."""
        try:
            while not rospy.is_shutdown():
                seed = self._resets.wait(0.1)
                if seed is not None:
                    with self._arm_in_use:
                        self._reset_and_run(seed)
                    self._publish_status()
        finally:
            # after a shutdown the publishers are gone; to hold still is what matters
            self._loop.stop(StopReason.SHUTDOWN)
            self._rig.close()
            if self._answers:
                p50, p95, p99 = np.percentile(self._answers, (50, 95, 99))
                text = f"{len(self._answers)} answers ms: {p50:.1f} {p95:.1f} {p99:.1f}"
                print(f"robot: {text}", flush=True)

    def _reset_and_run(self, seed: int) -> None:
        """Carry out a reset and the episode after it; whatever the driver raises stops the arm."""
        try:
            tick = self._reset(seed)
            if tick is not None:
                self._watchdogs.begin()
                self._episode(tick)
        except CameraStoppedError as error:
            self._stop(StopReason.CAMERA, error.what)
        except (Exception, SystemExit) as error:  # SystemExit: how Interbotix's client gives up
            if rospy.is_shutdown():
                return  # the publishers were closed meanwhile: no fault
            rospy.logerr("the driver failed: %s: %s", type(error).__name__, error)
            self._stop(StopReason.ROBOT_FAULT, f"{type(error).__name__}: {error}")
        finally:
            self._watchdogs.end()
            self._resets.answer(False, f"stopped ({self._loop.fault})")

    def _reset(self, seed: int):
        """Arrange the scene; answer the request; return tick 0, or None."""
        tick, answer = None, (True, "")
        try:
            with self._changed:
                self._loop.begin()
                self._paused = False
            request = self._rig.arrange(seed)
            if not request or self._confirmed(request):
                self._observed = time.monotonic()
                tick = self._rig.begin()
            else:
                answer = (False, "given up before the scene was ready")
        except CameraStoppedError:
            raise
        except OfrlError as error:
            answer = (False, str(error))
        with self._changed:
            if self._loop.stopped:  # meanwhile
                tick, answer = None, (False, f"stopped ({self._loop.fault})")
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

    def _episode(self, tick) -> None:
        """Run an episode from tick 0 to its end, or to a stop."""
        before = self._observed
        self._pacer.start(self._observed)
        while True:
            self._topics.publish(tick, self._info)
            if tick.last:
                with self._changed:
                    self._over = True
                return
            choice = self._await_action(tick.stamp_ns)
            if self._ended():
                return
            now = time.monotonic()
            latency = None if self._latency is None else self._latency + LATE_TOLERANCE
            with self._watchdogs.driver_call:
                applied = self._loop.apply(
                    tick, None if self._lockstep else now - before, choice, latency
                )
            before = now
            self._topics.publish_applied(applied)
            if self._loop.stopped:
                self._stopped()
                return
            self._pacer.extend(now + self._loop.duration)
            if not self._await_next_tick():
                return
            self._observed = time.monotonic()
            with self._watchdogs.driver_call:
                tick = self._rig.observe()

    def _await_action(self, stamp_ns: int):
        """Wait for the answer to a tick; return who commands it.

        In lockstep until everybody has answered, or the timeout. In real time until the action
        latency has passed and an answer is there, or until the next tick is due.
        """
        if self._lockstep:
            earliest, latest = 0.0, time.monotonic() + self._timeout
        else:
            earliest, latest = self._observed + self._latency, self._pacer.due
        with self._changed:
            while not (self._ended() or rospy.is_shutdown()):
                now = time.monotonic()
                ready = self._loop.answered(stamp_ns, all_of_them=self._lockstep)
                if now >= latest or (ready and now >= earliest):
                    break
                until = earliest if ready else latest
                self._changed.wait(min(max(until - now, 0.0), 0.1))  # 0.1: notices a shutdown
            return self._loop.take(stamp_ns)

    def _await_next_tick(self) -> bool:
        """Wait until the next tick is due, and while paused; return whether the episode goes on."""
        with self._changed:
            while not self._ended():
                if self._paused:
                    self._changed.wait(0.1)
                    if not self._paused and not self._loop.stopped:
                        self._loop.resume()
                        self._pacer.start(time.monotonic())
                    continue
                left = 0.0 if self._lockstep else self._pacer.wait(time.monotonic())
                if left <= 0.0:
                    break
                self._changed.wait(min(left, 0.1))
            if not self._lockstep:
                self._pacer.tick(time.monotonic())
            return not self._ended()

    def _end(self) -> None:
        """Put the arm to rest while messages still get out: once ROS is shut down they do not.

        In a thread or a signal handler of rospy, before the shutdown. An arm that is stopped is
        only let go.
        """
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._watchdogs.end()
        self._rig.close()

    def _ended(self) -> bool:
        return self._over or self._loop.stopped or rospy.is_shutdown()

    def _stop(self, reason: StopReason, text: str = "") -> None:
        """Stop the arm; any thread, at once, also while the driver is inside a call."""
        self._loop.stop(reason, text)
        self._stopped()

    def _stopped(self) -> None:
        """Tell everybody that the arm is stopped."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if not rospy.is_shutdown():
            rospy.logwarn("robot stopped: %s", self._loop.fault)
        self._publish_status()

    def _describe(self):
        fault = self._loop.fault
        level = DiagnosticStatus.ERROR if fault else DiagnosticStatus.OK
        text = f"stopped: {fault}" if fault else "armed"
        if not fault and self._request:
            level, text = DiagnosticStatus.WARN, f"{WAITING}: {self._request}; call scene_ready"
        elif not fault and self._paused:
            level, text = DiagnosticStatus.WARN, f"{PAUSED}; call resume"
        values = dict(self._loop.diagnostics(), overruns=self._pacer.late)
        values.update(self._watchdogs.values())
        if self._answers:
            p50, p99 = np.percentile(list(self._answers)[-1000:], (50, 99))
            values.update(answer_p50_ms=f"{p50:.1f}", answer_p99_ms=f"{p99:.1f}")
        return level, text, {**values, **refused_nodes(self._speakers)}

    def _report(self):
        """Say the status once a second too: a message can be lost, a stop must not be."""
        self._publish_status()
        return self._describe()

    def _publish_status(self) -> None:
        with self._telling:  # so that an older status never follows a newer one
            level, text, values = self._describe()
            values["reason"] = self._loop.stop_reason
            values["paused"] = int(self._paused)
            self._topics.publish_status(status_message("robot", level, text, values))


if __name__ == "__main__":
    run_node("robot", lambda: RobotNode().run())
