"""Compose an arm, its cameras and a task into ticks."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from ofrl_robot.control.protocols import Arm, Cameras, Outcome, Task
from ofrl_robot.control.signals import Tick
from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.images import prepare
from ofrl_robot.specs import ActionSpec, ObservationSpec


class Rig:
    """One source of ticks; knows nothing of who answers them.

    Args:
        arm, cameras, task: see ``protocols.py``. The rig closes the arm and the cameras.

    Raises:
        ConfigError: actions, measured poses and limits of the arm are not in one frame.
    """

    def __init__(self, arm: Arm, cameras: Cameras, task: Task) -> None:
        self.arm, self.cameras, self.task = arm, cameras, task
        frames = {
            "actions": arm.action_spec.frame,
            "measured poses": arm.state_frame,
            "limits": arm.limits.frame,
        }
        if len(set(frames.values())) > 1:
            found = ", ".join(f"{what} in {frame!r}" for what, frame in frames.items())
            raise ConfigError(
                f"arm {arm.name} has {found}", "express all three in one frame of reference"
            )
        self.observation_spec = ObservationSpec(
            tuple(cameras.specs), arm.state_names, arm.state_units, arm.state_frame
        )
        self._step = -1

    @property
    def name(self) -> str:
        """Kind of the arm."""
        return self.arm.name

    @property
    def action_spec(self) -> ActionSpec:
        """What an action is."""
        return self.arm.action_spec

    @property
    def control_rate_hz(self) -> float:
        """Ticks per second."""
        return self.arm.control_rate_hz

    @property
    def environment(self) -> Dict[str, Any]:
        """Settings of arm and task, stored with every episode."""
        return {**self.arm.settings, **self.task.settings}

    def arrange(self, seed: int) -> str:
        """Move the arm to its start pose and prepare the scene.

        Returns:
            What a person has to do and confirm before :meth:`begin`; empty when nothing.
        """
        self._step = -1
        self.arm.home()
        return self.task.arrange(seed)

    def begin(self) -> Tick:
        """Return tick 0 of the episode whose scene is arranged."""
        self._step = 0
        return self._tick(Outcome())

    def reset(self, seed: int, confirm: Optional[Callable[[str], None]] = None) -> Tick:
        """Arrange the scene, have it confirmed where a person is needed, return tick 0.

        Args:
            confirm: asks a person and returns when the scene is ready.

        Raises:
            RobotError: a person is needed and there is no ``confirm``.
        """
        request = self.arrange(seed)
        if request and confirm is None:
            raise RobotError(
                f"a person has to prepare the scene ({request})",
                "run it where a person can confirm",
                self.task.name,
            )
        if request and confirm is not None:
            confirm(request)
        return self.begin()

    def observe(self) -> Tick:
        """Return the tick after the last one; call it once after each applied action.

        Raises:
            RobotError: no episode is running.
            CameraStoppedError: a camera has no usable frame.
        """
        if self._step < 0:
            raise RobotError("no episode is running", "call reset first", self.name)
        self._step += 1
        return self._tick(self.task.outcome(self._step))

    def close(self) -> None:
        """Release the arm and the cameras."""
        try:
            self.cameras.close()
        finally:
            self.arm.close()

    def _tick(self, outcome: Outcome) -> Tick:
        stamp = self.arm.now_ns()
        state, frames = self.arm.state(), self.cameras.newest()
        images, originals = {}, {}
        for spec in self.cameras.specs:
            pixels = frames[spec.name].pixels
            if pixels is not None:
                images[spec.name] = prepare(pixels, spec)
                originals[spec.name] = pixels
        return Tick(
            stamp_ns=stamp,
            step=self._step,
            images=images,
            state=state.vector,
            reward=float(outcome.reward),
            terminated=bool(outcome.terminated),
            truncated=bool(outcome.truncated),
            image_stamps_ns={spec.name: frames[spec.name].stamp_ns for spec in self.cameras.specs},
            state_stamp_ns=state.stamp_ns,
            ground_truth=self.task.ground_truth(),
            originals=originals,
        )
