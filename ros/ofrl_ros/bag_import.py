"""Read the episodes in a bag, with the classes of the live recorder.

:class:`~ofrl_ros.assembler.TickAssembler` puts ticks together, and
:class:`~ofrl_robot.recording.episode_recorder.EpisodeRecorder` pairs them with applied actions. So
a bag gives the episodes that were recorded live.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from pathlib import Path
from typing import Callable, Deque, Dict, List, Optional, Tuple

from genpy import Message
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.datasets.labels import NOBODY, SIMULATOR, simulator_label
from ofrl_robot.data.episodes.schema import UNKNOWN, EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import DatasetError
from ofrl_robot.files import new_folder, require_new_folder
from ofrl_robot.recording.episode_recorder import Dropped, EpisodeRecorder
from ofrl_robot.specs import ObservationSpec, require_same
from ofrl_ros import messages
from ofrl_ros.assembler import TickAssembler
from ofrl_ros.bag_file import APPLIED, SAVED, TICK, TYPES, BagFile
from ofrl_ros.description import RobotDescription
from ofrl_ros.events import Events
from ofrl_ros.node import QUEUE

# Attributes and transitions of the saved episodes that began at a stamp, in order. Simulators
# that start their clock again for each episode give the same stamp to several.
Saved = Dict[int, Deque[Tuple[EpisodeMeta, int]]]


@dataclasses.dataclass(frozen=True)
class ImportedBag:
    """Number of episodes written, and one line for each episode that was left out."""

    episodes: int
    left_out: List[str]


def import_bag(
    path: Path,
    out: Path,
    namespace: str = "",
    progress: Optional[Callable[[int, int], None]] = None,
) -> ImportedBag:
    """Write the episodes in a bag into ``out``, a new or empty folder.

    An episode that lacks a message, or whose end is not in the bag, is left out. Messages are
    read one by one: a bag may be larger than the memory.

    Args:
        path: bag.
        out: dataset folder; it appears complete or not at all.
        namespace: of the robot's topics; empty: the only one in the bag.
        progress: called with (messages read, messages in all).

    Raises:
        DatasetError: the bag cannot be read, has no whole episode, or lacks a topic.
        SpecMismatchError: its parts describe different robots.
        ConfigError: it holds several robots and ``namespace`` is empty.
        OutputError: ``out`` holds something or cannot be written.
    """
    require_new_folder(out)  # before gigabytes are read
    with BagFile(path) as bag:
        prefix = bag.robot_prefix(namespace)
        robot = bag.robot(prefix)
        saved = _read_saved(bag, prefix)
        parts = {prefix + TICK: TICK, prefix + APPLIED: APPLIED}
        for camera in robot.observation_spec.cameras:
            parts[prefix + messages.IMAGE_TOPIC.format(camera.name)] = camera.name
        bag.require(parts)
        types = {topic: TYPES.get(part, Image) for topic, part in parts.items()}
        total = bag.count(parts)
        with new_folder(out) as folder, contextlib.closing(
            _EpisodeBuilder(folder, robot, saved)
        ) as builder:
            for done, (topic, message) in enumerate(bag.messages(types), 1):
                with bag.damage():
                    builder.take(message, parts[topic])
                if progress is not None and done % 100 == 0:
                    progress(done, total)
            with bag.damage():
                builder.end()
            if not builder.episodes:
                reason = "; ".join(builder.left_out[:1]) or "it has no tick"
                raise DatasetError(
                    f"the bag has no whole episode ({reason})",
                    "start recording before the first reset",
                    path,
                )
    return ImportedBag(builder.episodes, builder.left_out)


def _read_saved(bag: BagFile, prefix: str) -> Saved:
    saved: Saved = collections.defaultdict(collections.deque)
    for _, message in bag.messages({prefix + SAVED: String}):
        with bag.damage():
            meta, steps, first_stamp = messages.saved_from(message)
        saved[first_stamp].append((meta, steps))
    return saved


class _EpisodeBuilder:
    """Builds episodes from messages.

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
        self._number: Optional[int] = None  # of the episode to which the last tick belongs
        self._seen = 0  # episodes of which there was a tick
        self._recorder: Optional[EpisodeRecorder] = None  # None: the episode is over
        self._labelled = False  # the running episode has a label from the recorder
        self._first_meta: Optional[EpisodeMeta] = None

    def take(self, message: Message, part: str) -> None:
        """Take the next message of the bag; ``part`` is a topic or the name of a camera."""
        if part == TICK:
            self._take_tick_message(message)
        elif part == APPLIED:
            applied = messages.applied_from(message)
            self._answers.append(applied)
            if self._recorder is not None:
                self._recorder.take_applied(applied)
                self._finish_when_complete()
        else:
            self._frames.append((message, part))

    def end(self) -> None:
        """Take note that there are no more messages."""
        self._assemble_frames()
        self._drop("the bag ends before it does")

    def close(self) -> None:
        """Discard the running episode, whatever happened."""
        if self._recorder is not None:
            self._recorder.discard()
            self._recorder = None

    def _take_tick_message(self, message: JointState) -> None:
        before, self._before = self._before, message
        if before is not None:
            stamp, last_stamp = message.header.stamp, before.header.stamp
            if stamp == last_stamp and message.position == before.position:
                return  # the same message again: the topic is latched
            if stamp <= last_stamp and _is_later_episode(message, before):
                # Stamps begin again. Images and actions of the episode before must not be taken
                # for those of this one.
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
        if tick.step == 0 or info.episode != self._number:
            self._begin(tick, info)
        if self._recorder is None:
            return
        self._recorder.take_tick(tick)
        if self._recorder.overdue:
            self._drop("its messages are out of order")
        self._finish_when_complete()

    def _begin(self, tick: Tick, info: messages.TickInfo) -> None:
        """Begin the episode of a tick that does not belong to the running one."""
        self._drop("the next one began before its end")
        first_of_bag, self._number = self._number is None, info.episode
        if first_of_bag and tick.step > 0 and tick.last:
            return  # the latched last tick of an episode before the recording
        self._seen += 1
        if tick.step > 0:
            self.left_out.append(f"{self._name()}: tick 0 or an image of it is missing")
            return
        meta, steps = self._meta_of(tick, info)
        self._require_one_robot(meta)
        self._labelled = steps is not None
        self._recorder = EpisodeRecorder(EpisodeWriter(self._folder, meta), steps)
        for applied in self._answers:
            if applied.stamp_ns >= tick.stamp_ns:
                self._recorder.take_applied(applied)

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

    def _require_one_robot(self, meta: EpisodeMeta) -> None:
        """Raise SpecMismatchError unless all episodes, and the description, are of one robot."""
        fix = "record one robot per bag"
        if self._first_meta is None:
            self._first_meta = meta
            theirs, ours = meta.observation_spec, self._robot.observation_spec
            require_same(_uncropped(theirs), _uncropped(ours), self._name(), "topic spec", fix)
            require_same(meta.action_spec, self._robot.action_spec, self._name(), "topic spec", fix)
        first = self._first_meta
        require_same(meta.action_spec, first.action_spec, self._name(), "those before", fix)
        require_same(
            meta.observation_spec, first.observation_spec, self._name(), "those before", fix
        )

    def _finish_when_complete(self) -> None:
        recorder = self._recorder
        if recorder is None or not recorder.complete:
            return
        meta, last_tick = recorder.writer.meta, recorder.last_tick
        if self._labelled:
            result = recorder.finish(meta.success, meta.label_source, meta.abort_reason)
        elif self._robot.rewards_known:
            result = recorder.finish(simulator_label(last_tick), SIMULATOR)
        else:
            result = recorder.finish(UNKNOWN, NOBODY)
        if isinstance(result, Dropped):
            self.left_out.append(f"{self._name()}: {result.reason}")
        else:
            self.episodes += 1
        self._recorder = None

    def _drop(self, otherwise: str) -> None:
        """Drop the running episode for what it lacks; ``otherwise``: why, if that is unknown."""
        if self._recorder is not None:
            reason = self._recorder.missing() or otherwise
            self.left_out.append(f"{self._name()}: {reason}")
            self.close()

    def _name(self) -> str:
        return f"episode {self._seen} of the bag"


def _is_later_episode(message: JointState, before: JointState) -> bool:
    values, values_before = messages.values_of(message), messages.values_of(before)
    return values["episode"] != values_before["episode"] or values["step"] <= values_before["step"]


def _uncropped(spec: ObservationSpec) -> ObservationSpec:
    """Return the spec without crops; frames from a dataset are cropped already."""
    cameras = tuple(dataclasses.replace(camera, crop=None) for camera in spec.cameras)
    return dataclasses.replace(spec, cameras=cameras)
