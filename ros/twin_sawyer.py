#!/usr/bin/env python3
"""Twin of a Sawyer: a simulated arm that speaks the topics and services of the real one.

The vendor's own client and the driver talk to it as to the robot (docs/sawyer.md). It moves in
real time, has a table with an object to grasp, a camera, and faults that can be injected.
"""

import ofrl_ros.prelude  # noqa: F401, I001 (first: quiet Ctrl-C while the rest is imported)

import threading
import time

import rospy
from ofrl_ros.node import run_node
from ofrl_ros.params import int_param
from ofrl_ros.twin.sawyer_scene import SawyerScene
from ofrl_ros.twin.sawyer_topics import FAULTS, SawyerTopics
from ofrl_ros.twin.world import TwinFaults, TwinWorld, run_at

from ofrl_robot.sim.real_time import RealTimePhysics

STATES_HZ = 100.0
CAMERA_FPS = 25.0


def main() -> None:
    """Run the twin until shutdown."""
    scene = SawyerScene(int_param("image_size", 48, low=1, high=1024))
    physics = RealTimePhysics(scene.advance)
    faults = TwinFaults({name: () for name in FAULTS})
    topics = SawyerTopics(scene, physics.lock, faults)
    world = TwinWorld(scene, physics, str(rospy.get_param("~camera", "image")), CAMERA_FPS)
    world.start()

    def publish() -> None:
        with physics.lock:
            physics.require_alive()
            snapshot, stamp = scene.snapshot(), time.time_ns()
        topics.publish_measured(snapshot, stamp)

    try:
        run_at(STATES_HZ, publish, threading.Event())
    finally:
        world.close()
        physics.close()
        scene.close()


if __name__ == "__main__":
    run_node("twin", main)
