#!/usr/bin/env python3
"""Episode manager and recorder: reset -> run -> label -> save, the same for collect and deploy.

Runs ``episodes`` episodes with the actor that is named, writes each to ``out`` and ends with a
count read back from disk. Services ``episode/success``, ``episode/failure`` and
``episode/discard`` end the running episode by hand.
"""

import prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import json
import threading
import time
from pathlib import Path

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger, TriggerResponse
import wires

from ofrl_robot.control import episode
from ofrl_robot.control.signals import Tick
from ofrl_robot.data import labels, schema
from ofrl_robot.data.schema import EpisodeMeta
from ofrl_robot.data.writer import EpisodeWriter, prepare_folder
from ofrl_robot.errors import ConfigError, DatasetError, RobotError
from ofrl_robot.evaluation.trials import report_trials

TRIES = 3  # attempts at an episode that lost a tick, before giving up


class EpisodeNode:
    def __init__(self) -> None:
        self._count = int(rospy.get_param("~episodes", 1))
        if self._count < 1:
            raise ConfigError("episodes is {}".format(self._count), "use 1 or more")
        self._actor = rospy.get_param("~actor", "teleop")
        self._first_seed = int(rospy.get_param("~seed", 0))
        self._robot = wires.RemoteRobot()
        self._folder = wires.path_param("out")
        self._first = self._prepare() if self._folder else 0
        self._state = episode.EpisodeState()
        self._lock = threading.RLock()  # guards everything that a tick or a service changes
        self._over = threading.Event()
        self._writer = None
        self._seed = self._stamp = 0
        self._label = (schema.UNKNOWN, labels.NOBODY)
        self._abort_reason = ""
        self._lost = ""
        self._pending_applied = {}
        self._saved = self._successes = 0

        self._publisher = rospy.Publisher(
            "episode/state", DiagnosticStatus, queue_size=10, latch=True
        )
        self._assembler = wires.TickAssembler(self._robot.observation_spec, self._on_tick)
        applied = rospy.Subscriber("applied_action", Joy, self._on_applied, tcp_nodelay=True)
        status = rospy.Subscriber("robot/status", DiagnosticStatus, self._on_status)
        for verb in ("success", "failure", "discard"):
            rospy.Service("episode/" + verb, Trigger, lambda _, v=verb: self._on_verb(v))
        wires.wait_connected([*self._assembler.subscribers, applied, status])
        self._wait_for_actor()
        # the server itself says who it is: what is recorded is what really ran
        self._policy = json.loads(rospy.get_param("policy")) if self._actor == "policy" else {}
        if self._folder is None:
            self._folder = self._trials_folder()
            self._prepare()

    def _prepare(self) -> int:
        """Check the folder before anything moves; returns the number of its next episode."""
        number = prepare_folder(self._folder, self._robot.action_spec, self._robot.observation_spec)
        if self._actor == "policy" and number > 0:
            raise ConfigError(
                "holds episodes already", "choose a new out:= folder for trials", self._folder
            )
        return number

    def _trials_folder(self) -> Path:
        """Where episodes go when no folder was named: datasets/trials/<run>-<time>."""
        run = Path(self._policy.get("checkpoint", "episodes")).resolve().parent.parent.name
        name = "{}-{}".format(run or "episodes", time.strftime("%Y%m%d-%H%M%S"))
        return Path(rospy.get_param("~cwd", ".")) / "datasets" / "trials" / name

    def _wait_for_actor(self) -> None:
        ready = threading.Event()
        subscriber = rospy.Subscriber(self._actor + "/ready", Bool, lambda m: ready.set())
        deadline = time.monotonic() + 60.0
        while not ready.wait(0.05):
            if rospy.is_shutdown():
                raise rospy.ROSInterruptException("shutdown")
            if time.monotonic() > deadline:
                raise ConfigError(
                    "no actor said ready on {} within 60 s".format(subscriber.resolved_name),
                    "see why the {} node did not start".format(self._actor),
                )
        subscriber.unregister()

    # -- callbacks (rospy threads) -------------------------------------------------------

    def _on_tick(self, tick: Tick, seed: int) -> None:
        with self._lock:
            if self._state.name == episode.RESETTING and tick.step == 0 and seed == self._seed:
                self._state.to(episode.RUNNING)
            if self._state.name != episode.RUNNING or self._over.is_set():
                return
            try:
                if tick.step > 0:
                    self._record_applied()
                self._writer.observe(tick)
            except DatasetError as error:
                self._lost = str(error)
                self._over.set()
                return
            self._stamp = tick.stamp_ns
            if tick.last:
                self._label = (labels.simulator_label(tick), labels.SIMULATOR)
                self._over.set()

    def _record_applied(self) -> None:
        """The action that led to this tick; it travels on another socket and may be late."""
        applied = self._pending_applied.pop(self._stamp, None)
        deadline = time.monotonic() + 2.0
        while applied is None and time.monotonic() < deadline:
            self._lock.release()  # let the other callback in
            try:
                time.sleep(0.0005)
            finally:
                self._lock.acquire()
            applied = self._pending_applied.pop(self._stamp, None)
        if applied is None:
            raise DatasetError("no applied action for the tick at {}".format(self._stamp))
        self._writer.act(applied)

    def _on_applied(self, message: Joy) -> None:
        applied = wires.applied_from(message)
        with self._lock:
            self._pending_applied[applied.stamp_ns] = applied
            while len(self._pending_applied) > wires.QUEUE:
                self._pending_applied.pop(next(iter(self._pending_applied)))

    def _on_status(self, message: DiagnosticStatus) -> None:
        reason = {pair.key: pair.value for pair in message.values}.get("reason", "")
        if reason:
            with self._lock:
                self._abort_reason = reason
                self._over.set()

    def _on_verb(self, verb: str) -> TriggerResponse:
        with self._lock:
            if self._state.name != episode.RUNNING:
                return TriggerResponse(False, "no episode is running")
            if verb == "discard":
                self._lost = "discarded by the operator"
            else:
                label = schema.SUCCESS if verb == "success" else schema.FAILURE
                self._label = (label, labels.OPERATOR)
            self._over.set()
        return TriggerResponse(True, verb)

    # -- main thread ---------------------------------------------------------------------

    def run(self) -> None:
        """All episodes; prints the count on disk at the end, also after Ctrl-C."""
        reset = rospy.ServiceProxy("reset", Trigger)
        reset.wait_for_service(30.0)
        start = time.monotonic()
        try:
            for index in range(self._count):
                for _attempt in range(TRIES):
                    if self._episode(reset, self._first_seed + self._first + index):
                        break
                    if rospy.is_shutdown():
                        return
                else:
                    raise RobotError(
                        "an episode failed {} times ({})".format(TRIES, self._lost),
                        "look for an overloaded machine",
                    )
                self._progress(index + 1, time.monotonic() - start)
        finally:
            if self._writer is not None:
                self._writer.discard()
            self._summary()

    def _episode(self, reset: rospy.ServiceProxy, seed: int) -> bool:
        """One episode; True when it was saved."""
        meta = EpisodeMeta(
            robot=self._robot.name, task=self._robot.task, actor=self._actor_name(),
            action_spec=self._robot.action_spec, observation_spec=self._robot.observation_spec,
            control_rate_hz=self._robot.control_rate_hz, policy=self._policy, seed=seed,
            operator=str(rospy.get_param("~operator", "")),
        )  # fmt: skip
        with self._lock:
            self._over.clear()
            self._pending_applied.clear()
            self._lost = self._abort_reason = ""
            self._label, self._seed = (schema.UNKNOWN, labels.NOBODY), seed
            self._writer = EpisodeWriter(self._folder, meta)
            self._to(episode.RESETTING)
        rospy.set_param("next_seed", seed)
        answer = reset()
        if not answer.success:
            raise RobotError("reset refused: {}".format(answer.message), "mend it and launch again")
        while not self._over.wait(0.1):
            if rospy.is_shutdown():
                return False
        with self._lock:
            return self._end()

    def _end(self) -> bool:
        writer, self._writer = self._writer, None
        if self._lost:
            writer.discard()
            self._to(episode.IDLE)
            rospy.logwarn("episode dropped: %s", self._lost)
            return False
        self._to(episode.SAVING)
        path = writer.finish(*self._label, abort_reason=self._abort_reason)
        self._to(episode.IDLE)
        if self._abort_reason:
            raise RobotError(
                "the robot stopped ({}); {}".format(
                    self._abort_reason, "saved as aborted" if path else "nothing to save"
                ),
                "look at the arm, then launch again",
            )
        self._saved += 1
        self._successes += self._label[0] == schema.SUCCESS
        return path is not None

    def _actor_name(self) -> str:
        return rospy.get_param("~device", "scripted") if self._actor == "teleop" else self._actor

    def _to(self, state: str) -> None:
        self._state.to(state)
        values = {"saved": self._saved, "asked": self._count, "seed": self._seed}
        self._publisher.publish(wires.status_message("episode", 0, state, values))

    def _progress(self, done: int, seconds: float) -> None:
        """A line now and then: saved/asked, not attempts."""
        if done % max(1, self._count // 10) == 0 or done == self._count:
            left = seconds / done * (self._count - done)
            print(
                "episodes {}/{} saved, {} successes, eta {:.0f} s".format(
                    done, self._count, self._successes, left
                ),
                flush=True,
            )

    def _summary(self) -> None:
        if not schema.episode_paths(self._folder):
            print("{}: no episode was saved".format(self._folder), flush=True)
            return
        report = report_trials(self._folder)
        print("{}: {}".format(self._folder, report.line()), flush=True)
        if self._actor == "policy":
            (self._folder / "trials.json").write_text(report.to_json())


if __name__ == "__main__":
    wires.run_node("episode", lambda: EpisodeNode().run())
