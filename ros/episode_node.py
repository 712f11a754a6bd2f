#!/usr/bin/env python3
"""Episode manager and recorder: reset, run, label, save; the same for collect and deploy.

Runs ``episodes`` episodes with the actor that is named, writes each to ``out`` and ends with a
count read back from disk. Services ``episode/success``, ``episode/failure`` and
``episode/discard`` end the running episode by hand.

Callbacks only queue messages; one thread records, so nothing is written out of turn.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from ofrl_ros import messages
from ofrl_ros.assembler import TickAssembler
from ofrl_ros.description import wait_for_description
from ofrl_ros.diagnostics import status_message, status_reason
from ofrl_ros.events import Events
from ofrl_ros.latched import reliable_publisher
from ofrl_ros.node import raise_on_shutdown, run_node, service, wait_connected
from ofrl_ros.params import int_param, path_param
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger, TriggerResponse

from ofrl_robot.control import episode
from ofrl_robot.control.loop import ACTOR_SILENT
from ofrl_robot.data.datasets import labels
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.data.episodes.recover import unfinished_line
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter, prepare_folder
from ofrl_robot.errors import ConfigError, OfrlError, RobotError
from ofrl_robot.evaluation.trials import report_trials
from ofrl_robot.files import write_whole
from ofrl_robot.recording.episode_recorder import EpisodeRecorder, Written

TRIES = 3  # attempts at an episode that lost a tick, before giving up
TICK_TIMEOUT = 15.0  # s without a tick after which one is taken for lost
DISCARD = "discard"  # in place of a label source: the operator discards the episode
End = Tuple[int, str, str]  # label, label source, abort reason


class LostTickError(RobotError):
    """A tick or an applied action did not arrive; the episode cannot be recorded."""


class EpisodeNode:
    """The session: runs and records its episodes.

    Args:
        held: keeps the folder locked for this node.
    """

    def __init__(self, held: contextlib.ExitStack) -> None:
        self._held = held
        self._count = int_param("episodes", 1, low=1)
        self._actor = str(rospy.get_param("~actor", "teleop"))
        self._first_seed = int_param("seed", 0, low=0)
        self._jpeg_quality = int_param("jpeg_quality", 0, low=0, high=100)
        self._robot = wait_for_description()
        self._policy: Dict[str, Any] = {}
        self._environment = dict(self._robot.environment)
        folder = path_param("out")
        self._first = 0
        if folder is not None:
            self._folder = folder
            self._first = self._prepare()
        self._state = episode.EpisodeState()
        self._seed = 0
        self._episode_number = 0  # of the newest reset whose ticks were received
        self._started = 0  # stamp of tick 0
        self._saved = self._successes = 0

        self._publisher = rospy.Publisher(
            "episode/state", DiagnosticStatus, queue_size=10, latch=True
        )
        self._saved_publisher = reliable_publisher("episode/saved", String)
        self._events = Events()
        self._assembler = TickAssembler(self._robot.observation_spec, self._events)
        subscribers = [
            *self._assembler.subscribe(),
            self._events.subscribe("applied_action", Joy, "applied"),
            self._events.subscribe("robot/status", DiagnosticStatus, "status"),
        ]
        for verb in ("success", "failure", DISCARD):
            rospy.Service("episode/" + verb, Trigger, lambda _, v=verb: self._on_verb(v))
        wait_connected(subscribers)
        self._wait_for_actor()
        if self._actor == "policy":
            # the server itself says who it is, so what is recorded is what really ran
            self._policy = json.loads(rospy.get_param("policy"))
        else:
            self._environment.update(json.loads(rospy.get_param("teleop/settings")))
        if folder is None:
            self._folder = self._trials_folder()
            self._prepare()

    def _prepare(self) -> int:
        """Lock and check the folder before anything moves; return its next episode's number."""
        self._held.enter_context(one_writer(self._folder))
        robot = self._robot
        number = prepare_folder(self._folder, robot.action_spec, robot.observation_spec)
        if unfinished_line(self._folder):
            rospy.logwarn(unfinished_line(self._folder))
        if self._actor == "policy" and schema.episode_paths(self._folder):
            raise ConfigError(
                "holds episodes already", "choose a new out:= folder for trials", self._folder
            )
        return number

    def _trials_folder(self) -> Path:
        """Return datasets/trials/<run>-<time>, for trials whose folder is not named."""
        run = Path(self._policy.get("checkpoint", "episodes")).resolve().parent.parent.name
        name = f"{run or 'episodes'}-{time.strftime('%Y%m%d-%H%M%S')}"
        return Path(rospy.get_param("~cwd", ".")) / "datasets" / "trials" / name

    def _wait_for_actor(self) -> None:
        ready = threading.Event()
        subscriber = rospy.Subscriber(self._actor + "/ready", Bool, lambda m: ready.set())
        deadline = time.monotonic() + 60.0
        while not ready.wait(0.05):
            raise_on_shutdown()
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"no message on {subscriber.resolved_name} within 60 s",
                    f"see why the {self._actor} node did not start",
                )
        subscriber.unregister()

    def _on_verb(self, verb: str) -> TriggerResponse:
        if self._state.name != episode.RUNNING:
            return TriggerResponse(False, "no episode is running")
        self._events.put("verb", verb)
        return TriggerResponse(True, verb)

    # -- the session -----------------------------------------------------------------------

    def run(self) -> None:
        """Run all episodes; print the count on disk at the end, also after Ctrl-C or an error."""
        try:
            self._all_episodes()
        except OfrlError:
            self._summary()
            raise
        except rospy.ROSInterruptException:
            pass  # Ctrl-C: the running episode is dropped, whole ones are kept
        self._summary()

    def _all_episodes(self) -> None:
        reset = service("reset")
        start = time.monotonic()
        for index in range(self._count):
            seed = self._first_seed + self._first + index
            tries = 0
            while not self._episode(reset, seed):
                tries += 1
                if tries == TRIES:
                    raise RobotError(
                        f"an episode lost ticks {TRIES} times",
                        "look for an overloaded machine",
                    )
            self._progress(index + 1, time.monotonic() - start)

    def _meta(self, seed: int) -> EpisodeMeta:
        robot = self._robot
        device = str(rospy.get_param("~device", ""))
        return EpisodeMeta(
            robot=robot.robot,
            task=robot.task,
            actor=device if self._actor == "teleop" else self._actor,
            action_spec=robot.action_spec,
            observation_spec=robot.observation_spec,
            control_rate_hz=robot.control_rate_hz,
            policy=self._policy,
            environment=self._environment,
            seed=seed,
            operator=str(rospy.get_param("~operator", "")),
        )

    def _episode(self, reset: Callable[[], str], seed: int) -> bool:
        """Run an episode until it is saved; False when a tick was lost and it must be repeated."""
        while True:
            self._seed = seed
            self._to(episode.RESETTING)
            writer = EpisodeWriter(self._folder, self._meta(seed), jpeg_quality=self._jpeg_quality)
            recorder = EpisodeRecorder(writer)
            saved = False
            try:
                rospy.set_param("next_seed", seed)
                reset()
                label, source, abort_reason = self._record(recorder)
                if source == DISCARD:
                    rospy.loginfo("episode discarded by the operator; running it again")
                    continue
                self._to(episode.SAVING)
                result = recorder.finish(label, source, abort_reason)
                if isinstance(result, Written):
                    saved = True
                    self._saved += 1
                    self._successes += result.success == schema.SUCCESS
                    self._publish_saved(result.path)
            except LostTickError as error:
                rospy.logwarn("episode dropped: %s", error)
                return False
            finally:
                if not saved:
                    recorder.discard()
                self._to(episode.IDLE)
            if abort_reason:
                outcome = "saved as aborted" if saved else "nothing to save"
                raise RobotError(
                    f"the episode ended early ({abort_reason}); {outcome}",
                    "look at the arm and its cameras, then launch again",
                )
            return saved

    def _record(self, recorder: EpisodeRecorder) -> End:
        """Record until the episode is over; return its label, who gave it, and an abort reason."""
        before = self._episode_number  # ticks of earlier resets may still be on their way
        while True:
            kind, payload = self._events.get(TICK_TIMEOUT)
            if kind is None and recorder.steps > 0 and self._assembler.awaited_cameras():
                return schema.UNKNOWN, labels.NOBODY, self._reason("")
            if kind is None or recorder.overdue:
                missing = recorder.missing() or f"no tick for {TICK_TIMEOUT:.0f} s"
                raise LostTickError(f"{missing} (step {recorder.steps})")
            if kind == "applied":
                recorder.take_applied(messages.applied_from(payload))
            elif kind == "status":
                reason = status_reason(payload)
                if reason:
                    return schema.UNKNOWN, labels.NOBODY, self._reason(reason)
            elif kind == "verb":
                if payload == DISCARD:
                    return schema.UNKNOWN, DISCARD, ""
                success = schema.SUCCESS if payload == "success" else schema.FAILURE
                return success, labels.OPERATOR, ""
            elif kind == "tick":
                tick, info = self._assembler.assemble(payload)
                if info.seed == self._seed and info.episode > before:
                    self._episode_number = info.episode
                    recorder.take_tick(tick)
            if recorder.last_tick is not None and self._state.name == episode.RESETTING:
                self._started = recorder.last_tick.stamp_ns
                self._to(episode.RUNNING)
            if recorder.complete:
                if not self._robot.rewards_known:
                    return schema.UNKNOWN, labels.NOBODY, ""
                return labels.simulator_label(recorder.last_tick), labels.SIMULATOR, ""

    def _reason(self, given: str) -> str:
        """Return why the robot stopped; if a camera did first, the actor only fell silent."""
        cameras = self._assembler.awaited_cameras()
        if cameras and given in ("", ACTOR_SILENT):
            return f"camera {cameras[0]} stopped"
        return given

    # -- what it publishes and prints ---------------------------------------------------------

    def _to(self, state: str) -> None:
        self._state.to(state)
        values = {"saved": self._saved, "asked": self._count, "seed": self._seed}
        with contextlib.suppress(rospy.ROSException):  # closed at shutdown
            self._publisher.publish(status_message("episode", 0, state, values))

    def _publish_saved(self, path: Path) -> None:
        """Say for bags what became of the ticks that were published."""
        with contextlib.suppress(rospy.ROSException):  # closed at shutdown
            message = messages.saved_message(*read_meta(path), self._started)
            self._saved_publisher.publish(message)

    def _progress(self, done: int, seconds: float) -> None:
        """Print a line now and then: episodes saved, not attempts."""
        if done % max(1, self._count // 10) == 0 or done == self._count:
            left = seconds / done * (self._count - done)
            print(
                f"episodes {done}/{self._count} saved, {self._successes} successes, "
                f"eta {left:.0f} s",
                flush=True,
            )

    def _summary(self) -> None:
        if not schema.episode_paths(self._folder):
            print(f"{self._folder}: no episode was saved", flush=True)
            return
        report = report_trials(self._folder)
        print(f"{self._folder}: {report.line()}", flush=True)
        if self._actor == "policy":
            write_whole(self._folder / "trials.json", report.to_json())


if __name__ == "__main__":

    def main() -> None:
        """Run the session."""
        with contextlib.ExitStack() as held:
            EpisodeNode(held).run()

    run_node("episode", main)
