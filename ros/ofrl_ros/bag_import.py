"""Write the episodes in a bag to a dataset folder."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from pathlib import Path
from typing import Callable, List, Optional

from sensor_msgs.msg import Image
from std_msgs.msg import String

from ofrl_robot.errors import DatasetError
from ofrl_robot.files import new_folder, require_new_folder
from ofrl_ros import messages
from ofrl_ros.bag_episodes import EpisodeBuilder, Saved
from ofrl_ros.bag_file import APPLIED, SAVED, TICK, TYPES, BagFile


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
            EpisodeBuilder(folder, robot, saved)
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
