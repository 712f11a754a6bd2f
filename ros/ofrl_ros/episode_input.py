"""Everything that the recorder hears, in one queue; and the recording of one episode from it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, Empty, String

from ofrl_robot.control.signals import AppliedAction
from ofrl_robot.control.stops import StopReason
from ofrl_robot.control.watchdog import Heartbeat
from ofrl_robot.data.episodes import schema
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.recording.episode_recorder import EpisodeRecorder
from ofrl_ros import messages
from ofrl_ros.assembler import TickAssembler
from ofrl_ros.description import RobotDescription
from ofrl_ros.diagnostics import status_paused, status_reason
from ofrl_ros.events import Events
from ofrl_ros.node import raise_on_shutdown, wait_connected
from ofrl_ros.session_watch import watch_session
from ofrl_ros.speakers import Speaker
from ofrl_ros.watchdogs import RECORDER_HEARTBEAT, ROBOT_HEARTBEAT

TICK_TIMEOUT = 15.0  # s without a tick after which one is taken for lost
ROBOT_TIMEOUT = 2.0  # s without a sign of the robot node after which it is taken for dead
ACTOR_TIMEOUT = 60.0  # s for an actor to start: importing torch takes seconds
BEAT = 0.1  # s between two heartbeats of the recorder
STATUS_TIMEOUT = 1.0  # s for a status that must come: a stop's, after its reset was refused
LABEL, DISCARD = "label", "discard"  # what an operator says of the running episode
SESSION_ENDED = "session_ended"  # Ctrl-C, or roslaunch ended everything


class LostTickError(RobotError):
    """A tick or an applied action did not arrive; the episode cannot be recorded."""


class SessionLostError(RobotError):
    """A node without which the session cannot go on is gone; ``what`` names it."""


class End(NamedTuple):
    """How an episode ended.

    Attributes:
        label: schema.SUCCESS, FAILURE or UNKNOWN.
        source: who gave it.
        aborted: why the episode ended early; empty when it did not.
        discarded: the operator does not want it.
        session_over: whether the session cannot go on.
    """

    label: int
    source: str
    aborted: str = ""
    discarded: bool = False
    session_over: bool = False


def _aborted(reason: str, session_over: bool = False) -> End:
    return End(schema.UNKNOWN, schema.NO_LABEL_SOURCE, reason, session_over=session_over)


def _applied_from(message: Joy) -> AppliedAction:
    try:
        return messages.applied_from(message)
    except (ValueError, IndexError) as error:
        raise RobotError(
            f"the robot node sent no usable applied action ({error})",
            "run all nodes in the same version",
        ) from error


class EpisodeInput:
    """What the recorder hears. One thread, the recorder's, calls :meth:`record` and :meth:`wait`.

    While it does, the robot node hears a heartbeat: it must not move the arm unrecorded.

    Args:
        robot: whose ticks.
        actor: "teleop" or "policy".
        on_first_tick: called when tick 0 of an episode is there.
    """

    def __init__(
        self, robot: RobotDescription, actor: str, on_first_tick: Callable[[], None]
    ) -> None:
        self._robot, self._actor, self._on_first_tick = robot, actor, on_first_tick
        self.events = Events()
        self.events.poll_with(self._beat)
        self.assembler = TickAssembler(robot.observation_spec, self.events)
        self.stopped_by = ""  # reason of the newest stop that nobody has dealt with
        self.armed = True
        self._paused = False
        self._attempt = 0  # counts episodes, also those that are discarded
        self._episode_number = 0  # of the newest reset whose ticks were received
        self._seed = 0
        self._nodes: Dict[str, Speaker] = {}
        self._gone_before = ""  # which node was gone when this one was interrupted
        self._robot_alive = Heartbeat(StopReason.ROBOT_FAULT, "robot node", ROBOT_TIMEOUT)
        self._beaten = 0.0

    def connect(self) -> None:
        """Subscribe to everything and wait until all nodes are there.

        Raises:
            ConfigError: one does not start.
        """
        node = self._robot.node
        speakers = self.assembler.subscribe(node, self._robot.camera_nodes)
        self._heartbeat = rospy.Publisher(RECORDER_HEARTBEAT, Empty, queue_size=1, tcp_nodelay=True)
        wait_connected(
            [
                *speakers.values(),
                self.events.subscribe("applied_action", Joy, "applied", node),
                self.events.subscribe("robot/status", DiagnosticStatus, "status", node),
                Speaker(ROBOT_HEARTBEAT, Empty, self._hear_robot, node),
            ]
        )
        if self._actor == "policy":
            self.events.subscribe(messages.PICTURES_TOPIC, String, "pictures", node="")
        self._nodes = {"robot node": speakers["tick"]}
        for camera in self._robot.camera_nodes:
            self._nodes[f"camera node of {camera}"] = speakers[camera]
        self._nodes[f"{self._actor} node"] = self._wait_for_actor()
        self._handler = signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._watch_nodes, name="nodes", daemon=True).start()

    def say(self, verb: str, label: int = schema.UNKNOWN) -> None:
        """Queue what an operator says of the running episode; any thread may call.

        Args:
            verb: LABEL or DISCARD. It does not count for the episode after: a second call that
                comes while the first is worked on would label an episode that nobody has seen.
            label: schema.SUCCESS or FAILURE.
        """
        self.events.put(verb, (self._attempt, label))

    def record(self, recorder: EpisodeRecorder, seed: int) -> End:
        """Record until the episode is over; say how it ended.

        Raises:
            LostTickError: a message was lost.
            RobotError: the robot node says something that is no applied action.
            ROSInterruptException: the session ends.
        """
        self._seed = seed
        self._attempt += 1
        before = self._episode_number  # ticks of earlier resets may still be on their way
        while not self.stopped_by:
            kind, payload = self.events.get(TICK_TIMEOUT)
            if kind is None and self._paused:
                continue
            if kind is None and recorder.steps > 0 and self.assembler.awaited_cameras():
                return _aborted(self._reason(""))
            if kind is None or recorder.overdue:
                missing = recorder.missing() or f"no tick for {TICK_TIMEOUT:.0f} s"
                raise LostTickError(f"{missing} (step {recorder.steps})")
            if kind == "status":
                self._hear_status(payload)
            elif kind == "lost":
                return _aborted(str(payload), session_over=True)
            elif kind == "applied":
                recorder.take_applied(_applied_from(payload))
            elif kind == "pictures":
                self._note_pictures(recorder, payload)
            elif kind == DISCARD and payload[0] == self._attempt:
                return End(schema.UNKNOWN, schema.NO_LABEL_SOURCE, discarded=True)
            elif kind == LABEL and payload[0] == self._attempt:
                return End(payload[1], schema.LABEL_FROM_OPERATOR)
            elif kind == "tick":
                self._take_tick(recorder, payload, before)
            if recorder.complete:
                if not self._robot.rewards_known:
                    return End(schema.UNKNOWN, schema.NO_LABEL_SOURCE)
                label = schema.simulator_label(recorder.last_tick)
                return End(label, schema.LABEL_FROM_SIMULATOR)
        return _aborted(self._reason(self.stopped_by))

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait, hearing what comes, until ``ready``.

        Raises:
            SessionLostError: a node is gone.
            ROSInterruptException: the session ends.
        """
        while not ready():
            kind, payload = self.events.get(BEAT)
            if kind == "status":
                self._hear_status(payload)
            elif kind == "lost":
                raise SessionLostError(str(payload), "see why it ended, and launch again")

    def settle(self, seconds: float = 0.0) -> str:
        """Hear what has come so far, or comes within ``seconds``; return why the robot stopped.

        Returns:
            The reason of a stop that nobody has dealt with; empty when there is none.

        Raises:
            SessionLostError: a node is gone.
            ROSInterruptException: the session ends.
        """
        deadline = time.monotonic() + seconds
        while True:
            kind, payload = self.events.get(0.0)
            if kind == "status":
                self._hear_status(payload)
            elif kind == "lost":
                raise SessionLostError(str(payload), "see why it ended, and launch again")
            elif kind is None and (self.stopped_by or time.monotonic() >= deadline):
                return self.stopped_by

    def wait_armed(self, seconds: float) -> bool:
        """Wait until the robot says that it is armed; any thread but the recorder's may call."""
        deadline = time.monotonic() + seconds
        pause = threading.Event().wait
        while not self.armed and time.monotonic() < deadline and not rospy.is_shutdown():
            pause(0.02)
        return self.armed

    def lost(self) -> str:
        """Return what the session has lost, as far as was heard; empty when all is there."""
        heard = next((str(what) for kind, what in self.events.drain() if kind == "lost"), "")
        return watch_session().find_loss() or heard or self._gone_before

    def _take_tick(self, recorder: EpisodeRecorder, payload: Dict, before: int) -> None:
        tick, info = self.assembler.assemble(payload)
        if info.seed != self._seed or info.episode <= before:
            return
        first = recorder.last_tick is None
        self._episode_number = info.episode
        recorder.take_tick(tick)
        if first and recorder.last_tick is not None:
            self._on_first_tick()

    def _note_pictures(self, recorder: EpisodeRecorder, message: String) -> None:
        try:
            seed, remarks = messages.pictures_from(message)
        except ValueError as error:
            rospy.logwarn_throttle(5.0, "unusable message of pictures ignored (%s)", error)
            return
        if seed == self._seed:
            recorder.note_pictures(remarks)

    def _hear_status(self, message: DiagnosticStatus) -> None:
        """Note a stop; it stays noted when a re-arm follows at once."""
        reason = status_reason(message)
        self.armed, self._paused = not reason, status_paused(message)
        self.stopped_by = self.stopped_by or reason

    def _reason(self, given: str) -> str:
        """Return why the robot stopped; if a camera did first, the actor only fell silent."""
        cameras = self.assembler.awaited_cameras()
        if cameras and given in ("", StopReason.ACTOR_SILENT):
            return f"{StopReason.CAMERA}: {cameras[0]} stopped"
        return given

    def _wait_for_actor(self) -> Speaker:
        ready = threading.Event()
        speaker = Speaker(self._actor + "/ready", Bool, lambda m: ready.set())
        deadline = time.monotonic() + ACTOR_TIMEOUT
        while not ready.wait(0.05):
            raise_on_shutdown()
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"no message on {speaker.resolved_name} within {ACTOR_TIMEOUT:.0f} s",
                    f"see why the {self._actor} node did not start",
                )
        return speaker

    def _hear_robot(self, _message: Empty) -> None:
        self._robot_alive.hear(time.monotonic())

    def _beat(self) -> None:
        """Tell the robot node that the thread that records is alive."""
        now = time.monotonic()
        if now - self._beaten >= BEAT:
            self._beaten = now
            with contextlib.suppress(rospy.ROSException):  # closed at shutdown
                self._heartbeat.publish()

    def _watch_nodes(self) -> None:
        """Queue ("lost", what) once, when a node disconnects or the robot node falls silent."""
        wait = threading.Event().wait
        while not rospy.is_shutdown():
            gone = self._gone()
            # asked after: a shutdown of this node closes its own connections, one by one
            if gone is not None and not rospy.core.is_shutdown_requested():
                self.events.put("lost", watch_session().find_loss() or gone)
                return
            wait(0.05)

    def _on_interrupt(self, number: int, frame: Any) -> None:
        """Look who is gone before rospy closes all connections.

        roslaunch ends the session up to 0.1 s after a node has died; the reason is that node. Only
        a field is set: the main thread may hold the lock of the queue.
        """
        self._gone_before = self._gone() or ""
        if callable(self._handler):
            self._handler(number, frame)

    def _gone(self) -> Optional[str]:
        for name, speaker in self._nodes.items():
            if speaker.gone():
                return f"the {name} ended"
        fault = self._robot_alive.fault(time.monotonic())
        return None if fault is None else fault.text
