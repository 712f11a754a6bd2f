"""End a node whose session is gone: its master, or the roslaunch that started it.

``kill -9`` of roslaunch leaves its nodes running, unattended. Every node watches by itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Callable, List, Optional
from xmlrpc.client import ServerProxy, Transport

import rosgraph
import rospy

from ofrl_robot.errors import ConfigError
from ofrl_robot.sessions import session_log

PERIOD = 0.25  # s between two looks
MASTER_TIMEOUT = 1.0  # s for an answer of the master
MASTER_TRIES = 3  # unanswered calls in a row after which it is gone
PARENT_GONE = "the process that started this node is gone"
MASTER_GONE = "the ROS master is gone"
PATIENCE = 10.0  # s for the node to end by itself, then it is ended


class _Timeout(Transport):
    def make_connection(self, host):  # type: ignore[no-untyped-def]
        connection = super().make_connection(host)
        connection.timeout = MASTER_TIMEOUT
        return connection


class SessionWatch:
    """Watches the master and the parent process in a thread of its own.

    Attributes:
        lost: what is gone, for people; empty while all is there.
    """

    def __init__(self) -> None:
        self.lost = ""
        self._parent = os.getppid()
        self._callbacks: List[Callable[[str], None]] = []
        self._uri = rosgraph.get_master_uri()
        threading.Thread(target=self._run, name="session_watch", daemon=True).start()

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with what is gone, before the node shuts down."""
        self._callbacks.append(callback)

    def find_loss(self) -> str:
        """Return what is gone; looks at once, also at what has not been missed yet.

        The other nodes look too, so one of them may have ended first; and when roslaunch ends a
        session because its master died, nodes hear of the end before they miss the master.
        """
        if not self.lost and os.getppid() != self._parent:
            return PARENT_GONE
        if not self.lost and not any(self._master_answers() for _ in range(MASTER_TRIES)):
            return MASTER_GONE
        return self.lost

    def _run(self) -> None:
        failures = 0
        while not rospy.is_shutdown():
            if os.getppid() != self._parent:
                self._end(PARENT_GONE)
                return
            failures = 0 if self._master_answers() else failures + 1
            if failures == MASTER_TRIES:
                self._end(MASTER_GONE)
                return
            time.sleep(PERIOD)

    def _master_answers(self) -> bool:
        try:
            with ServerProxy(self._uri, transport=_Timeout()) as master:
                return bool(master.getPid(rospy.get_name())[0] == 1)
        except Exception:  # any failure to answer is one: refused, timed out, garbled
            return False

    def _end(self, lost: str) -> None:
        if rospy.is_shutdown():
            return
        self.lost = lost
        session_log.note(error=lost)
        for callback in self._callbacks:
            callback(lost)
        rospy.logerr("%s; ending", lost)
        rospy.signal_shutdown(lost)
        threading.Event().wait(PATIENCE)
        # rospy may wait for a master that is gone, for ever (measured: SIGKILL was needed)
        os._exit(2)


_watch: Optional[SessionWatch] = None


def watch_session() -> SessionWatch:
    """Return the watch of this node; the first call starts it, after ``rospy.init_node``."""
    global _watch
    if _watch is None:
        _watch = SessionWatch()
    return _watch


def end_if_lost() -> None:
    """End the process at once, with exit code 2, when its session is gone; else do nothing."""
    if _watch is not None and _watch.lost:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)


def require_free_name(name: str) -> None:
    """Refuse to start a node while another of the same name is alive.

    ROS would end the other one: a second launch in the namespace took the first session's arm.

    Args:
        name: of the node, resolved.

    Raises:
        ConfigError: a node of that name answers.
    """
    try:
        uri = rosgraph.Master("/ofrl").lookupNode(name)
    except (rosgraph.MasterException, OSError):
        return  # unknown, or no master: init_node waits for one and says so
    try:
        with ServerProxy(uri, transport=_Timeout()) as other:
            pid = other.getPid("/ofrl")[2]
    except Exception:  # it was killed and is still listed
        return
    if pid != os.getpid():
        raise ConfigError(
            f"another session runs here already: node {name} is alive (process {pid})",
            "end that session, or use another master (roslaunch -p PORT)",
        )
