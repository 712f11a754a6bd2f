"""The robot node's promises, with faults injected by a fake actor."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import Trigger

from ofrl_robot.errors import ConfigError
from ofrl_ros import messages
from ofrl_ros.node import wait_connected
from tests.ros.waiting import wait_for

TASK = "Widow250SingleObjGrasp-v0"


class FakeActor:
    """Answers each tick with ``answer(stamp) -> [messages]``; keeps what came back."""

    def __init__(self, namespace: str, topic: str = "policy/action") -> None:
        self.namespace, self.ticks, self.applied, self.status = namespace, [], [], []
        self.answer = lambda stamp: [joy(stamp, [0.0] * 8)]
        self.publisher = rospy.Publisher(f"{namespace}/{topic}", Joy, queue_size=100)
        rospy.Subscriber(f"{namespace}/robot/status", DiagnosticStatus, self.status.append)
        rospy.Subscriber(f"{namespace}/applied_action", Joy, self.applied.append)
        rospy.Subscriber(f"{namespace}/tick", JointState, self._on_tick)

    def _on_tick(self, message: JointState) -> None:
        self.ticks.append(dict(zip(message.name, message.position)))
        for action in self.answer(message.header.stamp):
            self.publisher.publish(action)

    def call(self, service: str):
        return rospy.ServiceProxy(f"{self.namespace}/{service}", Trigger)()

    def reason(self) -> str:
        if not self.status:
            return ""
        return {p.key: p.value for p in self.status[-1].values}["reason"]


def joy(stamp, axes) -> Joy:
    message = Joy(axes=axes)
    message.header.stamp = stamp
    return message


@pytest.fixture
def actor(node):
    """A robot node in lockstep with an actor connected to it."""
    process, log = node("robot_node.py", task=TASK, action_timeout=0.3, max_silence=0.125)
    rospy.wait_for_service(f"{node.namespace}/reset", 30)
    fake = FakeActor(node.namespace)
    fake.process, fake.log = process, log
    try:
        wait_for(lambda: fake.publisher.get_num_connections() and fake.status, "the robot node")
    except BaseException:
        process.send_signal(signal.SIGABRT)  # a node that hangs says where
        process.wait(10)
        print(log.read_text())
        raise
    return fake


def test_an_episode_runs_to_its_horizon(actor):
    assert actor.call("reset").success
    wait_for(lambda: actor.ticks and actor.ticks[-1]["truncated"], "the end of the episode")
    assert [t["step"] for t in actor.ticks] == list(range(26))
    wait_for(lambda: len(actor.applied) == 25, "25 applied actions")


def test_silence_holds_then_stops_with_a_reason(actor):
    actor.answer = lambda stamp: []
    actor.call("reset")
    wait_for(lambda: actor.reason() == "actor_silent", "the stop")
    wait_for(lambda: len(actor.applied) >= 3, "the holds, on a topic of their own")
    assert len(actor.applied) == 3 and all(m.header.frame_id == "hold" for m in actor.applied)
    assert not actor.call("reset").success, "a stopped robot must refuse to move"
    actor.answer = lambda stamp: [joy(stamp, [0.0] * 8)]
    assert actor.call("rearm").success and actor.call("reset").success


def test_stop_service_ends_motion_until_rearm(actor):
    actor.answer = lambda stamp: [joy(stamp, [0.1] * 8)] if len(actor.ticks) < 5 else []
    actor.call("reset")
    wait_for(lambda: len(actor.ticks) == 5, "five ticks")
    assert actor.call("stop").success
    wait_for(lambda: actor.reason() == "operator", "the stop")
    count = len(actor.applied)
    actor.publisher.publish(joy(rospy.Time(1), [1.0] * 8))
    time.sleep(0.5)
    assert len(actor.applied) == count, "nothing may be applied after a stop"
    assert not actor.call("reset").success


def test_rearm_alone_moves_nothing(actor):
    """Also when it comes so soon after the stop that the loop never saw the arm stopped."""
    actor.answer = lambda stamp: [joy(stamp, [0.1] * 8)] if len(actor.ticks) < 5 else []
    actor.call("reset")
    wait_for(lambda: len(actor.ticks) == 5, "five ticks")
    assert actor.call("stop").success and actor.call("rearm").success
    count = len(actor.ticks)
    actor.answer = lambda stamp: [joy(stamp, [0.1] * 8)]
    time.sleep(0.7)
    assert len(actor.ticks) == count, "only a reset may start motion again"
    assert actor.call("reset").success
    wait_for(lambda: actor.ticks[-1]["truncated"], "the episode after the reset")


@pytest.mark.parametrize(
    "axes", [[float("nan")] * 8, [0.5] * 7, [], [float("inf")] + [0.0] * 7], ids=str
)
def test_unusable_actions_become_a_hold(actor, axes):
    actor.answer = lambda stamp: [joy(stamp, axes)]
    actor.call("reset")
    wait_for(lambda: len(actor.applied) >= 2, "two applied actions")
    for message in actor.applied[:2]:
        assert list(message.axes[:8]) == [0.0] * 8 and messages.applied_from(message).limited
    assert actor.process.poll() is None


def test_stale_and_future_stamps_are_ignored(actor):
    second = rospy.Duration(1)
    actor.answer = lambda stamp: [joy(stamp + second, [1.0] * 8), joy(stamp - second, [1.0] * 8)]
    actor.call("reset")
    wait_for(lambda: actor.reason() == "actor_silent", "the stop")
    assert all(list(m.axes[:8]) == [0.0] * 8 for m in actor.applied)


def test_excess_is_limited_and_both_are_published(actor):
    actor.answer = lambda stamp: [joy(stamp, [0.0, 0.0, 5.0] + [0.0] * 5)]
    actor.call("reset")
    wait_for(lambda: actor.applied, "an applied action")
    message = actor.applied[0]
    assert message.axes[2] <= 1.0 and message.axes[8 + 2] == 5.0
    assert messages.applied_from(message).reasons[0] == "range"


def test_in_real_time_ticks_and_actions_have_the_time_at_which_they_happened(node):
    node("robot_node.py", task=TASK, lockstep=False, max_silence=1.3)
    rospy.wait_for_service(f"{node.namespace}/reset", 30)
    actor = FakeActor(node.namespace)
    wait_for(lambda: actor.publisher.get_num_connections() and actor.status, "the robot node")
    begin = time.time_ns()
    actor.call("reset")
    wait_for(lambda: len(actor.applied) == 25, "the episode")
    end = time.time_ns()
    applied = [messages.applied_from(message) for message in actor.applied]
    times = [t for one in applied for t in (one.stamp_ns, one.applied_ns)]
    assert times == sorted(times) and begin < times[0] and times[-1] < end
    assert all(one.applied_ns > one.stamp_ns for one in applied)


def test_human_beats_policy_and_is_marked(actor, node):
    human = rospy.Publisher(f"{node.namespace}/teleop/action", Joy, queue_size=10)
    wait_for(human.get_num_connections, "the teleop wire")
    seen = threading.Event()

    def answer(stamp):
        human.publish(joy(stamp, [0.2] + [0.0] * 7))
        # the policy's answer to an earlier tick must not matter; its answer to this one loses
        seen.wait(0.02)
        return [joy(stamp, [-0.2] + [0.0] * 7)]

    actor.answer = answer
    actor.call("reset")
    wait_for(lambda: len(actor.applied) == 25, "the episode")
    assert all(m.header.frame_id == "human" for m in actor.applied)


def test_sigint_ends_the_node_at_once(actor):
    actor.answer = lambda stamp: []
    actor.call("reset")
    wait_for(lambda: actor.ticks, "a tick")
    os.kill(actor.process.pid, signal.SIGINT)
    wait_for(lambda: actor.process.poll() is not None, "the node to end", timeout=2.0)


def test_spec_is_announced(actor, node):
    spec = json.loads(rospy.get_param(f"{node.namespace}/spec"))
    assert spec["task"] == TASK and spec["action_spec"]["names"][6] == "gripper"


@pytest.mark.parametrize(
    "params, words",
    [
        ({"task": "Widow250SingleObjGrisp-v0"}, ["Widow250SingleObjGrasp-v0"]),
        ({"robot": "panda", "task": TASK}, ["no limits for robot 'panda'"]),
        ({"task": TASK, "action_timeout": -1}, ["action_timeout", "-1"]),
        ({"task": TASK, "settings": "{image_size: many}"}, ["image_size", "many"]),
    ],
    ids=["task", "robot", "timeout", "size"],
)
def test_bad_parameters_are_one_line_and_exit_code_2(node, params, words):
    process, log = node("robot_node.py", **params)
    assert process.wait(30) == 2
    text = log.read_text()
    assert all(word in text for word in words) and "Traceback" not in text


def test_a_topic_without_a_peer_is_named(master):
    lonely = rospy.Publisher("/nobody/listens", Joy, queue_size=1)
    with pytest.raises(ConfigError, match="/nobody/listens"):
        wait_connected([lonely], timeout=0.2)
