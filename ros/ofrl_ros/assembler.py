"""Put the messages of a tick together again; they travel on several topics."""

from __future__ import annotations

import collections
import threading
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np
import rospy
from sensor_msgs.msg import Image, JointState

from ofrl_robot.control.signals import Tick
from ofrl_robot.images import prepare
from ofrl_robot.specs import ObservationSpec
from ofrl_ros import messages
from ofrl_ros.events import Events
from ofrl_ros.node import QUEUE
from ofrl_ros.speakers import Speaker

IMAGE_BUFFER = 2**24  # bytes; rospy's default of 64 KiB makes images stale (0.6 s measured)
Parts = Dict[str, Any]  # messages of one tick: "tick", "ground_truth", and one per camera


class TickAssembler:
    """Waits until all messages of a tick are there, live or from a bag.

    An image is stamped with its capture: a tick may show one that came with an earlier tick.
    Complete ticks are queued in ``events`` as ("tick", parts), for :meth:`assemble`.

    Args:
        spec: which cameras and state entries belong to a tick.
        ground_truth: also wait for the simulator's ground truth.
    """

    def __init__(self, spec: ObservationSpec, events: Events, ground_truth: bool = False) -> None:
        self._spec, self._events = spec, events
        self._wanted = {"tick", "ground_truth"} if ground_truth else {"tick"}
        # both by stamp, oldest first
        self._parts: "collections.OrderedDict[int, Parts]" = collections.OrderedDict()
        self._frames: "Dict[str, collections.OrderedDict[int, Image]]" = {
            c.name: collections.OrderedDict() for c in spec.cameras
        }
        self._lock = threading.Lock()

    def subscribe(self, node: str, camera_nodes: Mapping[str, str]) -> Dict[str, Speaker]:
        """Subscribe to the topics of a tick; return the subscriptions by part.

        Args:
            node: name of the robot node; what others publish is refused.
            camera_nodes: node that publishes the frames, by camera; ``node`` where it is absent.
        """
        topics = {messages.IMAGE_TOPIC.format(c.name): c.name for c in self._spec.cameras}
        topics.update({name: name for name in sorted(self._wanted)})
        return {
            part: Speaker(
                topic,
                JointState if part in self._wanted else Image,
                lambda message, part=part: self._take_usable(message, part),
                node=camera_nodes.get(part, node),
                buff_size=IMAGE_BUFFER,
            )
            for topic, part in topics.items()
        }

    def _take_usable(self, message: Any, part: str) -> None:
        """Take a message, or say that it is not what it should be."""
        try:
            if part == "tick":
                messages.require_tick(message, self._spec)
            self.take(message, part)
        except (KeyError, ValueError, OverflowError) as error:
            rospy.logwarn_throttle(5.0, "unusable message of %s ignored (%s)", part, error)

    def take(self, message: Any, part: str) -> None:
        """Take one message: part is "tick", "ground_truth" or the name of a camera."""
        stamp = message.header.stamp.to_nsec()
        with self._lock:
            if part in self._frames:
                self._frames[part][stamp] = message
            else:
                self._parts.setdefault(stamp, {})[part] = message
            for pending in list(self._parts):
                self._complete(pending)
            for kept in (self._parts, *self._frames.values()):
                while len(kept) > QUEUE:  # the other messages of their ticks were lost
                    kept.popitem(last=False)

    def _complete(self, stamp: int) -> None:
        """Queue the tick of that stamp if all of it is there."""
        parts = self._parts[stamp]
        if not self._wanted <= set(parts):
            return
        shown = {name: messages.capture_stamp(parts["tick"], name) for name in self._frames}
        if not all(shown[name] in frames for name, frames in self._frames.items()):
            return
        for name, frames in self._frames.items():
            parts[name] = frames[shown[name]]
            while next(iter(frames)) < shown[name]:  # the next tick shows this one or a newer one
                frames.popitem(last=False)
        del self._parts[stamp]
        self._events.put("tick", parts)

    def awaited_cameras(self) -> List[str]:
        """Return the cameras whose frame the oldest otherwise complete tick waits for."""
        with self._lock:
            for parts in self._parts.values():
                if self._wanted <= set(parts):
                    return [
                        name
                        for name, frames in self._frames.items()
                        if messages.capture_stamp(parts["tick"], name) not in frames
                    ]
        return []

    def assemble(self, parts: Parts) -> Tuple[Tick, messages.TickInfo]:
        """Return the tick of complete parts, and to which episode it belongs.

        Raises:
            ConfigError: an image cannot be used.
        """
        message = parts["tick"]
        values = messages.values_of(message)
        truth: Dict[str, List[float]] = {}
        for name, value in messages.values_of(parts.get("ground_truth", JointState())).items():
            truth.setdefault(name.rsplit("/", 1)[0], []).append(value)
        originals = {c.name: messages.image_pixels(parts[c.name]) for c in self._spec.cameras}
        tick = Tick(
            stamp_ns=message.header.stamp.to_nsec(),
            step=int(values["step"]),
            images={c.name: prepare(originals[c.name], c) for c in self._spec.cameras},
            state=np.array([values[name] for name in self._spec.state_names]),
            reward=values["reward"],
            terminated=bool(values["terminated"]),
            truncated=bool(values["truncated"]),
            image_stamps_ns={
                c.name: parts[c.name].header.stamp.to_nsec() for c in self._spec.cameras
            },
            ground_truth={name: np.array(entries) for name, entries in truth.items()},
            state_stamp_ns=messages.state_stamp(message),
            originals=originals,
        )
        return tick, messages.TickInfo(int(values["seed"]), int(values["episode"]))
