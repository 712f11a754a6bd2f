"""A session without roslaunch: its nodes as subprocesses, this process as the operator."""

from __future__ import annotations

import json
import os
import signal
import time
import types
from pathlib import Path
from typing import Any, List, Mapping

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import episode_paths
from tests.ros.waiting import wait_for

TASK = "Widow250SingleObjGrasp-v0"
NOTHING: Mapping[str, Any] = types.MappingProxyType({})


class Policy:
    """This process as the policy node: it holds still."""

    def __init__(self, namespace: str) -> None:
        identity = {"checkpoint": "a/b/step_1.safetensors", "sha256": "a", "algo": "bc", "step": 1}
        rospy.set_param(f"{namespace}/policy", json.dumps(identity))
        self._actions = rospy.Publisher(f"{namespace}/policy/action", Joy, queue_size=100)
        self._ready = rospy.Publisher(f"{namespace}/policy/ready", Bool, queue_size=1, latch=True)
        rospy.Subscriber(f"{namespace}/tick", JointState, self._answer, tcp_nodelay=True)
        self._ready.publish(True)

    def _answer(self, tick: JointState) -> None:
        action = Joy(axes=[0.0] * 8)
        action.header.stamp = tick.header.stamp
        self._actions.publish(action)


class Session:
    """Robot, teleop and recorder in a namespace of their own.

    Args:
        node: the fixture that starts nodes.
        out: dataset folder.
        episodes: how many are asked for.
        actor: "teleop", or "policy": then this process is the policy.
        robot: parameters of the robot node, in the place of the simulator's.
        recorder: further parameters of the episode node.
    """

    def __init__(
        self, node: Any, out: Path, episodes: int = 500, actor: str = "teleop",
        robot: Mapping[str, Any] = NOTHING, recorder: Mapping[str, Any] = NOTHING,
    ) -> None:  # fmt: skip
        self.namespace, self.out = node.namespace, out
        self.states: List[str] = []
        self.on_state = lambda state: None
        rospy.Subscriber(f"{self.namespace}/episode/state", DiagnosticStatus, self._hear)
        self.processes, self.logs = {}, {}
        nodes = {
            "robot": {"task": TASK, "actors": actor, **robot},
            "teleop": {"device": "scripted", "device_settings": "{noise: 0.1}"},
            "episode": {"actor": actor, "device": "scripted", "episodes": episodes, "out": out},
        }
        nodes["episode"].update(recorder)
        if actor == "policy":
            del nodes["teleop"]
            self.policy = Policy(self.namespace)
        for name, params in nodes.items():
            self.processes[name], self.logs[name] = node(f"{name}_node.py", **params)

    def _hear(self, message: DiagnosticStatus) -> None:
        self.states.append(message.message)
        self.on_state(message.message)

    @property
    def text(self) -> str:
        """Everything that the nodes have printed."""
        return "".join(log.read_text() for log in self.logs.values())

    def wait_saved(self, count: int, timeout: float = 30.0) -> None:
        wait_for(lambda: len(episode_paths(self.out)) >= count, f"{count} episodes", timeout)

    def wait_state(self, state: str) -> None:
        wait_for(lambda: self.states and self.states[-1] == state, f"state {state}")

    def call(self, service: str):
        return rospy.ServiceProxy(f"{self.namespace}/{service}", Trigger)()

    def send(self, node: str, number: int = signal.SIGKILL) -> None:
        os.kill(self.processes[node].pid, number)

    def end(self, timeout: float = 20.0) -> int:
        """Exit code of the recorder, when it ends."""
        return self.processes["episode"].wait(timeout)

    def metas(self) -> List[Any]:
        return [read_episode(path).meta for path in episode_paths(self.out)]

    def reasons(self) -> List[str]:
        """Why episodes were aborted, in order."""
        return [m.abort_reason for m in self.metas() if m.abort_reason]


def settle(seconds: float) -> None:
    """Wait in a test that shows that nothing happens."""
    time.sleep(seconds)
