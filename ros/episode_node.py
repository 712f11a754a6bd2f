#!/usr/bin/env python3
"""Episode manager and recorder: reset -> run -> label -> save, the same for collect and deploy.

Runs ``episodes`` episodes with the actor that is named, writes each to ``out`` and ends with a
count read back from disk. Services ``episode/success``, ``episode/failure`` and
``episode/discard`` end the running episode by hand.

Callbacks only queue what they hear; one thread records, so nothing is written out of turn.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import contextlib
import json
import os
import threading
import time
from pathlib import Path

from ofrl_ros import messages
import rospy
from ofrl_ros import wires
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger, TriggerResponse

from ofrl_robot.control import episode
from ofrl_robot.control.loop import ACTOR_SILENT
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.data.episodes.recover import unfinished_line
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter, prepare_folder
from ofrl_robot.errors import ConfigError, OfrlError, RobotError
from ofrl_robot.evaluation.trials import report_trials

TRIES = 3  # attempts at an episode that lost a tick, before giving up
TICK_TIMEOUT = 15.0  # s without a tick after which one is taken for lost


class LostTickError(RobotError):
    """A tick or an applied action did not arrive; the episode cannot be recorded."""


class EpisodeNode:
    """The session: its episodes, run and recorded.

    Args:
        held: keeps the folder locked for this node.
    """

    def __init__(self, held: contextlib.ExitStack) -> None:
        self._held = held
        self._count = wires.int_param("episodes", 1, low=1)
        self._actor = rospy.get_param("~actor", "teleop")
        self._first_seed = wires.int_param("seed", 0, low=0)
        self._jpeg_quality = wires.int_param("jpeg_quality", 0, low=0, high=100)
        self._robot = wires.RemoteRobot()
        self._folder = wires.path_param("out")
        self._first = self._prepare() if self._folder else 0
        self._state = episode.EpisodeState()
        self._seed = 0
        self._started = 0  # stamp of tick 0
        self._saved = self._successes = 0

        self._publisher = rospy.Publisher(
            "episode/state", DiagnosticStatus, queue_size=10, latch=True
        )
        self._bulletin = wires.lasting_publisher("episode/saved", String)
        self._events = wires.Events()
        self._assembler = messages.TickAssembler(self._robot.observation_spec, self._events)
        subscribers = [
            *self._assembler.subscribe(),
            self._events.subscribe("applied_action", Joy, "applied"),
            self._events.subscribe("robot/status", DiagnosticStatus, "status"),
        ]
        for verb in ("success", "failure", "discard"):
            rospy.Service(f"episode/{verb}", Trigger, lambda _, v=verb: self._on_verb(v))
        wires.wait_connected(subscribers)
        self._wait_for_actor()
        # the server itself says who it is: what is recorded is what really ran
        self._policy = json.loads(rospy.get_param("policy")) if self._actor == "policy" else {}
        self._environment = dict(self._robot.environment)
        if self._actor == "teleop":
            self._environment.update(json.loads(rospy.get_param("teleop/settings")))
        if self._folder is None:
            self._folder = self._trials_folder()
            self._prepare()

    def _prepare(self) -> int:
        """Lock and check the folder before anything moves; the number of its next episode."""
        self._held.enter_context(one_writer(self._folder))
        meta = EpisodeMeta(
            robot=self._robot.name,
            task=self._robot.task,
            action_spec=self._robot.action_spec,
            observation_spec=self._robot.observation_spec,
            control_rate_hz=self._robot.control_rate_hz,
        )
        number = prepare_folder(self._folder, meta)
        if unfinished_line(self._folder):
            rospy.logwarn(unfinished_line(self._folder))
        if self._actor == "policy" and schema.episode_paths(self._folder):
            raise ConfigError(
                "holds episodes already", "choose a new out:= folder for trials", self._folder
            )
        return number

    def _trials_folder(self) -> Path:
        """Where episodes go when no folder was named: datasets/trials/<run>-<time>."""
        run = Path(self._policy.get("checkpoint", "episodes")).resolve().parent.parent.name
        name = f"{run or 'episodes'}-{time.strftime('%Y%m%d-%H%M%S')}"
        return Path(rospy.get_param("~cwd", ".")) / "datasets" / "trials" / name

    def _wait_for_actor(self) -> None:
        ready = threading.Event()
        subscriber = rospy.Subscriber(f"{self._actor}/ready", Bool, lambda m: ready.set())
        deadline = time.monotonic() + 60.0
        while not ready.wait(0.05):
            wires.raise_on_shutdown()
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"no actor said ready on {subscriber.resolved_name} within 60 s",
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
        """All episodes; prints the count on disk at the end, also after Ctrl-C or an error."""
        try:
            self._all_episodes()
        except OfrlError:
            self._summary()
            raise
        except rospy.ROSInterruptException:
            pass  # Ctrl-C: the running episode is dropped, whole ones are kept
        self._summary()

    def _all_episodes(self) -> None:
        reset = wires.service("reset")
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

    def _episode(self, reset, seed: int) -> bool:
        """One episode until it is saved; False when a tick was lost and it has to be repeated."""
        meta = EpisodeMeta(
            robot=self._robot.name,
            task=self._robot.task,
            actor=rospy.get_param("~device", "") if self._actor == "teleop" else self._actor,
            action_spec=self._robot.action_spec,
            observation_spec=self._robot.observation_spec,
            control_rate_hz=self._robot.control_rate_hz,
            policy=self._policy,
            environment=self._environment,
            seed=seed,
            operator=str(rospy.get_param("~operator", "")),
        )
        while True:
            self._seed = seed
            self._to(episode.RESETTING)
            self._events.clear()
            writer = EpisodeWriter(self._folder, meta, jpeg_quality=self._jpeg_quality)
            saved = False
            try:
                rospy.set_param("next_seed", seed)
                reset()
                label, source, abort_reason = self._record(writer)
                if source == "discard":
                    rospy.loginfo("episode discarded by the operator; running it again")
                    continue
                self._to(episode.SAVING)
                path = writer.finish(label, source, abort_reason)
                saved = path is not None
                if saved:
                    self._tell_saved(path)
                self._saved += saved
                self._successes += saved and label == schema.SUCCESS
            except LostTickError as error:
                rospy.logwarn("episode dropped: %s", error)
                return False
            finally:
                if not saved:
                    writer.discard()
                self._to(episode.IDLE)
            if abort_reason:
                raise RobotError(
                    "the episode ended early ({}); {}".format(
                        abort_reason, "saved as aborted" if saved else "nothing to save"
                    ),
                    "look at the arm and its cameras, then launch again",
                )
            return saved

    def _record(self, writer: EpisodeWriter) -> "tuple[int, str, str]":
        """Record until the episode is over; returns (label, who gave it, abort reason)."""
        applied, due, last_stamp = {}, 0, 0
        ticks = {}
        while True:
            kind, payload = self._events.get(TICK_TIMEOUT)
            if kind is None and due > 0 and self._assembler.awaited_cameras():
                return schema.UNKNOWN, schema.NO_LABEL_SOURCE, self._reason("")
            if kind is None:
                raise LostTickError(f"no tick for {TICK_TIMEOUT:.0f} s (step {due})")
            if kind == "applied":
                one = messages.applied_from(payload)
                applied[one.stamp_ns] = one
            elif kind == "status":
                reason = wires.status_reason(payload)
                if reason:
                    return schema.UNKNOWN, schema.NO_LABEL_SOURCE, self._reason(reason)
            elif kind == "verb":
                if payload == "discard":
                    return schema.UNKNOWN, "discard", ""
                success = schema.SUCCESS if payload == "success" else schema.FAILURE
                return success, schema.LABEL_FROM_OPERATOR, ""
            elif kind == "tick":
                tick, seed = self._assembler.assemble(payload)
                if seed == self._seed:
                    ticks[tick.step] = tick
            # an applied action and the tick after it come on two sockets: wait for both
            while due in ticks and (due == 0 or last_stamp in applied):
                tick = ticks.pop(due)
                if due == 0:
                    self._started = tick.stamp_ns
                    self._to(episode.RUNNING)
                else:
                    writer.act(applied.pop(last_stamp))
                writer.observe(tick)
                due, last_stamp = due + 1, tick.stamp_ns
                if tick.last:
                    return schema.simulator_label(tick), schema.LABEL_FROM_SIMULATOR, ""

    def _reason(self, given: str) -> str:
        """Why the robot stopped: where a camera did first, the actor has only fallen silent."""
        cameras = self._assembler.awaited_cameras()
        if cameras and given in ("", ACTOR_SILENT):
            return f"camera {cameras[0]} stopped"
        return given

    # -- what it tells -----------------------------------------------------------------------

    def _to(self, state: str) -> None:
        self._state.to(state)
        values = {"saved": self._saved, "asked": self._count, "seed": self._seed}
        with contextlib.suppress(rospy.ROSException):  # closed at shutdown
            self._publisher.publish(wires.status_message("episode", 0, state, values))

    def _tell_saved(self, path: Path) -> None:
        """For bags: what became of the ticks that were heard."""
        with contextlib.suppress(rospy.ROSException):  # closed at shutdown
            self._bulletin.publish(messages.saved_message(*read_meta(path), self._started))
            time.sleep(0.5)  # on a quiet machine rosbag still missed the last one without

    def _progress(self, done: int, seconds: float) -> None:
        """A line now and then: saved/asked, not attempts."""
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
            temporary = self._folder / "trials.json.tmp"
            temporary.write_text(report.to_json())
            os.replace(str(temporary), str(self._folder / "trials.json"))


if __name__ == "__main__":

    def main() -> None:
        with contextlib.ExitStack() as held:
            EpisodeNode(held).run()

    wires.run_node("episode", main)
