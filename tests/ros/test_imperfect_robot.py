"""The imperfect robot over ROS: frames come late or not at all, and everybody can tell."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import rospy
from sensor_msgs.msg import Image, JointState, Joy
from std_srvs.srv import Trigger

from ofrl_robot.sim.arm import CONTROL_PERIOD_S
from ofrl_robot.sim.realism import PRESETS
from ofrl_ros import messages
from tests.ros.waiting import wait_for

TASK = "Widow250SingleObjGrasp-v0"


def episode(namespace: str):
    """Run one episode with zero actions; ({stamp: Image}, [tick message]) as they were sent."""
    frames, ticks, published = {}, [], []
    publisher = rospy.Publisher(f"{namespace}/policy/action", Joy, queue_size=100)

    def on_frame(message: Image) -> None:
        published.append(message.header.stamp.to_nsec())
        frames[published[-1]] = message

    def on_tick(message: JointState) -> None:
        ticks.append(message)
        publisher.publish(messages.action_message(np.zeros(8), message.header.stamp.to_nsec(), ""))

    wires = [
        publisher,
        rospy.Subscriber(f"{namespace}/camera/image/image_raw", Image, on_frame),
        rospy.Subscriber(f"{namespace}/tick", JointState, on_tick),
    ]
    rospy.wait_for_service(f"{namespace}/reset", 30)
    wait_for(lambda: all(w.get_num_connections() for w in wires), "the robot node")
    assert rospy.ServiceProxy(f"{namespace}/reset", Trigger)().success
    wait_for(lambda: len(ticks) == 26, "the end of the episode")
    assert len(published) == len(frames), "no frame is sent twice"
    return frames, ticks


def test_a_frame_is_stamped_with_its_capture_and_the_tick_names_it(node):
    node("robot_node.py", task=TASK, settings="{realism: harsh}")
    frames, ticks = episode(node.namespace)
    assert (
        json.loads(rospy.get_param(f"{node.namespace}/spec"))["environment"]["realism"] == "harsh"
    )
    latency, period = PRESETS["harsh"].camera_latency, int(round(1e9 * CONTROL_PERIOD_S))
    shown = [messages.capture_stamp(tick, "image") for tick in ticks]
    wait_for(lambda: set(shown) <= set(frames), "the frames that the ticks name")
    ages = [(t.header.stamp.to_nsec() - s) / period for t, s in zip(ticks, shown)]
    assert ages[: latency + 1] == list(range(latency + 1))
    assert min(ages[latency:]) == latency, "most frames are as old as the camera is slow"
    assert set(frames) == set(shown), "a lost frame is never sent"
    assert len(frames) <= 26 - latency


def test_an_ideal_camera_sends_a_frame_with_every_tick(node):
    node("robot_node.py", task=TASK, settings="{realism: off}")  # YAML reads this off as false
    frames, ticks = episode(node.namespace)
    wait_for(lambda: len(frames) == 26, "all frames")
    assert sorted(frames) == [tick.header.stamp.to_nsec() for tick in ticks]


@pytest.mark.parametrize(
    "params, words",
    [
        ({"settings": "{realism: wild}"}, ["'wild'", "use off or mild or harsh"]),
        (
            {"settings": "{realism: 'mild,light_gradient=300'}"},
            ["light_gradient is 300", "use 0..128"],
        ),
        ({"settings": "{sim_backend: mujoco}"}, ["'mujoco'", "use embedded or roboverse"]),
        ({"settings": "{num_objects: -1}"}, ["num_objects -1", "omit it"]),
        (
            {"settings": "{roboverse_bugs: maybe}"},
            ["roboverse_bugs is 'maybe'", "use true or false"],
        ),
        pytest.param(
            {"settings": "{sim_backend: roboverse}"},
            ["roboverse"],
            marks=pytest.mark.skipif(
                importlib.util.find_spec("roboverse") is not None, reason="it is installed"
            ),
        ),
    ],
    ids=["realism", "looks", "backend", "objects", "bugs", "not-installed"],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(node, params, words):
    process, log = node("robot_node.py", task=TASK, **params)
    assert process.wait(30) == 2
    text = log.read_text()
    assert all(word in text for word in words) and len(text.strip().splitlines()) == 1, text
