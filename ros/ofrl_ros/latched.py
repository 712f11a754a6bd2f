"""Publish latched messages that arrive even when the node ends right after the last one."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
import warnings

import rospy


def reliable_publisher(topic: str, kind: type) -> rospy.Publisher:
    """Return a latched publisher whose last message is delivered before the node ends.

    rospy's own would lose it in two ways: it drops what a queue still holds, and it unregisters
    its topics first, on which a subscriber disconnects with messages unread. For rare, small
    messages: ``publish`` writes in the calling thread.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # rospy doubts that no queue is intended
        publisher = rospy.Publisher(topic, kind, queue_size=None, latch=True)
    rospy.on_shutdown(functools.partial(deliver, publisher))
    return publisher


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
