#!/usr/bin/env python3
"""Episode manager and recorder: reset, run, label, save; the same for collect and deploy.

Runs ``episodes`` episodes with the actor that is named, writes each to ``out`` and ends with a
count read back from disk. Services ``episode/success``, ``episode/failure`` and
``episode/discard`` end the running episode by hand.

A stop ends the episode, not the session: it is saved as aborted, with the reason. After ``rearm``
somebody says ``episode/again`` (the same seed) or ``episode/next``, and the session goes on.

Callbacks only queue messages; one thread records, so nothing is written out of turn.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Callable, Dict

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from ofrl_ros import messages
from ofrl_ros.description import wait_for_description
from ofrl_ros.diagnostics import status_message
from ofrl_ros.episode_input import (
    DISCARD,
    LABEL,
    SESSION_ENDED,
    STATUS_TIMEOUT,
    End,
    EpisodeInput,
    LostTickError,
    SessionLostError,
)
from ofrl_ros.latched import reliable_publisher
from ofrl_ros.node import run_node, service, set_param, trigger_service
from ofrl_ros.params import bool_param, choice_param, int_param, path_param
from std_msgs.msg import String
from std_srvs.srv import TriggerResponse

from ofrl_robot.control import episode
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.data.episodes.recover import unfinished_line
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter, prepare_folder
from ofrl_robot.errors import ConfigError, OfrlError, RobotError
from ofrl_robot.evaluation.trials import report_groups, report_trials
from ofrl_robot.files import write_whole
from ofrl_robot.recording.episode_recorder import EpisodeRecorder, Written
from ofrl_robot.sessions import session_log

TRIES = 3  # attempts at an episode that lost a tick, before giving up
AGAIN, NEXT = "again", "next"  # what to do after a stop
WAIT, END = "wait", "end"  # values of ~after_stop
_LABELS = {"success": schema.SUCCESS, "failure": schema.FAILURE}


class EpisodeNode:
    """The session: runs and records its episodes.

    Args:
        held: keeps the folder locked for this node.
    """

    def __init__(self, held: contextlib.ExitStack) -> None:
        self._held = held
        self._count = int_param("episodes", 1, low=1)
        self._actor = choice_param("actor", ("teleop", "policy"))
        self._after_stop = choice_param("after_stop", (WAIT, END))
        self._first_seed = int_param("seed", 0, low=0)
        self._jpeg_quality = int_param("jpeg_quality", 0, low=0, high=100)
        # read once: to ask the master in the middle of a session is one more way to fail
        self._device = str(rospy.get_param("~device", ""))
        self._operator = str(rospy.get_param("~operator", ""))
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
        self._started = 0  # stamp of tick 0
        self._saved = self._aborted = self._successes = 0
        self._wish = ""  # AGAIN or NEXT, after a stop

        self._publisher = rospy.Publisher(
            "episode/state", DiagnosticStatus, queue_size=10, latch=True
        )
        self._saved_publisher = reliable_publisher("episode/saved", String)
        self._end_on_robot = service("end_episode")
        self._input = EpisodeInput(self._robot, self._actor, lambda: self._to(episode.RUNNING))
        for verb in (*_LABELS, DISCARD):
            trigger_service("episode/" + verb, lambda v=verb: self._on_verb(v))
        for wish in (AGAIN, NEXT):
            trigger_service("episode/" + wish, lambda w=wish: self._on_wish(w))
        self._input.connect()
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
        number = prepare_folder(self._folder, self._meta(0), bool_param("mixed_tasks", False))
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

    def _on_verb(self, verb: str) -> TriggerResponse:
        if self._state.name != episode.RUNNING:
            return TriggerResponse(False, "no episode is running")
        if verb == DISCARD:
            self._input.say(DISCARD)
        else:
            self._input.say(LABEL, _LABELS[verb])
        return TriggerResponse(True, verb)

    def _on_wish(self, wish: str) -> TriggerResponse:
        if self._state.name != episode.STOPPED:
            return TriggerResponse(False, "the session is not stopped")
        if not self._input.wait_armed(STATUS_TIMEOUT):
            return TriggerResponse(False, "the robot is stopped; call rearm first")
        self._input.stopped_by = ""  # dealt with; one that comes from now on is another one
        self._wish = wish
        return TriggerResponse(True, wish)

    # -- the session -----------------------------------------------------------------------

    def run(self) -> None:
        """Run all episodes; print the count on disk at the end, also after Ctrl-C or an error."""
        session_log.note(asked=self._count)
        try:
            self._all_episodes()
        except rospy.ROSInterruptException:
            pass  # Ctrl-C: the running episode was saved as aborted
        except OfrlError:
            with contextlib.suppress(OfrlError):  # the disk may refuse; the first error matters
                self._summary()
            session_log.note(ended=True)
            raise
        self._summary()
        session_log.note(ended=True)

    def _all_episodes(self) -> None:
        reset = service("reset")
        start = time.monotonic()
        for index in range(self._count):
            tries = 0
            seed = self._first_seed + self._first + index
            while True:
                try:
                    end = self._episode(reset, seed)
                except LostTickError as error:
                    rospy.logwarn("episode dropped: %s", error)
                    tries += 1
                    if tries == TRIES:
                        raise RobotError(
                            f"an episode lost ticks {TRIES} times",
                            "look for an overloaded machine",
                        ) from error
                    continue
                if end.discarded:
                    rospy.loginfo("episode discarded by the operator; running it again")
                elif not end.aborted or self._go_on(end) == NEXT:
                    break
            self._progress(index + 1, time.monotonic() - start)

    def _go_on(self, end: End) -> str:
        """After an aborted episode, wait for the operator; return AGAIN or NEXT."""
        text = f"the episode ended early ({end.aborted})"
        if end.session_over:
            raise SessionLostError(text, "see why it ended, and launch again")
        if self._after_stop == END:
            raise RobotError(text, "look at the arm and its cameras, then launch again")
        rospy.logwarn("%s; the session waits", text)
        call = f"  rosservice call {rospy.get_namespace()}"
        print(
            f"Look at the arm, then:\n{call}rearm\n"
            f"{call}episode/again   (the same seed), or\n{call}episode/next",
            flush=True,
        )
        self._wish = ""
        self._to(episode.STOPPED)
        self._input.wait(lambda: bool(self._wish))
        self._to(episode.IDLE)
        return self._wish

    def _meta(self, seed: int) -> EpisodeMeta:
        robot = self._robot
        return EpisodeMeta(
            robot=robot.robot,
            task=robot.task,
            actor=self._device if self._actor == "teleop" else self._actor,
            action_spec=robot.action_spec,
            observation_spec=robot.observation_spec,
            control_rate_hz=robot.control_rate_hz,
            action_latency=robot.action_latency,
            policy=self._policy,
            environment=self._environment,
            seed=seed,
            operator=self._operator,
        )

    def _episode(self, reset: Callable[[], str], seed: int) -> End:
        """Run one episode and save it, unless it is discarded; say how it ended.

        Raises:
            LostTickError: a tick was lost, and nothing is saved.
        """
        self._seed = seed
        self._to(episode.RESETTING)
        writer = EpisodeWriter(self._folder, self._meta(seed), jpeg_quality=self._jpeg_quality)
        recorder = EpisodeRecorder(writer)
        try:
            try:
                end = self._run(recorder, reset, seed)
            except rospy.ROSInterruptException:
                # the session ends, by Ctrl-C or because a node died: what was recorded is kept
                self._save(recorder, self._early(self._why_interrupted()))
                raise
            if not end.discarded:
                self._save(recorder, end)
            return end
        finally:
            recorder.discard()
            self._to(episode.IDLE)

    def _run(self, recorder: EpisodeRecorder, reset: Callable[[], str], seed: int) -> End:
        """Reset and record; a stop that came in between two episodes counts too."""
        if self._input.settle():
            return self._early(self._input.stopped_by)  # and the arm does not even go home
        set_param("next_seed", seed)
        try:
            reset()
        except RobotError:
            if not self._input.settle(STATUS_TIMEOUT):
                raise
            return self._early(self._input.stopped_by)
        try:
            end = self._input.record(recorder, seed)
        except LostTickError:
            self._end_episode()
            raise
        if not (recorder.complete or end.aborted):
            self._end_episode()
        return end

    def _why_interrupted(self) -> str:
        lost = self._input.lost()
        if lost:
            session_log.note(error=f"episode: {lost}")
        return lost or SESSION_ENDED

    def _end_episode(self) -> None:
        """End the robot's episode, so that nobody moves the arm while nothing is recorded."""
        with contextlib.suppress(RobotError):  # it has just ended by itself, or by a stop
            self._end_on_robot()

    @staticmethod
    def _early(reason: str) -> End:
        return End(schema.UNKNOWN, schema.NO_LABEL_SOURCE, reason)

    def _save(self, recorder: EpisodeRecorder, end: End) -> None:
        self._to(episode.SAVING)
        if recorder.last_tick is not None:
            self._started = recorder.first_stamp_ns
        result = recorder.finish(end.label, end.source, end.aborted)
        if isinstance(result, Written):
            self._saved += not end.aborted
            self._aborted += bool(end.aborted)
            self._successes += result.success == schema.SUCCESS
            session_log.note(saved=self._saved, aborted=self._aborted)
            self._publish_saved(result.path)
            if end.aborted:
                print(
                    f"{result.path.name}: {result.steps} steps, aborted ({end.aborted})", flush=True
                )

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
                f"episodes {self._saved}/{self._count} saved, {self._successes} successes, "
                f"eta {left:.0f} s",
                flush=True,
            )

    def _summary(self) -> None:
        if not schema.episode_paths(self._folder):
            print(f"{self._folder}: no episode was saved", flush=True)
            return
        for report in report_groups(self._folder):
            print(f"{self._folder}: {report.line()}", flush=True)
            if report.picture_line():
                print(report.picture_line(), flush=True)
        if self._actor == "policy":
            write_whole(self._folder / "trials.json", report_trials(self._folder).to_json())


if __name__ == "__main__":

    def main() -> None:
        """Run the session."""
        with contextlib.ExitStack() as held:
            EpisodeNode(held).run()

    run_node("episode", main)
