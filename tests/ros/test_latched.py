"""The last message of a node that ends."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading

import pytest
import rosgraph
import rospy
from std_msgs.msg import String

from ofrl_ros.latched import deliver, reliable_publisher, wait_for_subscribers
from tests.ros.waiting import ROOT, wait_for

_COUNTER = itertools.count()


class SlowSubscriber:
    """Hears a topic, but is busy with its first message until ``go`` is set."""

    def __init__(self, topic: str) -> None:
        self.topic, self.heard = topic, []
        self.busy, self.go = threading.Event(), threading.Event()
        self._wire = rospy.Subscriber(topic, String, self._hear, tcp_nodelay=True)

    def _hear(self, message: String) -> None:
        self.heard.append(message.data)
        self.busy.set()
        self.go.wait(30)

    def stop(self) -> None:
        self.go.set()
        self._wire.unregister()


@pytest.fixture
def slow_wire(master):
    """A lasting publisher and its slow subscriber, with three messages published and one heard."""
    topic = f"/last_words_{next(_COUNTER)}"
    publisher, subscriber = reliable_publisher(topic, String), SlowSubscriber(topic)
    wait_for(publisher.get_num_connections, "the subscriber")
    for word in ("one", "two", "three"):
        publisher.publish(word)
    assert subscriber.busy.wait(30)
    yield publisher, subscriber
    subscriber.stop()


def test_a_node_ends_when_its_last_message_was_read(slow_wire):
    publisher, subscriber = slow_wire
    ending = threading.Thread(target=deliver, args=(publisher, 60.0))
    ending.start()
    ending.join(0.3)
    assert ending.is_alive() and subscriber.heard == ["one"]
    subscriber.go.set()
    ending.join(30)
    assert not ending.is_alive() and subscriber.heard == ["one", "two", "three"]


def test_a_subscriber_that_stopped_reading_is_not_waited_for_forever(slow_wire):
    publisher, subscriber = slow_wire
    deliver(publisher, timeout=0.1)
    assert subscriber.heard == ["one"]
    deliver(publisher, timeout=0.1)  # again, and with it gone: nothing to do
    subscriber.go.set()
    wait_for(lambda: len(subscriber.heard) == 3, "the rest")
    deliver(publisher)


ENDS_AT_ONCE = """
import rospy
from ofrl_ros.latched import reliable_publisher
from ofrl_ros.node import wait_connected
from std_msgs.msg import String
rospy.init_node("speaker", anonymous=True)
publisher = reliable_publisher("{}", String)
wait_connected([publisher])
for word in ("one", "two", "three"):
    publisher.publish(word)
"""


def test_a_node_is_there_until_its_last_message_was_read(master):
    subscriber = SlowSubscriber("/last_words_of_a_node")
    node = subprocess.Popen(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", ENDS_AT_ONCE.format(subscriber.topic)],
        env=dict(master, PYTHONPATH=str(ROOT / "ros")),
    )
    assert subscriber.busy.wait(30)
    reading = threading.Timer(1.0, subscriber.go.set)
    reading.start()
    assert node.wait(30) == 0 and subscriber.heard == ["one", "two", "three"]
    reading.cancel()
    subscriber.stop()


PUBLISHES_AT_ONCE = """
import rospy
from ofrl_ros.latched import reliable_publisher
from std_msgs.msg import String
rospy.init_node("speaker", anonymous=True)
publisher = reliable_publisher("{}", String)
for word in ("one", "two", "three"):
    publisher.publish(word)
"""


def test_a_subscriber_that_is_not_connected_yet_misses_nothing(master):
    """It connects after the node has advertised: 0.3 s later when this was measured."""
    subscriber = SlowSubscriber("/first_words_of_a_node")
    subscriber.go.set()
    code = PUBLISHES_AT_ONCE.format(subscriber.topic)
    environment = dict(master, PYTHONPATH=str(ROOT / "ros"))
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode == 0
    wait_for(lambda: len(subscriber.heard) >= 3, "three messages")
    assert subscriber.heard == ["one", "two", "three"]
    subscriber.stop()


def test_a_subscriber_that_was_killed_is_not_waited_for_forever(master):
    topic = f"/last_words_{next(_COUNTER)}"
    listed = rosgraph.Master("/killed")
    listed.registerSubscriber(topic, String._type, "http://127.0.0.1:1/")
    publisher = rospy.Publisher(topic, String, queue_size=1)
    wait_for_subscribers(publisher, timeout=0.1)
    listed.unregisterSubscriber(topic, "http://127.0.0.1:1/")
