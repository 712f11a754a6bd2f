"""A twin's topics, and the rig that is composed of them: camera, task, faults."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

pytest.importorskip("rospy", reason="ROS 1 is not installed")

import rospy
from std_srvs.srv import Trigger

from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.sim.real_time import RealTimePhysics
from ofrl_robot.specs import CameraSpec
from ofrl_ros.topic_cameras import TopicCameras
from ofrl_ros.twin.task import TwinTask
from ofrl_ros.twin.world import TwinFaults, TwinWorld, run_at
from tests.ros.waiting import wait_for


class StubScene:
    """An object whose place is its seed; seed 13 does not fit."""

    def __init__(self):
        self.seed, self.succeeds, self.frames, self.arranged_ns = -1, False, 0, 0

    def arrange(self, seed):
        if seed == 13:
            raise ConfigError("no free place", "choose another seed")
        self.seed, self.arranged_ns = seed, time.time_ns()

    def image(self):
        self.frames += 1
        return np.full((4, 4, 3), self.frames % 256, np.uint8)

    def ground_truth(self):
        return {"object_position": np.array([float(self.seed), 0.0, 0.5])}

    def success(self):
        return self.succeeds


@pytest.fixture
def scene(master):
    built = StubScene()
    physics = RealTimePhysics(lambda substeps: None)
    world = TwinWorld(built, physics, "image", 25.0)
    world.start()
    yield built
    world.close()
    physics.close()


def test_a_task_arranges_and_tells_through_the_topics(scene):
    task = TwinTask("grasp", 3, "grasp it")
    assert task.arrange(7) == "" and scene.seed == 7
    assert task.ground_truth()["object_position"].tolist() == [7.0, 0.0, 0.5]
    assert set(task.ground_truth()) == {"object_position"}, "no bookkeeping for the policies"
    assert task.outcome(1).reward == 0.0 and not task.outcome(2).truncated
    scene.succeeds = True
    wait_for(lambda: task.outcome(1).reward == 1.0, "the success")
    assert task.outcome(3).truncated and not task.outcome(3).terminated


def test_the_first_tick_shows_the_new_scene(scene):
    cameras = TopicCameras([CameraSpec("image", 4, 4)])
    task = TwinTask("grasp", 3)
    for seed in range(20, 30):
        asked = time.time_ns()
        task.arrange(seed)
        assert scene.arranged_ns > asked
        assert cameras.newest()["image"].stamp_ns > scene.arranged_ns
    cameras.close()


def test_a_scene_that_cannot_be_arranged_is_an_error(scene):
    with pytest.raises(RobotError, match="no free place"):
        TwinTask("grasp", 3).arrange(13)


def test_a_silent_twin_is_not_believed(scene, monkeypatch):
    task = TwinTask("grasp", 3)
    task.arrange(1)
    monkeypatch.setattr("ofrl_ros.twin.task.MAX_AGE", -1.0)
    with pytest.raises(RobotError, match="nothing on .*twin/ground_truth"):
        task.outcome(1)


def test_its_frames_are_those_of_a_camera_node(scene):
    cameras = TopicCameras([CameraSpec("image", 4, 4)], max_ages={"image": 1.0})
    first = cameras.newest()["image"].stamp_ns
    wait_for(lambda: cameras.newest()["image"].stamp_ns > first, "a newer frame")
    cameras.close()


def test_faults_are_injected_through_a_service(master):
    faults = TwinFaults({"hot": ("elbow",), "silent": ()})
    call = rospy.ServiceProxy("twin/fault", Trigger)
    for text, accepted in (("hot:elbow", True), ("hot:nose", False), ("silent", True)):
        rospy.set_param("twin/next_fault", text)
        assert call().success is accepted
    assert faults.detail("hot") == "elbow" and "silent" in faults
    rospy.set_param("twin/next_fault", "none")
    assert call().success and "hot" not in faults
    faults.close()


def test_a_horizon_must_be_given():
    with pytest.raises(ConfigError, match="horizon is 0"):
        TwinTask("grasp", 0)


def test_a_late_job_is_not_made_up_for(monkeypatch):
    closed, times = threading.Event(), []
    clock = iter([0.0, 0.0, 5.0, 5.0, 5.0, 5.05])
    monkeypatch.setattr("ofrl_ros.twin.world.time.monotonic", lambda: next(clock))

    def job():
        times.append(len(times))
        if len(times) == 2:
            closed.set()

    run_at(10.0, job, closed)
    assert times == [0, 1]
