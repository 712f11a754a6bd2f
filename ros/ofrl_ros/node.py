"""Run a node: errors as one line, waiting that ends with the session, services as functions."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from http.client import HTTPException
from typing import Any, Callable, List, NoReturn, Optional, TextIO

import rospy
from std_srvs.srv import Trigger, TriggerResponse

from ofrl_robot.errors import ConfigError, OfrlError, RobotError
from ofrl_robot.sessions import session_log
from ofrl_ros.launch_arguments import require_known_arguments
from ofrl_ros.session_watch import end_if_lost, require_free_name, watch_session

MASTER_PATIENCE = 5.0  # s for the session watch to find out that the master is gone
SHUTDOWN_PATIENCE = 10.0  # s for rospy to shut down: it delivers the last messages
QUEUE = 100  # messages a publisher may hold; an episode in lockstep never has as many in flight


class _Output:
    """A text stream that drops what nobody can read.

    When the terminal or the reader of a pipe is gone, a print raises, and so does ``rospy.logwarn``
    (measured: BrokenPipeError out of the stop of an arm). The session must end well all the same.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be written."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run_node(name: str, main: Callable[[], None]) -> None:
    """Run a node's main; an OfrlError becomes one line and exit code 2, never a traceback."""
    sys.stdout, sys.stderr = _Output(sys.stdout), _Output(sys.stderr)  # type: ignore[assignment]
    shutdown: Optional[threading.Thread] = None
    try:
        require_free_name(rospy.resolve_name(name))
        rospy.init_node(name)
        shutdown = _shut_down_in_a_thread()
        require_known_arguments()
        watch_session()
        main()
    except OfrlError as error:
        _end_with(f"{name}: {error}")
    except (OSError, HTTPException) as error:
        lost = watch_session().find_loss()
        if not lost:
            raise
        _end_with(f"{name}: {lost} ({error})")
    except rospy.ROSInterruptException:
        pass  # Ctrl-C, or roslaunch stopped the node while it waited
    except rospy.exceptions.ROSInitException:
        if not rospy.is_shutdown():  # else stopped before init_node had finished
            raise
    finally:
        end_if_lost()
        if shutdown is not None and rospy.core.is_shutdown_requested():
            shutdown.join(SHUTDOWN_PATIENCE)


def _end_with(text: str) -> NoReturn:
    """Say why the node ends; whoever started the session prints it, or else this does."""
    if not session_log.note(error=text):
        print(text, file=sys.stderr, flush=True)
    sys.exit(2)


def _shut_down_in_a_thread() -> threading.Thread:
    """Replace rospy's signal handlers; return the thread that shuts down when a signal has come.

    rospy closes its topics in the handler, that is in the middle of whatever the main thread does.
    In the middle of a ``publish`` that waits for a lock of the main thread's own, for ever (1 of 7
    Ctrl-C of a robot node): the node was killed after 15 s, and its driver never closed.
    """
    waiting, wake = os.pipe()

    def shut_down() -> None:
        os.read(waiting, 1)
        rospy.signal_shutdown("signal")

    thread = threading.Thread(target=shut_down, name="shutdown", daemon=True)
    thread.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: os.write(wake, b"x"))
    return thread


def set_param(name: str, value: Any) -> None:
    """Set a parameter.

    Raises:
        ROSInterruptException: the session ends, since its master is gone.
        RobotError: the master does not answer.
    """
    try:
        rospy.set_param(name, value)
    except (OSError, HTTPException) as error:
        deadline = time.monotonic() + MASTER_PATIENCE
        while time.monotonic() < deadline:
            raise_on_shutdown()
            time.sleep(0.02)
        raise RobotError(f"the ROS master does not answer ({error})", "see why it ended") from error


def trigger_service(name: str, answer: Callable[[], TriggerResponse]) -> rospy.Service:
    """Offer a Trigger service that calls ``answer``."""
    return rospy.Service(name, Trigger, lambda _request: answer())


def raise_on_shutdown() -> None:
    """Raise ROSInterruptException when the session ends; :func:`run_node` then ends the node."""
    if rospy.core.is_shutdown_requested():
        raise rospy.ROSInterruptException("shutdown")


def service(name: str) -> Callable[[], str]:
    """Return a Trigger service as a function that returns the answer's message.

    The call waits for the answer without a limit, since a reset on a real arm waits for a person,
    but ends when the session does.

    Raises (when called):
        RobotError: the service refuses, or its node is absent or dies.
    """
    proxy = rospy.ServiceProxy(name, Trigger)

    def call() -> str:
        try:
            proxy.wait_for_service(30.0)
            answer = _interruptible(proxy)
        except (rospy.ROSException, rospy.ServiceException) as error:
            raise_on_shutdown()
            raise RobotError(
                f"service {proxy.resolved_name} failed ({error})", "see why the robot node ended"
            ) from error
        if not answer.success:
            raise RobotError(
                f"{proxy.resolved_name} refused: {answer.message}", "fix that and launch again"
            )
        return answer.message

    return call


def _interruptible(call: Callable[[], Any]) -> Any:
    """Return what ``call`` returns, or raise ROSInterruptException once the session ends."""
    results: List[Any] = []
    errors: List[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised again in the calling thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        raise_on_shutdown()
    if errors:
        raise errors[0]
    return results[0]


def wait_connected(connections: List[Any], timeout: float = 30.0) -> None:
    """Wait until every publisher and subscriber has a peer.

    Raises:
        ConfigError: after ``timeout`` seconds; names the topics without a peer.
    """
    deadline = time.monotonic() + timeout
    while True:
        raise_on_shutdown()
        alone = [c.resolved_name for c in connections if c.get_num_connections() == 0]
        if not alone:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{', '.join(alone)} has no node at the other end after {timeout:.0f} s",
                "see which node did not start",
            )
        time.sleep(0.02)
