"""Publish latched messages that arrive even when the node ends right after the last one."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
import warnings
from typing import Set

import rosgraph
import rospy

from ofrl_ros.node import raise_on_shutdown


def reliable_publisher(topic: str, kind: type) -> rospy.Publisher:
    """Return a latched publisher that loses no message, from its first to the end of the node.

    rospy's own loses messages in three ways. A subscriber connects about 0.3 s after the topic is
    advertised (rosmaster looks for work every 0.1 s), and gets of earlier messages only the newest,
    or none if the node has ended. At the end rospy drops what a queue still holds, and unregisters
    its topics first, on which a subscriber disconnects with messages unread. So this waits until
    the subscribers that exist are connected. For rare, small messages: ``publish`` writes in the
    calling thread.

    Raises:
        ROSInterruptException: the session ends.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # rospy doubts that no queue is intended
        publisher = rospy.Publisher(topic, kind, queue_size=None, latch=True)
    wait_for_subscribers(publisher)
    rospy.on_shutdown(functools.partial(deliver, publisher))
    return publisher


def wait_for_subscribers(publisher: rospy.Publisher, timeout: float = 5.0) -> None:
    """Wait until every node that the master lists as a subscriber is connected.

    After ``timeout`` s it warns and returns: a node that was killed stays on the list.

    Raises:
        ROSInterruptException: the session ends.
    """
    topic = publisher.resolved_name
    master = rosgraph.Master(rospy.get_name())
    deadline = time.monotonic() + timeout
    while True:
        raise_on_shutdown()
        connected = {connection.endpoint_id for connection in publisher.impl.connections}
        missing = _listed_subscribers(master, topic) - connected
        if not missing:
            return
        if time.monotonic() > deadline:
            rospy.logwarn(
                f"{', '.join(sorted(missing))} subscribed to {topic} but is not connected after "
                f"{timeout:.0f} s; `rosnode cleanup` removes nodes that were killed"
            )
            return
        time.sleep(0.02)


def _listed_subscribers(master: rosgraph.Master, topic: str) -> Set[str]:
    _, subscribers, _ = master.getSystemState()
    return set(dict(subscribers).get(topic, ()))


def deliver(publisher: rospy.Publisher, timeout: float = 5.0) -> None:
    """End the connections of a :func:`reliable_publisher`, each when its subscriber read all.

    Each connection is half-closed. A subscriber disconnects when it has read up to there, and
    that is waited for: ``timeout`` s for all of them, since one may have stopped reading.
    """
    ends = [c.socket for c in publisher.impl.connections if c.socket is not None]
    for end in ends:
        with contextlib.suppress(OSError):  # gone already
            end.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + timeout
    for end in ends:
        with contextlib.suppress(OSError):  # it stopped reading, or was cut off
            end.settimeout(max(deadline - time.monotonic(), 0.001))
            end.recv(1)  # empty when the far end has disconnected; a subscriber sends nothing
