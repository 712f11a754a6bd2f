"""What every node needs of ROS: running, waiting, parameters, services, diagnostics.

Imported by the nodes from their own folder; ``messages`` holds the conversions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import queue
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import rospy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ofrl_robot.errors import ConfigError, OfrlError, RobotError
from ofrl_robot.specs import ActionSpec, ObservationSpec

QUEUE = 100  # messages a publisher may hold; an episode in lockstep never has as many in flight


def run_node(name: str, main: Callable[[], None]) -> None:
    """Run a node's main; an OfrlError becomes one line and exit code 2, never a traceback."""
    try:
        rospy.init_node(name)
        main()
    except OfrlError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except rospy.ROSInterruptException:
        pass  # Ctrl-C or roslaunch stopping us while we waited
    except rospy.exceptions.ROSInitException:
        if not rospy.is_shutdown():  # else stopped before init_node was through
            raise


def raise_on_shutdown() -> None:
    """Leave a waiting loop when the session ends; :func:`run_node` ends the node quietly."""
    if rospy.is_shutdown():
        raise rospy.ROSInterruptException("shutdown")


def service(name: str) -> Callable[[], str]:
    """A Trigger service as a function; its refusal, absence or death is a RobotError."""
    proxy = rospy.ServiceProxy(name, Trigger)

    def call() -> str:
        try:
            proxy.wait_for_service(30.0)
            answer = proxy()
        except (rospy.ROSException, rospy.ServiceException) as error:
            raise_on_shutdown()
            raise RobotError(
                f"service {proxy.resolved_name} failed ({error})",
                "see why the robot node ended",
            ) from error
        if not answer.success:
            raise RobotError(
                f"{proxy.resolved_name} refused: {answer.message}",
                "mend it and launch again",
            )
        return answer.message

    return call


# -- robot description -----------------------------------------------------------------------


@dataclasses.dataclass
class DescribedRobot:
    """What a robot says of itself to who does not command it; horizon in steps."""

    name: str
    task: str
    horizon: int
    control_rate_hz: float
    environment: Dict[str, Any]
    action_spec: ActionSpec
    observation_spec: ObservationSpec

    def to_json(self) -> str:
        return json.dumps(
            {
                "robot": self.name,
                "task": self.task,
                "horizon": self.horizon,
                "control_rate_hz": self.control_rate_hz,
                "environment": self.environment,
                "action_spec": self.action_spec.to_dict(),
                "observation_spec": self.observation_spec.to_dict(),
            }
        )

    @staticmethod
    def from_json(text: str) -> "DescribedRobot":
        spec = json.loads(text)
        return DescribedRobot(
            name=spec["robot"],
            task=spec["task"],
            horizon=spec["horizon"],
            control_rate_hz=spec["control_rate_hz"],
            environment=spec["environment"],
            action_spec=ActionSpec.from_dict(spec["action_spec"]),
            observation_spec=ObservationSpec.from_dict(spec["observation_spec"]),
        )


def publish_spec(robot: Any) -> rospy.Publisher:
    """Describe the robot in parameter ``spec``, and for bags on the latched topic ``spec``."""
    fields = [field.name for field in dataclasses.fields(DescribedRobot)]
    text = DescribedRobot(**{name: getattr(robot, name) for name in fields}).to_json()
    rospy.set_param("spec", text)
    publisher = rospy.Publisher("spec", String, queue_size=1, latch=True)
    publisher.publish(text)
    return publisher


class RemoteRobot(DescribedRobot):
    """The robot as the other nodes see it: its specs, from the parameter server.

    Raises ConfigError when no robot node has announced itself within ``timeout`` seconds.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not rospy.has_param("spec"):
            raise_on_shutdown()
            if time.monotonic() > deadline:
                raise ConfigError(
                    "no robot node announced itself on {} within {:.0f} s".format(
                        rospy.resolve_name("spec"), timeout
                    ),
                    "start the robot node in the same namespace",
                )
            time.sleep(0.05)
        super().__init__(**vars(DescribedRobot.from_json(rospy.get_param("spec"))))


# -- telling ---------------------------------------------------------------------------------


def lasting_publisher(topic: str, kind: type) -> rospy.Publisher:
    """A latched publisher whose last message arrives also when the node ends right after it.

    rospy's own would lose it in two ways: what a queue still holds is dropped, and the node takes
    back its topics first of all, on which a subscriber hangs up with messages unread. For rare,
    small messages: ``publish`` writes in the calling thread.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # rospy doubts that no queue is meant
        publisher = rospy.Publisher(topic, kind, queue_size=None, latch=True)
    rospy.on_shutdown(functools.partial(hang_up, publisher))
    return publisher


def hang_up(publisher: rospy.Publisher, timeout: float = 5.0) -> None:
    """End the connections of a :func:`lasting_publisher`, each when its subscriber has read all.

    Each is told that no more will come. A subscriber hangs up when it has read up to there, and
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
            end.recv(1)  # empty when the far end has hung up; a subscriber sends nothing


# -- hearing ---------------------------------------------------------------------------------


class Events:
    """What the callbacks heard, in order of arrival, for one thread to work on.

    Errors of that thread are the node's own: they reach :func:`run_node`, which a callback's
    would not.
    """

    def __init__(self) -> None:
        self._queue: "queue.Queue[tuple[str, Any]]" = queue.Queue()

    def put(self, kind: str, payload: Any) -> None:
        self._queue.put((kind, payload))

    def subscribe(self, topic: str, kind: type, name: str) -> rospy.Subscriber:
        """Queue every message of ``topic`` as (name, message)."""
        return rospy.Subscriber(
            topic, kind, lambda message: self.put(name, message), tcp_nodelay=True
        )

    def get(self, timeout: float) -> "tuple[Optional[str], Any]":
        """Next (kind, payload), or (None, None) after ``timeout`` s. Raises on shutdown."""
        deadline = time.monotonic() + timeout
        while True:
            raise_on_shutdown()
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=0.1)
            if time.monotonic() > deadline:
                return None, None

    def clear(self) -> None:
        """Forget what was heard before a reset."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    @property
    def waiting(self) -> bool:
        return not self._queue.empty()


def wait_connected(wires: List[Any], timeout: float = 30.0) -> None:
    """Wait until every publisher and subscriber has a peer. Raises ConfigError naming the rest."""
    deadline = time.monotonic() + timeout
    while True:
        raise_on_shutdown()
        lonely = [w.resolved_name for w in wires if w.get_num_connections() == 0]
        if not lonely:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                "nobody at the other end of {} after {:.0f} s".format(", ".join(lonely), timeout),
                "see which node did not start",
            )
        time.sleep(0.02)


# -- diagnostics -----------------------------------------------------------------------------


def status_reason(message: DiagnosticStatus) -> str:
    """Why the robot is stopped, from ``robot/status``; empty while it is armed."""
    return {pair.key: pair.value for pair in message.values}.get("reason", "")


def status_message(name: str, level: int, text: str, values: Dict[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key, str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=text, hardware_id="", values=pairs)


class Diagnostics:
    """Publishes one DiagnosticStatus on /diagnostics once a second.

    Args:
        name: of the status. describe: returns (level, text, values) when asked.
    """

    def __init__(self, name: str, describe: Callable[[], Any]) -> None:
        self._name, self._describe = name, describe
        self._publisher = rospy.Publisher("/diagnostics", DiagnosticArray, queue_size=1)
        self._timer = threading.Thread(target=self._run, daemon=True)
        self._timer.start()

    def _run(self) -> None:
        while not rospy.is_shutdown():
            level, text, values = self._describe()
            array = DiagnosticArray(status=[status_message(self._name, level, text, values)])
            array.header.stamp = rospy.Time.now()
            self._publisher.publish(array)
            time.sleep(1.0)


def seconds_param(name: str, default: float) -> float:
    """A positive private parameter in seconds. Raises ConfigError otherwise."""
    return _number_param(name, default, float, "use seconds > 0", lambda value: value > 0)


def int_param(name: str, default: int, low: int, high: Optional[int] = None) -> int:
    """A private whole number from ``low`` to ``high``. Raises ConfigError otherwise."""
    fix = "use a whole number " + (f"of {low} or more" if high is None else f"from {low} to {high}")
    return _number_param(
        name, default, int, fix, lambda value: low <= value and (high is None or value <= high)
    )


def noise_param(name: str, default: float) -> float:
    """A private number of at least 0. Raises ConfigError otherwise."""
    return _number_param(name, default, float, "use 0 or more", lambda value: value >= 0)


def bool_param(name: str, default: bool) -> bool:
    """A private true or false. Raises ConfigError otherwise: any text would count as true."""
    value = rospy.get_param("~" + name, default)
    if not isinstance(value, bool):
        full_name = rospy.resolve_name("~" + name)
        raise ConfigError(f"{full_name} is {value!r}", "use true or false")
    return value


def word_param(name: str, default: str) -> str:
    """A private parameter as text; who uses it says which words there are."""
    value = rospy.get_param("~" + name, default)
    return "off" if value is False else str(value)  # YAML, so rosrun, reads a bare off as false


def _number_param(name: str, default: Any, kind: type, fix: str, valid: Callable) -> Any:
    value = rospy.get_param("~" + name, default)
    try:
        number = kind(value)
    except (TypeError, ValueError):
        number = None
    if number is None or number != value or not valid(number):
        raise ConfigError("{} is {!r}".format(rospy.resolve_name("~" + name), value), fix)
    return number


def path_param(name: str) -> Optional[Path]:
    """Private parameter as a path, taken from where roslaunch ran; None when empty or "auto".

    roslaunch starts nodes in ~/.ros, so a relative path means nothing there by itself.
    """
    text = str(rospy.get_param("~" + name, "") or "")
    if text in ("", "auto"):  # roslaunch calls an argument with an empty default a required one
        return None
    return Path(str(rospy.get_param("~cwd", "."))) / text
