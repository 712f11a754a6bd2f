"""Build episodes from the messages of a bag, with the classes of the live recorder.

:class:`~ofrl_ros.assembler.TickAssembler` puts ticks together, and
:class:`~ofrl_robot.recording.episode_recorder.EpisodeRecorder` pairs them with applied actions. So
a bag gives the episodes that were recorded live.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Deque, Dict, List, Optional, Set, Tuple

from genpy import Message
from sensor_msgs.msg import Image, JointState

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.episodes.schema import (
    LABEL_FROM_SIMULATOR,
    NO_LABEL_SOURCE,
    UNKNOWN,
    EpisodeMeta,
    simulator_label,
)
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.recording.episode_recorder import Dropped, EpisodeRecorder
from ofrl_robot.specs import ObservationSpec, require_same
from ofrl_ros import messages
from ofrl_ros.assembler import TickAssembler
from ofrl_ros.bag_file import APPLIED, TICK
from ofrl_ros.description import RobotDescription
from ofrl_ros.events import Events
from ofrl_ros.node import QUEUE

# Attributes and transitions of the saved episodes that began at a stamp, in order. Simulators
# that start their clock again for each episode give the same stamp to several.
Saved = Dict[int, Deque[Tuple[EpisodeMeta, int]]]


@dataclasses.dataclass(eq=False)
class _Running:
    """An episode that has begun and is not complete.

    Attributes:
        name: its name in messages.
        number: its number in the ticks.
        recorder: writes it.
        labelled: its label comes from the recorder of the session.
    """

    name: str
    number: int
    recorder: EpisodeRecorder
    labelled: bool


class EpisodeBuilder:
    """Builds episodes from messages.

    rosbag keeps the order within a topic, not between topics: an action may follow the first tick
    of the next episode. So two episodes may be running.

    Args:
        folder: folder to write to.
        robot: description of the robot.
        saved: what the recorder of the session saved. An episode that is not in it ends with its
            last tick.
    """

    def __init__(self, folder: Path, robot: RobotDescription, saved: Saved) -> None:
        self.episodes = 0
        self.left_out: List[str] = []
        self._folder, self._robot, self._saved = folder, robot, saved
        self._events = Events()
        self._assembler = TickAssembler(robot.observation_spec, self._events)
        self._frames: Deque[Tuple[Image, str]] = collections.deque(maxlen=QUEUE)
        self._answers: Deque[AppliedAction] = collections.deque(maxlen=QUEUE)
        self._before: Optional[JointState] = None  # message of the tick before
        self._numbers: Set[int] = set()  # of the episodes of which there was a tick
        self._seen = 0  # how many of them were there
        self._running: List[_Running] = []  # oldest first
        self._first_meta: Optional[EpisodeMeta] = None

    def take(self, message: Message, part: str) -> None:
        """Take the next message of the bag; ``part`` is a topic or the name of a camera."""
        if part == TICK:
            self._take_tick_message(message)
        elif part == APPLIED:
            applied = messages.applied_from(message)
            self._answers.append(applied)
            for running in list(self._running):
                running.recorder.take_applied(applied)
                self._finish_when_complete(running)
        else:
            self._frames.append((message, part))

    def end(self) -> None:
        """Drop the episodes that are not complete, since there are no more messages."""
        self._assemble_frames()
        self._drop_oldest(self._running[:-1])
        for running in list(self._running):
            self._drop(running, "the bag ends before it does")

    def close(self) -> None:
        """Discard the running episodes, whatever happened."""
        for running in self._running:
            running.recorder.discard()
        self._running.clear()

    def _take_tick_message(self, message: JointState) -> None:
        before, self._before = self._before, message
        if before is not None:
            stamp, last_stamp = message.header.stamp, before.header.stamp
            if stamp == last_stamp and message.position == before.position:
                return  # the same message again: the topic is latched
            if stamp <= last_stamp and _is_later_episode(message, before):
                # Stamps begin again. Images and actions of the episodes before must not be taken
                # for those of this one.
                self._drop_oldest(self._running)
                self._assembler = TickAssembler(self._robot.observation_spec, self._events)
                self._answers.clear()
        self._assemble_frames()
        self._assembler.take(message, TICK)
        self._take_complete_ticks()

    def _assemble_frames(self) -> None:
        """Assemble the frames that arrived since the last tick.

        They wait for the tick after them, which shows whether stamps begin again.
        """
        while self._frames:
            self._assembler.take(*self._frames.popleft())
        self._take_complete_ticks()

    def _take_complete_ticks(self) -> None:
        while self._events.waiting:
            _, parts = self._events.get(0.0)
            self._take_tick(*self._assembler.assemble(parts))

    def _take_tick(self, tick: Tick, info: messages.TickInfo) -> None:
        if tick.step == 0 or info.episode not in self._numbers:
            self._begin(tick, info)
        for running in self._running[::-1]:
            if running.number == info.episode:
                running.recorder.take_tick(tick)
                if running.recorder.overdue:
                    self._drop(running, "its messages are out of order")
                self._finish_when_complete(running)
                return

    def _begin(self, tick: Tick, info: messages.TickInfo) -> None:
        """Begin an episode with its first tick."""
        self._drop_oldest(self._running[:-1])
        first_of_bag = not self._numbers
        self._numbers.add(info.episode)
        if first_of_bag and tick.step > 0 and tick.last:
            return  # the latched last tick of an episode before the recording
        self._seen += 1
        name = f"episode {self._seen} of the bag"
        if tick.step > 0:
            self.left_out.append(f"{name}: tick 0 or an image of it is missing")
            return
        meta, steps = self._meta_of(tick, info)
        self._require_one_robot(meta, name)
        recorder = EpisodeRecorder(EpisodeWriter(self._folder, meta), steps)
        self._running.append(_Running(name, info.episode, recorder, steps is not None))
        for applied in self._answers:
            if applied.stamp_ns >= tick.stamp_ns:
                recorder.take_applied(applied)

    def _meta_of(self, tick: Tick, info: messages.TickInfo) -> Tuple[EpisodeMeta, Optional[int]]:
        """Return the attributes of the episode, and its transitions where the bag says them."""
        saved = self._saved.get(tick.stamp_ns)
        if saved:
            return saved.popleft()
        robot = self._robot
        meta = EpisodeMeta(
            robot=robot.robot,
            task=robot.task,
            action_spec=robot.action_spec,
            observation_spec=robot.observation_spec,
            control_rate_hz=robot.control_rate_hz,
            environment=robot.environment,
            seed=info.seed,
        )
        return meta, None

    def _require_one_robot(self, meta: EpisodeMeta, name: str) -> None:
        """Raise SpecMismatchError unless all episodes, and the description, are of one robot."""
        fix = "record one robot per bag"
        first = self._first_meta
        if first is None:
            self._first_meta, robot = meta, self._robot
            shown = _uncropped(meta.observation_spec)
            require_same(meta.action_spec, robot.action_spec, name, "topic spec", fix)
            require_same(shown, _uncropped(robot.observation_spec), name, "topic spec", fix)
        else:
            require_same(meta.action_spec, first.action_spec, name, "those before", fix)
            require_same(meta.observation_spec, first.observation_spec, name, "those before", fix)

    def _finish_when_complete(self, running: _Running) -> None:
        recorder = running.recorder
        if running not in self._running or not recorder.complete:
            return
        meta, last_tick = recorder.writer.meta, recorder.last_tick
        if running.labelled:
            result = recorder.finish(meta.success, meta.label_source, meta.abort_reason)
        elif self._robot.rewards_known:
            result = recorder.finish(simulator_label(last_tick), LABEL_FROM_SIMULATOR)
        else:
            result = recorder.finish(UNKNOWN, NO_LABEL_SOURCE)
        self._running.remove(running)
        if isinstance(result, Dropped):
            self.left_out.append(f"{running.name}: {result.reason}")
        else:
            self.episodes += 1

    def _drop_oldest(self, oldest: List[_Running]) -> None:
        """Drop episodes that others have followed."""
        for running in list(oldest):
            self._drop(running, "the next one began before its end")

    def _drop(self, running: _Running, otherwise: str) -> None:
        """Drop an episode for what it lacks; ``otherwise``: why, if nothing is known to lack."""
        reason = running.recorder.missing() or otherwise
        self.left_out.append(f"{running.name}: {reason}")
        running.recorder.discard()
        self._running.remove(running)


def _is_later_episode(message: JointState, before: JointState) -> bool:
    values, values_before = messages.values_of(message), messages.values_of(before)
    return values["episode"] != values_before["episode"] or values["step"] <= values_before["step"]


def _uncropped(spec: ObservationSpec) -> ObservationSpec:
    """Return the spec without crops; frames from a dataset are cropped already."""
    cameras = tuple(dataclasses.replace(camera, crop=None) for camera in spec.cameras)
    return dataclasses.replace(spec, cameras=cameras)
