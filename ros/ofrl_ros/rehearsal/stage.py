"""Start the real nodes for one fault, play the other parts, and read what reached the driver."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import cv2
import numpy as np
import rospy
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Empty
from std_srvs.srv import Trigger, TriggerResponse

from ofrl_robot.config import CONFIG
from ofrl_robot.errors import RobotError
from ofrl_robot.robots.config import load_arm_file
from ofrl_ros import messages
from ofrl_ros.diagnostics import status_reason
from ofrl_ros.watchdogs import RECORDER_HEARTBEAT

NODES = Path(__file__).resolve().parents[2]
# starts the robot node as roslaunch would, so that its parent can be killed
_PARENT = """
import subprocess, sys
node = subprocess.Popen(sys.argv[2:])
open(sys.argv[1], "w").write(str(node.pid))
sys.exit(node.wait())
"""
START_TIMEOUT = 60.0  # s for nodes to start: importing torch takes seconds
_NUMBER = itertools.count(1)


class Cast(NamedTuple):
    """Which arm is rehearsed.

    Attributes:
        arm: name of the arm inside the rehearsal arm.
        task: task id.
        settings: of the arm.
        params: further parameters of the robot node (cameras, horizon, twin).
        rate: ticks per second.
        twin: node of the arm's twin, empty for none.
        limits: name of the arm's shipped limits file; that of ``arm`` by default.
        device: teleoperation device that acts in a session.
    """

    arm: str = "sim"
    task: str = "Widow250SingleObjGrasp-v0"
    settings: Dict[str, Any] = {}
    params: Dict[str, Any] = {}
    rate: int = 10
    twin: str = ""
    limits: str = ""
    device: str = "scripted"


class DriverCall(NamedTuple):
    """A call that reached the driver: when (s since the epoch), which, and the action."""

    seconds: float
    call: str
    action: Optional[List[float]]


class Stage:
    """One robot node in real time in a namespace of its own, with an actor played by hand.

    Args:
        folder: for files of this stage.
        environment: of the nodes: the ROS master and so on.
        cast: which arm.
        with_camera: whether frames come from a camera node, which plays pictures at 20 Hz.
        master: process of the ROS master, for who wants to kill it.
    """

    def __init__(
        self,
        folder: Path,
        environment: Dict[str, str],
        cast: Cast,
        with_camera: bool = False,
        master: Optional[subprocess.Popen] = None,
    ) -> None:
        self.folder, self.cast, self.master = folder, cast, master
        self.namespace = f"/rehearsal_{next(_NUMBER)}"
        self.processes: List[subprocess.Popen] = []
        params = dict(cast.params)
        self._environment = {**environment, "ROS_NAMESPACE": self.namespace}
        folder.mkdir(parents=True, exist_ok=True)
        self.control, self.log = folder / "fault", folder / "driver.jsonl"
        settings = {
            "arm": cast.arm, "arm_settings": cast.settings,
            "control": str(self.control), "log": str(self.log),
        }  # fmt: skip
        limits = self._limits()
        self.timing = load_arm_file("rehearsal", limits).timing
        values = dict(
            robot="rehearsal", task=cast.task, rate=cast.rate, settings=json.dumps(settings),
            limits=limits, lockstep=False, **params,
        )  # fmt: skip
        self._child = folder / "robot.pid"
        script = folder / "parent.py"
        script.write_text(_PARENT)
        if cast.twin:
            self.twin = self.start(cast.twin, task=cast.task)
        if with_camera:
            values["cameras"] = self._cameras()
            self.camera = self.start("camera_node.py", cameras=values["cameras"])
        node = [sys.executable, str(NODES / "robot_node.py"), *_private(values)]
        self._robot_log = folder / f"parent.py.{len(self.processes)}.log"
        self.parent = self.start_script(script, str(self._child), *node)
        self._size = 0  # entries of an action
        self.ticks: List[JointState] = []
        self.applied: List[Joy] = []
        self.statuses: List[DiagnosticStatus] = []
        self._begun = 0.0  # calls of the driver before that are not looked at
        self.heard: Dict[str, float] = {}  # reason -> when it was first on robot/status
        self.answer: Callable[[JointState], List[Joy]] = self.small_step
        self._subscribers = [
            rospy.Subscriber(f"{self.namespace}/robot/status", DiagnosticStatus, self._on_status),
            rospy.Subscriber(f"{self.namespace}/applied_action", Joy, self.applied.append),
            rospy.Subscriber(f"{self.namespace}/tick", JointState, self._on_tick, tcp_nodelay=True),
        ]
        self._policy = self.publisher("policy/action", Joy)
        self.human = self.publisher("teleop/action", Joy)

    # -- nodes ---------------------------------------------------------------------------

    def start(self, node: str, **params: Any) -> subprocess.Popen:
        """Start a node of this package with private parameters."""
        return self.start_script(NODES / node, *_private(params))

    def start_script(self, script: Path, *arguments: str) -> subprocess.Popen:
        """Start a Python script in the namespace of the stage; its output goes to a log."""
        log = self.folder / f"{script.name}.{len(self.processes)}.log"
        words = [sys.executable, str(script), *arguments]
        with open(str(log), "wb") as out:
            process = subprocess.Popen(
                words, env=self._environment, cwd=str(self.folder), stdout=out,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.processes.append(process)
        return process

    @property
    def robot_pid(self) -> int:
        """Process id of the robot node."""
        return int(self._child.read_text())

    @property
    def robot_log(self) -> str:
        """What the robot node has printed."""
        return self._robot_log.read_text(errors="replace")

    def make_ready(self) -> None:
        """Arm the robot after an earlier fault, and forget what was heard and called."""
        self.mend()
        self.answer = self.small_step
        if self.reason():
            self.wait(lambda: self.call("rearm").success, "rearm", 15.0)
            self.wait(lambda: not self.reason(), "the status")
        for heard in (self.ticks, self.applied, self.heard):
            heard.clear()
        self._begun = time.time()

    def wait_ready(self) -> None:
        """Wait until the robot node is connected to everything that is played here."""
        self.wait(lambda: bool(self.statuses), "the robot node", START_TIMEOUT)
        self.wait(lambda: self._policy.get_num_connections() > 0, "the robot node's subscription")

    def close(self) -> None:
        """End all nodes."""
        for subscriber in self._subscribers:
            subscriber.unregister()
        with contextlib.suppress(OSError, ValueError):  # it has ended, or never started
            os.kill(self.robot_pid, signal.SIGCONT)
            os.kill(self.robot_pid, signal.SIGTERM)
        for process in self.processes:
            if process is not self.parent and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.robot_pid, signal.SIGKILL)

    # -- parts played by hand ------------------------------------------------------------

    def publisher(self, topic: str, kind: Any) -> rospy.Publisher:
        """Return a publisher in the namespace of the stage."""
        return rospy.Publisher(f"{self.namespace}/{topic}", kind, queue_size=100, tcp_nodelay=True)

    def call(self, service: str) -> TriggerResponse:
        """Call a Trigger service of the stage."""
        name = f"{self.namespace}/{service}"
        rospy.wait_for_service(name, START_TIMEOUT)
        return rospy.ServiceProxy(name, Trigger)()

    def small_step(self, tick: JointState) -> List[Joy]:
        """Answer a tick with a small step, so that a motion that goes on is seen."""
        return [self.joy(tick, [0.05])]

    def joy(self, tick: JointState, axes: List[float], later_ns: int = 0) -> Joy:
        """Return an answer to a tick; axes are filled up with zeros."""
        if not self._size:
            spec = json.loads(rospy.get_param(f"{self.namespace}/spec"))
            self._size = len(spec["action_spec"]["names"])
        axes = axes + [0.0] * (self._size - len(axes))
        stamp = tick.header.stamp.to_nsec() + later_ns
        return messages.action_message(axes, stamp, "policy")

    def _on_tick(self, tick: JointState) -> None:
        self.ticks.append(tick)
        for message in self.answer(tick):
            self._policy.publish(message)

    def _on_status(self, status: DiagnosticStatus) -> None:
        self.statuses.append(status)
        self.heard.setdefault(status_reason(status), time.time())

    @contextlib.contextmanager
    def recorder(self) -> Iterator[None]:
        """Play the recorder: a heartbeat, until the end of the block."""
        beat, done = self.publisher(RECORDER_HEARTBEAT, Empty), threading.Event()

        def run() -> None:
            while not done.wait(0.1):
                beat.publish()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            self.wait(lambda: beat.get_num_connections() > 0, "the heartbeat's subscription")
            yield
        finally:
            done.set()
            thread.join()

    # -- what happened -------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Reset, and wait until ``steps`` actions were applied."""
        before = len(self.applied)
        answer = self.call("reset")
        if not answer.success:
            raise RobotError(f"reset refused: {answer.message}")
        self.wait(lambda: len(self.applied) >= before + steps, f"{steps} steps")

    def break_with(self, fault: str) -> float:
        """Put a fault of the driver in force; return when, s since the epoch."""
        self.control.write_text(fault)
        return time.time()

    def mend(self) -> None:
        """Take the fault away."""
        self.control.write_text("")

    def calls(self) -> List[DriverCall]:
        """Return what has reached the driver so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a line that is being written
                entry = json.loads(line)
                found.append(DriverCall(entry["time"] * 1e-9, entry["call"], entry.get("action")))
        return [call for call in found if call.seconds >= self._begun]

    def first_stop(self, since: float) -> Optional[float]:
        """Return when the driver was stopped first after ``since``, or None."""
        stops = [c.seconds for c in self.calls() if c.call == "stop" and c.seconds >= since]
        return min(stops) if stops else None

    def motions(self, since: float) -> List[DriverCall]:
        """Return the commands after ``since`` that asked for a motion."""
        return [
            c for c in self.calls()
            if c.call == "command" and c.seconds > since and c.action and any(c.action)
        ]  # fmt: skip

    def reason(self) -> str:
        """Return the newest reason on ``robot/status``; empty while armed."""
        return status_reason(self.statuses[-1]) if self.statuses else ""

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = 30.0) -> None:
        """Wait until a condition holds.

        Raises:
            RobotError: it does not within ``timeout`` s.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise RobotError(f"gave up waiting for {what}", "see the logs", self.folder)
            time.sleep(0.005)

    def _limits(self) -> Path:
        """Write the arm's own limits with an effort limit, so that the guard has one to watch."""
        path = CONFIG / "robots" / f"{self.cast.limits or self.cast.arm}.yaml"
        values = yaml.safe_load(path.read_text())
        values.setdefault("efforts", {"shoulder": 1000.0})
        file = self.folder / "limits.yaml"
        file.write_text(yaml.safe_dump(values))
        return file

    def _cameras(self) -> Path:
        """Write a file of one camera that plays pictures."""
        frames = self.folder / "frames"
        frames.mkdir()
        for k in range(40):
            cv2.imwrite(str(frames / f"{k:03d}.png"), np.full((24, 32, 3), 40 + 5 * k, np.uint8))
        camera = {"name": "front", "source": "images", "path": "frames", "fps": 20,
                  "loop": True, "height": 24, "width": 32,
                  "observation": {"height": 12, "width": 12}}  # fmt: skip
        file = self.folder / "cameras.yaml"
        file.write_text(yaml.safe_dump({"cameras": [camera]}))
        return file


def _private(params: Dict[str, Any]) -> List[str]:
    return [f"_{name}:={value}" for name, value in params.items()]


def ros_environment(port: int, home: Path) -> Dict[str, str]:
    """Return the environment of processes that speak to the master on ``port``."""
    return dict(
        os.environ,
        ROS_MASTER_URI=f"http://127.0.0.1:{port}",
        ROS_IP="127.0.0.1",
        ROS_HOME=str(home),
        ROS_LOG_DIR=str(home / "log"),
    )
