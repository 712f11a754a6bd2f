"""Fixtures that several rooms share: a robot without physics, a dataset without a robot."""

from __future__ import annotations

import os
from typing import NamedTuple

# Before anything imports torch: on a busy machine many threads are slower than one.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"

import numpy as np
import pytest

from ofrl_robot.control.health import Health, HealthLimits
from ofrl_robot.control.limiter import Limits
from ofrl_robot.control.protocols import Outcome
from ofrl_robot.control.rig import Rig
from ofrl_robot.control.signals import HUMAN, AppliedAction, ArmState, Sent, Tick
from ofrl_robot.control.timing import Timing
from ofrl_robot.specs import ActionSpec, CameraSpec, ObservationSpec

ACTION = ActionSpec(("x", "y", "z", "gripper"), ("m", "m", "m", "1"), (0.1, 0.1, 0.1, 1.0), "base")
PERIOD_NS = 200000000


def observation_spec(size: int = 24, camera: str = "front") -> ObservationSpec:
    return ObservationSpec((CameraSpec(camera, size, size),), ("a", "b"), ("m", "m"), "base")


class FakeRig(Rig):
    """A rig without physics: ``arm``, ``cameras`` and ``task`` are one :class:`FakeRobot`."""

    def __init__(self) -> None:
        robot = FakeRobot()
        super().__init__(robot, robot, robot)


class FakeFrame(NamedTuple):
    pixels: np.ndarray
    stamp_ns: int


class FakeRobot:
    """Keeps every action that reaches it; ends after ``horizon`` steps with reward 1."""

    name, horizon, control_rate_hz = "fake", 4, 5.0
    instruction, rewards_known, has_ground_truth = "do nothing", True, False
    action_spec = ACTION
    state_names, state_units, state_frame = ("a", "b"), ("m", "m"), "base"
    base_pose = None
    specs = observation_spec(4).cameras
    limits = Limits(
        "base", (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0),
        max_translation=0.12, max_rotation=10.0,
    )  # fmt: skip
    timing, health_limits = Timing(max_silence=0.6), HealthLimits()
    joint_names, relative_to_target = (), False

    def __init__(self) -> None:
        self.settings = {"gravity": 9.8}
        self.received, self.seeds, self.stops = [], [], 0
        self.position = np.zeros(3)
        self._step = 0

    # -- task
    def arrange(self, seed):
        self.seeds.append(seed)
        self._step = 0
        return ""

    def outcome(self, step):
        last = step >= self.horizon
        return Outcome(reward=float(last), truncated=last)

    def ground_truth(self):
        return {}

    # -- cameras
    def newest(self):
        pixels = np.full((4, 4, 3), self._step, np.uint8)
        return {"front": FakeFrame(pixels, self.now_ns())}

    # -- arm
    def now_ns(self):
        return (self._step + 1) * PERIOD_NS

    def state(self):
        return ArmState(self.now_ns(), np.zeros(2), self.position, np.array([0.0, 0, 0, 1]))

    def command(self, setpoint):
        self.received.append(np.array(setpoint.action))
        self._step += 1
        return Sent()

    def health(self):
        return Health()

    def rearm(self):
        pass

    def home(self):
        pass

    def stop(self):
        self.stops += 1

    def close(self):
        pass


@pytest.fixture
def fake_rig():
    return FakeRig()


@pytest.fixture
def fake_robot(fake_rig):
    """The robot in ``fake_rig``: what reached it is in its attributes."""
    return fake_rig.arm


@pytest.fixture
def make_dataset(tmp_path):
    """Function that writes ``episodes`` short random episodes through the real writer."""
    from ofrl_robot.data.episodes.schema import EpisodeMeta
    from ofrl_robot.data.episodes.writer import EpisodeWriter

    def make(name="data", episodes=6, steps=5, size=24, success=1, reward=1.0):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(0)
        for seed in range(episodes):
            meta = EpisodeMeta("fake", "nothing", ACTION, observation_spec(size), 5.0, seed=seed)
            writer = EpisodeWriter(folder, meta)
            for step in range(steps + 1):
                stamp, last = (step + 1) * PERIOD_NS, step == steps
                image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                tick = Tick(stamp, step, {"front": image}, np.zeros(2), reward * last, last)
                writer.observe(tick)
                if not last:
                    action = rng.uniform(-1, 1, ACTION.size)
                    writer.act(AppliedAction(stamp, action, action, HUMAN))
            writer.finish(success, "test")
        return folder

    return make
