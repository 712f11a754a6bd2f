"""Listen to one node per topic; what another node publishes there is refused, and said."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Set, Type

import rospy


class Speaker:
    """A subscription that listens to one node only.

    Anybody can publish on any ROS topic. A second publisher of actions would drive the arm, and a
    second publisher of ticks, applied actions or images would be recorded as the truth.

    Args:
        topic: name of the topic.
        kind: message class.
        callback: called with each message of the right node.
        node: its name; empty for the first that speaks, until it is gone.
        **options: of ``rospy.Subscriber``.

    Attributes:
        refused: nodes that spoke here and were not listened to.
    """

    def __init__(
        self,
        topic: str,
        kind: Type[Any],
        callback: Callable[[Any], None],
        node: str = "",
        **options: Any,
    ) -> None:
        self.refused: Set[str] = set()
        self._callback, self._expected, self._node = callback, node, node
        self._was_connected = False
        self._lock = threading.Lock()
        self._subscriber = rospy.Subscriber(
            topic, kind, self._take, **{"tcp_nodelay": True, **options}
        )

    @property
    def resolved_name(self) -> str:
        """Full name of the topic."""
        return str(self._subscriber.resolved_name)

    @property
    def node(self) -> str:
        """Name of the node that is listened to; empty while none has spoken."""
        return self._node

    def get_num_connections(self) -> int:
        """Return the number of connected publishers, as rospy's subscribers do."""
        return int(self._subscriber.get_num_connections())

    def gone(self) -> bool:
        """Return whether the node that is listened to was connected and is not any more."""
        connected = self._node in self._connected_nodes()
        self._was_connected = self._was_connected or connected
        return self._was_connected and not connected

    def unregister(self) -> None:
        """Stop listening."""
        self._subscriber.unregister()

    def _take(self, message: Any) -> None:
        caller = message._connection_header["callerid"]
        if self._is_ours(caller):
            self._callback(message)

    def _is_ours(self, caller: str) -> bool:
        with self._lock:
            if not self._node:
                self._node = caller
            if caller == self._node:
                return True
            if not self._expected and self._node not in self._connected_nodes():
                self._node = caller  # the first one is gone
                return True
            if caller not in self.refused:
                self.refused.add(caller)
                rospy.logwarn(
                    "%s: ignoring node %s, since %s speaks here", self.resolved_name, caller,
                    self._node,
                )  # fmt: skip
            return False

    def _connected_nodes(self) -> List[str]:
        implementation = self._subscriber.impl
        connections = implementation.connections if implementation else []
        return [c.callerid_pub for c in list(connections) if c.socket is not None]


def refused_nodes(speakers: Dict[str, Speaker]) -> Dict[str, str]:
    """Return the nodes that were refused, by topic, for diagnostics."""
    return {t: ", ".join(sorted(s.refused)) for t, s in speakers.items() if s.refused}
