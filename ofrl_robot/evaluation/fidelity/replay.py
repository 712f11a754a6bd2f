"""Replay a recorded episode: feed its actions to the embedded simulator and compare."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

import numpy as np

from ofrl_robot.errors import SpecMismatchError
from ofrl_robot.sim.simulation import EmbeddedSimulation
from ofrl_robot.sim.tasks.base import is_grasped

START_TOLERANCE_M = 0.02  # farther away the recording begins in another scene
OPENING_TOLERANCE = 0.2  # the same place is restored; a larger difference is another scene
# Motion of an object or a drawer that shows that the recorded arm has touched it.
OBJECT_MOVED_M = 1e-3
DRAWER_MOVED_M = 5e-4
# An object held from the start swings by up to 8 mm and falls by 9 cm when it is released.
HELD_MOVED_M = 0.02
DRAWERS = ("drawer", "drawer_top")
# Info keys that differ between scenes.
SCENE_KEYS = ("place_success", "drawer_x_pos", "drawer_top_x_pos", "button_pressed_percentage")


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recorded episode of T steps, float64, m, world axes.

    Attributes:
        actions: (T, 8) within [-1, 1], finite.
        ee_positions: (T+1, 3) of the end effector, the first before any action.
        object_positions: (T+1, 3) of the target object.
        object_orientation: (4,) xyzw of the target object at the start.
        rewards: (T,); above 0 is success.
        infos: (T,) each, roboverse's numeric info entries after each step, by name; empty when
            none were recorded.
        images: (T+1, S, S, 3) uint8 RGB of the camera, None when none were recorded.
    """

    actions: np.ndarray
    ee_positions: np.ndarray
    object_positions: np.ndarray
    object_orientation: np.ndarray
    rewards: np.ndarray
    infos: Dict[str, np.ndarray]
    images: Optional[np.ndarray] = None

    @property
    def held_at_start(self) -> bool:
        """Whether the target object begins in the gripper."""
        return is_grasped(self.object_positions[0], self.ee_positions[0])


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of an episode.

    Attributes:
        success: the task's condition at the last step.
        success_any: the task's condition at any step.
        drawer_opened: whether the drawer counts as opened at the last step; None without one.
        drawer_opening: how far it is open then, as a fraction of its travel; None without one.
    """

    success: bool
    success_any: bool
    drawer_opened: Optional[bool]
    drawer_opening: Optional[float]


@dataclasses.dataclass(frozen=True)
class Replay:
    """The comparison of one episode with its recording.

    Attributes:
        errors_mm: (T,) distance between the end effectors after each step, mm.
        free_steps: steps before the one in which the arm first touched anything but the table,
            in the recording or in the replay. An object held from the start does not count
            until it leaves the fingers.
        recorded: the end of the recording.
        replayed: the end of the replay.
        pixel_errors: (T+1,) mean absolute difference of the frames before and after each step,
            of 255, over all pixels and colours; empty when no images were recorded.
        frames: (2, 3, S, S, 3) uint8, the recorded and the rendered frames at the start, in the
            middle and at the end; None when no images were recorded.
    """

    errors_mm: np.ndarray
    free_steps: int
    recorded: Outcome
    replayed: Outcome
    pixel_errors: np.ndarray
    frames: Optional[np.ndarray]


def replay(
    simulation: EmbeddedSimulation, recording: Recording, rng: np.random.Generator
) -> Replay:
    """Carry out the recorded actions from the recorded start.

    Args:
        rng: places the objects whose place is not recorded, such as a bottle.

    Raises:
        SpecMismatchError: the recording begins in another scene than the simulator's task.
        ConfigError: the task's objects do not fit.
    """
    simulation.reset(rng)
    simulation.restore(_first_state(recording))
    _require_same_start(simulation, recording)
    key = simulation.task.success_key
    positions, successes = [], []
    rendered = _Rendered(simulation, recording.images)
    free_steps = _recorded_free_steps(recording)
    for step, action in enumerate(recording.actions):
        simulation.step(action)
        rendered.compare()
        positions.append(simulation.state()[:3])
        successes.append(bool(simulation.info()[key]))
        if step < free_steps and not recording.held_at_start and simulation.touching():
            free_steps = step
    errors = np.linalg.norm(np.array(positions) - recording.ee_positions[1:], axis=1)
    rewarded = recording.rewards > 0.0
    return Replay(
        errors_mm=1e3 * errors,
        free_steps=free_steps,
        recorded=_outcome(rewarded, {k: v[-1] for k, v in recording.infos.items()}),
        replayed=_outcome(np.array(successes), simulation.info()),
        pixel_errors=np.array(rendered.errors),
        frames=rendered.frames(),
    )


class _Rendered:
    """The frames of a replay, compared as they come with the recorded ones, if there are any."""

    def __init__(self, simulation: EmbeddedSimulation, recorded: Optional[np.ndarray]) -> None:
        self._simulation = simulation
        self._recorded = recorded
        self._pairs: List[np.ndarray] = []
        self.errors: List[float] = []
        self.compare()

    def compare(self) -> None:
        """Render the scene as it is now and note how far it is from the next recorded frame."""
        if self._recorded is None:
            return
        step, last = len(self.errors), len(self._recorded) - 1
        recorded = self._recorded[step]
        image = self._simulation.image(len(recorded))
        self.errors.append(float(np.abs(image.astype(np.int16) - recorded).mean()))
        self._pairs += [np.array([recorded, image])] * (0, last // 2, last).count(step)

    def frames(self) -> Optional[np.ndarray]:
        """Return what ``Replay.frames`` holds."""
        return None if self._recorded is None else np.stack(self._pairs, axis=1)


def _first_state(recording: Recording) -> Dict[str, Any]:
    """Return the state before the first action, as ``EmbeddedSimulation.restore`` takes it."""
    first: Dict[str, Any] = {
        "object_position": recording.object_positions[0],
        "object_orientation": recording.object_orientation,
    }
    infos = recording.infos
    for name in DRAWERS:
        if f"{name}_x_pos" in infos:
            # Infos are recorded after an action; no arm reaches a drawer within one step.
            first[f"{name}_x_pos"] = float(infos[f"{name}_x_pos"][0])
    travel = _drawer_travel(infos)
    if travel is not None:
        first["drawer_travel"] = travel
    return first


def _drawer_travel(infos: Dict[str, np.ndarray]) -> Optional[float]:
    """Return the travel of a fully open drawer in m: position over percentage opened.

    The same line fits both drawers, because roboverse measures the top one by the bottom one's
    travel. It fits to the last digit, so the tremor of a drawer at rest is enough. None if all
    positions are equal.
    """
    names = [n for n in DRAWERS if f"{n}_x_pos" in infos and f"{n}_opened_percentage" in infos]
    if not names:
        return None
    x = np.concatenate([infos[f"{name}_x_pos"] for name in names])
    opened = np.concatenate([infos[f"{name}_opened_percentage"] for name in names])
    if np.ptp(x) < 1e-6:
        return None
    return float(abs(np.polyfit(opened, x, 1)[0]))


def _require_same_start(simulation: EmbeddedSimulation, recording: Recording) -> None:
    task, info, recorded = simulation.task.id, simulation.info(), recording.infos
    apart = np.linalg.norm(simulation.state()[:3] - recording.ee_positions[0])
    if apart > START_TOLERANCE_M:
        raise SpecMismatchError(f"its arm begins {1e3 * apart:.0f} mm from the simulator's")
    if not recorded:
        return
    foreign = [key for key in SCENE_KEYS if key in recorded and key not in info]
    if foreign:
        raise SpecMismatchError(f"its infos have {foreign[0]}, which {task} does not have")
    missing = [key for key in SCENE_KEYS if key in info and key not in recorded]
    if missing:
        raise SpecMismatchError(f"its infos lack {missing[0]}, which {task} has")
    for name in DRAWERS:
        key = f"{name}_opened_percentage"
        if (
            key in info
            and key in recorded
            and abs(info[key] - recorded[key][0]) > OPENING_TOLERANCE
        ):
            raise SpecMismatchError(
                f"its {name} begins {recorded[key][0]:.0%} open, the simulator's {info[key]:.0%}"
            )


def _recorded_free_steps(recording: Recording) -> int:
    """Return the number of steps before the target object or a drawer was moved."""
    if recording.held_at_start:
        positions, tolerance = recording.object_positions - recording.ee_positions, HELD_MOVED_M
    else:
        positions, tolerance = recording.object_positions, OBJECT_MOVED_M
    moved = np.linalg.norm(positions[1:] - positions[0], axis=1) > tolerance
    if moved[0]:
        moved[:] = False  # it rolls on its own, before the arm can be there
    for name in DRAWERS:
        x = recording.infos.get(f"{name}_x_pos")
        if x is not None:
            moved |= np.abs(x - x[0]) > DRAWER_MOVED_M
    return int(np.argmax(moved)) if moved.any() else len(moved)


def _outcome(successes: np.ndarray, info: Dict[str, Any]) -> Outcome:
    """Return the outcome from the success at each step, (T,) bool, and the last info."""
    opened, opening = info.get("drawer_opened_success"), info.get("drawer_opened_percentage")
    return Outcome(
        success=bool(successes[-1]),
        success_any=bool(successes.any()),
        drawer_opened=None if opened is None else bool(opened),
        drawer_opening=None if opening is None else float(opening),
    )
