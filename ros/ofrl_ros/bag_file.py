"""Open bags: find the robot's topics, check their types, and report damage as errors.

rosbag generates Python code from the message definitions that a bag contains, and runs it. So
only topics of the types below are read, with the classes that are installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import ContextManager, Dict, Iterable, Iterator, Tuple

import rosbag
import rosbag.bag
from genpy import Message
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String

from ofrl_robot.data.episodes.hdf5_safety import named_damage
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import require_same
from ofrl_ros.description import RobotDescription

TICK, APPLIED, SPEC, SAVED = "tick", "applied_action", "spec", "episode/saved"
TYPES = {TICK: JointState, APPLIED: Joy, SPEC: String, SAVED: String}  # other topics: Image


class BagFile:
    """A bag that is open for reading.

    Args:
        path: file of the bag.

    Raises:
        DatasetError: the file is missing, has no index, or is not a readable bag.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # rosbag looks here before it generates code from the bag
        rosbag.bag._message_types.update({k._md5sum: k for k in (JointState, Joy, String, Image)})
        try:
            self._bag = rosbag.Bag(str(path), "r")
        except rosbag.ROSBagUnindexedException as error:
            raise DatasetError(
                "the bag has no index, since its recording was cut off",
                "run `rosbag reindex` on it first",
                path,
            ) from error
        except FileNotFoundError as error:
            raise DatasetError("the bag does not exist", "check the path", path) from error
        except Exception as error:  # rosbag raises nearly anything for a file that is not a bag
            text = f"{type(error).__name__}: {ascii(str(error)):.100}"
            raise DatasetError(
                f"the file is not a readable bag ({text})",
                "check it with `rosbag check`, or copy it again",
                path,
            ) from error
        self._types = self._read_types()

    def __enter__(self) -> "BagFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._bag.close()

    def robot_prefix(self, namespace: str) -> str:
        """Return the beginning that the robot's topics share, such as "/sim/".

        Args:
            namespace: of the robot; empty: the only one in the bag.

        Raises:
            DatasetError: the bag has no topic ``tick`` there.
            ConfigError: it holds several robots and ``namespace`` is empty.
        """
        if namespace:
            prefix = f"/{namespace.strip('/')}/"
            self.require([prefix + TICK])
            return prefix
        found = sorted(t[: -len(TICK)] for t in self._types if t.endswith(f"/{TICK}"))
        if not found:
            raise DatasetError(
                f"the bag has no topic tick (its topics: {', '.join(sorted(self._types)) or '-'})",
                "record the topics of docs/ros_interface.md",
                self._path,
            )
        if len(found) > 1:
            names = ", ".join(prefix.strip("/") or "/" for prefix in found)
            raise ConfigError(
                f"the bag holds several robots: {names}",
                "choose one with --namespace",
                self._path,
            )
        return found[0]

    def robot(self, prefix: str) -> RobotDescription:
        """Return the description of the robot; a robot that was started twice has two, alike.

        Raises:
            DatasetError: there is none, or it is damaged.
            SpecMismatchError: two of them differ.
        """
        self.require([prefix + SPEC])
        robots = []
        for _, message in self.messages({prefix + SPEC: String}):
            with self.damage():
                robots.append(RobotDescription.from_json(message.data))
        if not robots:
            raise DatasetError(
                f"the bag has no message on {prefix}{SPEC}", "record it too", self._path
            )
        last = robots[-1]
        for robot in robots[:-1]:
            for name in ("action_spec", "observation_spec"):
                require_same(
                    getattr(robot, name),
                    getattr(last, name),
                    str(self._path),
                    "its end",
                    "record one robot per bag",
                )
        return last

    def require(self, topics: Iterable[str]) -> None:
        """Raise DatasetError, naming them, when topics are missing."""
        missing = sorted(set(topics) - set(self._types))
        if missing:
            raise DatasetError(
                f"the bag has no topic {', '.join(missing)}",
                "an episode needs it: record it too (docs/ros_interface.md)",
                self._path,
            )

    def count(self, topics: Iterable[str]) -> int:
        """Return the number of messages on these topics."""
        return int(self._bag.get_message_count(list(topics)))

    def messages(self, types: Dict[str, type]) -> Iterator[Tuple[str, Message]]:
        """Yield (topic, message) of these topics in order of arrival.

        Args:
            types: message class by topic.

        Raises:
            DatasetError: a topic has another type, or the bag is damaged.
        """
        for topic, kind in types.items():
            found = self._types.get(topic)
            if found not in (None, (kind._type, kind._md5sum)):
                raise DatasetError(
                    f"topic {topic} is {found[0]} where {kind._type} is expected",
                    "record the topics of docs/ros_interface.md",
                    self._path,
                )
        stream = self._bag.read_messages(topics=list(types))
        while True:
            with self.damage():
                try:
                    topic, message, _ = next(stream)
                except StopIteration:
                    return
            yield topic, message

    def damage(self) -> ContextManager[None]:
        """Return a context that turns whatever damaged content raises into a DatasetError."""
        return named_damage(
            self._path,
            "the bag is damaged, or has other content than docs/ros_interface.md says",
            "check it with `rosbag check`, or copy it again",
        )

    def _read_types(self) -> Dict[str, Tuple[str, str]]:
        """Return (type, md5sum) by topic, without reading a message."""
        types: Dict[str, Tuple[str, str]] = {}

        def note(topic: str, kind: str, md5sum: str, *_: object) -> bool:
            types[topic] = (kind, md5sum)
            return False

        with self.damage():
            list(self._bag.read_messages(connection_filter=note))
        return types
