"""Write the episodes of a dataset to a bag that ``rosbag play`` plays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

import numpy as np
import rosbag
from genpy import Message
from std_msgs.msg import String

from ofrl_robot.control.signals import Tick
from ofrl_robot.data.convert.writing import applied_at, tick_at
from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.data.episodes.schema import LABEL_FROM_SIMULATOR
from ofrl_robot.errors import ConfigError
from ofrl_robot.files import new_file
from ofrl_ros import messages
from ofrl_ros.bag_file import APPLIED, SAVED, SPEC, TICK
from ofrl_ros.description import RobotDescription

GAP_NS = 1_000_000_000  # bag time between two episodes whose stamps do not follow each other


def export_bag(
    folder: Path,
    out: Path,
    namespace: str = "",
    compression: str = "none",
    progress: Optional[Callable[[int, int], None]] = None,
) -> int:
    """Write the episodes of ``folder`` to a bag and return their number.

    Stamps are those of the episodes. Bag time follows them from tick to tick; an episode whose
    stamps are not later than those of the episode before it is played 1 s after that.

    Args:
        folder: dataset.
        out: bag to write; it appears complete or not at all.
        namespace: of the topics; empty: the name of the robot.
        compression: "none", "bz2" or "lz4".
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: an episode cannot be read.
        OutputError: the bag exists already or cannot be written.
        ConfigError: the compression is not available.
    """
    dataset = open_dataset(folder)
    robot = _describe(dataset)
    with new_file(out) as file, _new_bag(file, compression) as bag:
        writer = _BagWriter(bag, f"/{namespace.strip('/') or robot.robot}/")
        for number, path in enumerate(dataset.paths, 1):
            episode = read_episode(path)
            if number == 1:
                writer.describe(robot, tick_at(episode, 0).stamp_ns)
            writer.write(episode, number)
            if progress is not None:
                progress(number, len(dataset.paths))
    return len(dataset.paths)


def _describe(dataset: Dataset) -> RobotDescription:
    """Return the description of the robot whose topics would show the frames of a dataset.

    Its cameras crop nothing: the frames in a dataset are cropped already.
    """
    meta, spec = dataset.metas[0], dataset.observation_spec
    cameras = tuple(dataclasses.replace(camera, crop=None) for camera in spec.cameras)
    return RobotDescription(
        robot=meta.robot,
        task=meta.task,
        instruction=meta.task,
        horizon=max(dataset.lengths),
        control_rate_hz=meta.control_rate_hz,
        environment=meta.environment,
        rewards_known=all(m.label_source == LABEL_FROM_SIMULATOR for m in dataset.metas),
        ground_truth=False,
        action_spec=meta.action_spec,
        observation_spec=dataclasses.replace(spec, cameras=cameras),
    )


def _new_bag(file: Path, compression: str) -> rosbag.Bag:
    try:
        return rosbag.Bag(str(file), "w", compression=compression)
    except ValueError as error:  # lz4 needs a Python package of its own
        raise ConfigError(
            f"compression {compression} is not available ({error})", "choose none or bz2"
        ) from error


class _BagWriter:
    """Writes episodes as messages. Bag time only increases, so readers see them in this order."""

    def __init__(self, bag: rosbag.Bag, prefix: str) -> None:
        self._bag, self._prefix = bag, prefix
        self._now = 0  # bag time of the last message, ns
        self._shift = 0  # bag time - stamp in the running episode, ns
        self._frames: Dict[str, Tuple[int, np.ndarray]] = {}  # written last: stamp and pixels

    def describe(self, robot: RobotDescription, stamp_ns: int) -> None:
        """Write the description of the robot."""
        self._put(SPEC, String(robot.to_json()), stamp_ns, latched=True)

    def write(self, episode: Episode, number: int) -> None:
        """Append an episode; ``number`` tells its ticks from those of the others."""
        first_stamp = tick_at(episode, 0).stamp_ns
        if number > 1 and first_stamp <= self._now:  # stamps of converted data may begin again
            self._shift = self._now + GAP_NS - first_stamp
        self._frames.clear()
        info = messages.TickInfo(episode.meta.seed, number)
        last = len(episode)
        for step in range(last + 1):
            tick = tick_at(episode, step)
            self._write_frames(tick)
            described = messages.tick_message(tick, episode.meta.observation_spec, info)
            self._put(TICK, described, tick.stamp_ns)
            if step < last:
                applied = applied_at(episode, step, tick)
                self._put(APPLIED, messages.applied_message(applied), applied.applied_ns)
        note = messages.saved_message(episode.meta, last, first_stamp)
        self._put(SAVED, note, tick_at(episode, last).stamp_ns, latched=True)

    def _write_frames(self, tick: Tick) -> None:
        """Write the frames that this tick is the first to show.

        Converted data may have one stamp for several frames, so pixels are compared as well.
        """
        for name, pixels in tick.images.items():
            captured = tick.image_stamps_ns.setdefault(name, tick.stamp_ns)
            before = self._frames.get(name)
            if before is None or before[0] != captured or not np.array_equal(before[1], pixels):
                image = messages.image_message(pixels, captured, name)
                self._put(messages.IMAGE_TOPIC.format(name), image, tick.stamp_ns)
                self._frames[name] = captured, pixels

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
