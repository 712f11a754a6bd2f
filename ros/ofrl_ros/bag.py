"""ROS bags of the topics in docs/ros_interface.md: read as episodes, written from episodes.

The messages become ticks as in the recorder, by :class:`messages.TickAssembler`. Nothing in a
bag is executed: rosbag makes Python code of the message definitions that a bag brings along, so
only topics of the types we know are read, with the classes that are installed.

What comes back of a dataset written to a bag: all but the originals before crop and resize
(``obs_jpeg``), rewards from before a relabelling, splits, and ``created``.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Callable, ContextManager, Deque, Dict, Iterator, List, Optional, Tuple

import numpy as np
import rosbag
import rosbag.bag
from genpy import Message
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String

from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.convert.writing import applied_at, tick_at
from ofrl_robot.data.datasets import labels
from ofrl_robot.data.episodes.reader import (
    Dataset,
    Episode,
    named_damage,
    open_dataset,
    read_episode,
)
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.files import new_file, new_folder, require_new_folder
from ofrl_robot.specs import require_same
from ofrl_ros import messages, wires

TICK, APPLIED, SPEC, SAVED = "tick", "applied_action", "spec", "episode/saved"
GAP_NS = 1_000_000_000  # bag time between two exported episodes
_KINDS = {TICK: JointState, APPLIED: Joy, SPEC: String, SAVED: String}

# attributes and steps of the episodes that began at a stamp, in order: simulators that start
# their clock anew give several the same
Saved = Dict[int, Deque[Tuple[EpisodeMeta, int]]]
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ImportedBag:
    """What came of a bag: episodes written, and a line for each that was left out."""

    episodes: int
    left_out: List[str]


def import_bag(
    path: Path, out: Path, namespace: str = "", progress: Optional[Progress] = None
) -> ImportedBag:
    """Write the episodes in a bag into ``out``, a new or empty folder.

    An episode that lacks a message, or whose end is not in the bag, is left out, never patched.
    Messages are read one by one: a bag may be larger than the memory.

    Args:
        namespace: of the robot's topics (empty: the only one in the bag).
        progress: called with (messages read, in all).

    Raises DatasetError where the bag cannot be read, has no whole episode or lacks a topic,
    ConfigError where it holds several robots and none is named. ``out`` is then as it was.
    """
    require_new_folder(out)  # before gigabytes are read
    with _BagFile(path) as bag:
        prefix = bag.robot_prefix(namespace)
        robot = bag.robot(prefix)
        saved: Saved = collections.defaultdict(collections.deque)
        for _, message in bag.messages({prefix + SAVED: String}):
            with _damage(path):
                meta, steps, first_stamp = messages.saved_from(message)
            saved[first_stamp].append((meta, steps))
        parts = {prefix + TICK: TICK, prefix + APPLIED: APPLIED}
        parts.update(
            {prefix + messages.IMAGE_TOPIC.format(c.name): c.name
             for c in robot.observation_spec.cameras}
        )  # fmt: skip
        bag.require(parts)
        total = bag.count(parts)
        with new_folder(out) as folder, contextlib.closing(_Recorder(folder, robot, saved)) as made:
            kinds = {topic: _KINDS.get(part, Image) for topic, part in parts.items()}
            for done, (topic, message) in enumerate(bag.messages(kinds), 1):
                with _damage(path):
                    made.take(message, parts[topic])
                if progress is not None and done % 100 == 0:
                    progress(done, total)
            made.end()
            if not made.episodes:
                reason = "; ".join(made.left_out[:1]) or "no tick in it"
                raise DatasetError(
                    f"no whole episode ({reason})", "record from before the reset on", path
                )
    return ImportedBag(made.episodes, made.left_out)


class _BagFile:
    """A bag open for reading; what is wrong with it is a DatasetError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # found by rosbag before it generates code of its own from the bag
        rosbag.bag._message_types.update({k._md5sum: k for k in (JointState, Joy, String, Image)})
        try:
            self._bag = rosbag.Bag(str(path), "r")
        except rosbag.ROSBagUnindexedException as error:
            raise DatasetError(
                "no index: its recording was cut off", "run `rosbag reindex` on it first", path
            ) from error
        except FileNotFoundError as error:
            raise DatasetError("no such bag", "check the path", path) from error
        except Exception as error:  # rosbag raises nearly anything for what is no bag
            raise DatasetError(
                f"not a readable bag ({_text(error)})",
                "check it with `rosbag check`, or get it again",
                path,
            ) from error
        self._types: Dict[str, Tuple[str, str]] = {}  # topic: (type, md5sum)

        def note(topic: str, kind: str, md5sum: str, *_: object) -> bool:
            self._types[topic] = (kind, md5sum)
            return False

        list(self._bag.read_messages(connection_filter=note))

    def __enter__(self) -> "_BagFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._bag.close()

    def robot_prefix(self, namespace: str) -> str:
        """What the topics of the robot begin with, as "/sim/"."""
        found = sorted(t[: -len(TICK)] for t in self._types if t.endswith(f"/{TICK}"))
        if namespace:
            prefix = f"/{namespace.strip('/')}/"
            self.require([prefix + TICK])
            return prefix
        if not found:
            raise DatasetError(
                f"no topic tick (it has {', '.join(sorted(self._types)) or 'none'})",
                "record the topics of docs/ros_interface.md",
                self._path,
            )
        if len(found) > 1:
            raise ConfigError(
                f"several robots: {', '.join(p.strip('/') or '/' for p in found)}",
                "name one with --namespace",
                self._path,
            )
        return found[0]

    def robot(self, prefix: str) -> wires.DescribedRobot:
        """The robot that the bag describes; when it was started twice, both must be alike."""
        self.require([prefix + SPEC])
        robots = []
        for _, message in self.messages({prefix + SPEC: String}):
            with _damage(self._path):
                robots.append(wires.DescribedRobot.from_json(message.data))
        if not robots:
            raise DatasetError(f"no message on {prefix}{SPEC}", "record it too", self._path)
        for robot in robots[:-1]:
            for name in ("action_spec", "observation_spec"):
                pair = getattr(robot, name), getattr(robots[-1], name)
                require_same(*pair, str(self._path), "its end", "record one robot per bag")
        return robots[-1]

    def require(self, topics: Any) -> None:
        missing = sorted(set(topics) - set(self._types))
        if missing:
            raise DatasetError(
                f"no topic {', '.join(missing)}",
                "an episode needs it: record it too (docs/ros_interface.md)",
                self._path,
            )

    def count(self, topics: Any) -> int:
        return self._bag.get_message_count(list(topics))

    def messages(self, kinds: Dict[str, type]) -> Iterator[Tuple[str, Message]]:
        """(topic, message) of these topics in order of arrival; all must be of their type."""
        for topic, kind in kinds.items():
            found = self._types.get(topic)
            if found not in (None, (kind._type, kind._md5sum)):
                raise DatasetError(
                    f"{topic} is {found[0]}, {kind._type} expected",
                    "record the topics of docs/ros_interface.md",
                    self._path,
                )
        stream = self._bag.read_messages(topics=list(kinds))
        while True:
            with _damage(self._path):
                try:
                    topic, message, _ = next(stream)
                except StopIteration:
                    return
            yield topic, message


class _Recorder:
    """Messages in, episodes out. Ticks come in order; holes show as steps that do not follow.

    Args:
        saved: what the recorder of the session made of its episodes. An episode that is not
            there ends with its last tick.
    """

    def __init__(self, folder: Path, robot: wires.DescribedRobot, saved: Saved) -> None:
        self.episodes = 0
        self.left_out: List[str] = []
        self._folder, self._robot, self._saved = folder, robot, saved
        self._events = wires.Events()
        self._assembler = self._new_assembler()
        self._frames: Deque[Tuple[Image, str]] = collections.deque(maxlen=wires.QUEUE)
        self._applied: "collections.OrderedDict[int, AppliedAction]" = collections.OrderedDict()
        self._ticks: Deque[Tick] = collections.deque()  # complete, their turn has not come
        self._writer: Optional[EpisodeWriter] = None  # None: between episodes
        self._steps: Optional[int] = None  # actions of the running episode, where that is known
        self._due, self._stamp = 0, 0  # step to be written next, stamp of the one before
        self._heard: Optional[Tuple[int, Tuple[float, ...]]] = None  # stamp, values of a tick
        self._first = True  # no tick was complete yet
        self._first_meta: Optional[EpisodeMeta] = None
        self._begun = 0

    def take(self, message: Message, part: str) -> None:
        if part == APPLIED:
            applied = messages.applied_from(message)
            self._applied[applied.stamp_ns] = applied
            while len(self._applied) > wires.QUEUE:  # their ticks were lost
                self._applied.popitem(last=False)
        elif part == TICK:
            self._hear_tick(message)
        else:
            self._frames.append((message, part))
        self._write()

    def _hear_tick(self, message: JointState) -> None:
        before = self._heard
        self._heard = message.header.stamp.to_nsec(), tuple(message.position)
        if self._heard == before:
            return  # a latched one again
        if before and self._heard[0] <= before[0] and messages.step_of(message) == 0:
            # stamps begin anew: what is left of the old ones must not be taken for new
            self._assembler = self._new_assembler()
            self._applied.clear()
        self._assemble_frames()
        self._assembler.take(message, TICK)
        self._take_ticks()

    def _assemble_frames(self) -> None:
        """The frames since the last tick, held back until it is known whether stamps begin anew."""
        while self._frames:
            self._assembler.take(*self._frames.popleft())
        self._take_ticks()

    def _take_ticks(self) -> None:
        while self._events.waiting:
            _, parts = self._events.get(0.0)
            self._tick(*self._assembler.assemble(parts))

    def _new_assembler(self) -> messages.TickAssembler:
        return messages.TickAssembler(self._robot.observation_spec, self._events)

    def end(self) -> None:
        """No more messages."""
        self._assemble_frames()
        self._write()
        self._drop(self._waits() or "the bag ends before it does")

    def close(self) -> None:
        """Leave nothing open, whatever happened."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None

    def _tick(self, tick: Tick, seed: int) -> None:
        first, self._first = self._first, False
        if tick.step == 0:
            self._drop(self._waits() or "the next one began before its end")
            self._begin(tick, seed)
        elif first and not tick.last:  # else the latched end of an earlier one
            self.left_out.append("what the bag begins with: its tick 0 is missing")
        if self._writer is None:
            return
        due = self._due + len(self._ticks)
        if tick.step != due:
            self._drop(f"tick {due} or an image of it is missing")
            return
        self._ticks.append(tick)
        if len(self._ticks) > wires.QUEUE:
            self._drop(self._waits())

    def _begin(self, tick: Tick, seed: int) -> None:
        self._begun += 1
        for stamp in [s for s in self._applied if s < tick.stamp_ns]:
            del self._applied[stamp]
        robot = self._robot
        notes = self._saved.get(tick.stamp_ns)
        if notes:
            meta, self._steps = notes.popleft()
        else:
            self._steps = None
            meta = EpisodeMeta(
                robot=robot.name,
                task=robot.task,
                action_spec=robot.action_spec,
                observation_spec=robot.observation_spec,
                control_rate_hz=robot.control_rate_hz,
                environment=robot.environment,
                seed=seed,
            )
        self._first_meta = self._first_meta or meta
        for name in ("action_spec", "observation_spec"):
            pair = getattr(meta, name), getattr(self._first_meta, name)
            require_same(*pair, self._name(), "those before", "record one robot per bag")
        self._writer = EpisodeWriter(self._folder, dataclasses.replace(meta))
        self._due = 0

    def _write(self) -> None:
        """Write every tick whose turn has come: the one before it has its applied action."""
        while self._ticks and (self._due == 0 or self._stamp in self._applied):
            tick = self._ticks.popleft()
            if self._due:
                self._writer.act(self._applied.pop(self._stamp))
            self._writer.observe(tick)
            self._due, self._stamp = self._due + 1, tick.stamp_ns
            if self._due - 1 == self._steps or (self._steps is None and tick.last):
                self._finish(tick)

    def _finish(self, tick: Tick) -> None:
        meta = self._writer.meta
        if self._steps is None:
            self._writer.finish(labels.simulator_label(tick), labels.SIMULATOR)
        else:
            self._writer.finish(meta.success, meta.label_source, meta.abort_reason)
        self._writer = None
        self._ticks.clear()
        self.episodes += 1

    def _drop(self, why: str) -> None:
        if self._writer is None:
            return
        self.left_out.append(f"{self._name()}: {why}")
        self.close()
        self._ticks.clear()

    def _waits(self) -> str:
        """What the ticks that are there wait for."""
        missing = f"the action applied to tick {self._due - 1} is missing"
        return missing if self._ticks else ""

    def _name(self) -> str:
        return f"episode {self._begun} of the bag"


def export_bag(
    folder: Path,
    out: Path,
    namespace: str = "",
    compression: str = "none",
    progress: Optional[Progress] = None,
) -> int:
    """Write the episodes of ``folder`` to a bag that ``rosbag play`` plays; returns how many.

    Stamps are those of the episodes. Bag time follows them from tick to tick; an episode that
    does not lie after the one before it is played 1 s after that.

    Args:
        namespace: of the topics (empty: the name of the robot).
        compression: "none", "bz2" or "lz4".

    Raises DatasetError; ``out`` is complete or does not exist.
    """
    dataset = open_dataset(folder)
    with new_file(out) as file, _new_bag(file, compression) as bag:
        prefix = f"/{namespace.strip('/') or dataset.metas[0].robot}/"
        writer = _BagWriter(bag, prefix)
        for number, path in enumerate(dataset.paths):
            writer.write(read_episode(path), None if number else _described(dataset))
            if progress is not None:
                progress(number + 1, len(dataset.paths))
    return len(dataset.paths)


def _new_bag(file: Path, compression: str) -> rosbag.Bag:
    try:
        return rosbag.Bag(str(file), "w", compression=compression)
    except ValueError as error:  # lz4 comes with a package of its own
        raise ConfigError(str(error), "choose one of these") from error


class _BagWriter:
    """Episodes as messages. Bag time only goes forward, so the order of writing is kept."""

    def __init__(self, bag: rosbag.Bag, prefix: str) -> None:
        self._bag, self._prefix = bag, prefix
        self._now = 0  # bag time of the last message, ns
        self._shift = 0  # bag time - stamp, of the running episode

    def write(self, episode: Episode, robot: Optional[wires.DescribedRobot]) -> None:
        """Append an episode; the first one says of which robot they all are."""
        first_stamp = tick_at(episode, 0).stamp_ns
        if first_stamp <= self._now:  # stamps of converted data may begin anew each time
            self._shift = self._now + GAP_NS - first_stamp
        if robot is not None:
            self._put(SPEC, String(robot.to_json()), first_stamp, latched=True)
        meta, frames = episode.meta, {}
        for step in range(len(episode) + 1):
            tick = tick_at(episode, step)
            for name, pixels in tick.images.items():
                captured = tick.image_stamps_ns.setdefault(name, tick.stamp_ns)
                before = frames.get(name)
                # a frame goes out once; foreign data may have one stamp for several
                if before is None or before[0] != captured or not np.array_equal(before[1], pixels):
                    image = messages.image_message(pixels, captured, name)
                    self._put(messages.IMAGE_TOPIC.format(name), image, tick.stamp_ns)
                    frames[name] = captured, pixels
            described = messages.tick_message(tick, meta.observation_spec, meta.seed)
            self._put(TICK, described, tick.stamp_ns)
            if step < len(episode):
                applied = applied_at(episode, step, tick)
                self._put(APPLIED, messages.applied_message(applied), applied.applied_ns)
        note = messages.saved_message(meta, len(episode), first_stamp)
        self._put(SAVED, note, tick.stamp_ns, latched=True)

    def _put(self, topic: str, message: Message, stamp_ns: int, latched: bool = False) -> None:
        self._now = max(self._now + 1, stamp_ns + self._shift)
        header = {
            "topic": self._prefix + topic,
            "type": message._type,
            "md5sum": message._md5sum,
            "message_definition": message._full_text,
            "callerid": "/ofrl",
            "latching": "1" if latched else "0",
        }
        time = messages.stamp_of(self._now)
        self._bag.write(self._prefix + topic, message, time, connection_header=header)


def _described(dataset: Dataset) -> wires.DescribedRobot:
    """The robot as its topics show it: frames in a dataset are cropped already."""
    meta, spec = dataset.metas[0], dataset.observation_spec
    cameras = tuple(dataclasses.replace(camera, crop=None) for camera in spec.cameras)
    return wires.DescribedRobot(
        name=meta.robot,
        task=meta.task,
        horizon=max(dataset.lengths),
        control_rate_hz=meta.control_rate_hz,
        environment=meta.environment,
        action_spec=meta.action_spec,
        observation_spec=dataclasses.replace(spec, cameras=cameras),
    )


def _damage(path: Path) -> ContextManager[None]:
    return named_damage(
        path,
        "damaged, or not of these topics",
        "check it with `rosbag check`, or get it again",
    )


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {ascii(str(error)):.100}"
