"""Repeat the actions of recorded episodes: does the arm do the same again?

An episode is found by its seed, or, when it was recorded without one, they come in their order. So
``teleop:=replay`` with the seed of the recording repeats it on the same robot, from its start pose;
the result is an episode that can be compared (:func:`path_distances`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from ofrl_robot.control.signals import HUMAN, Tick
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import Episode, read_episode
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import ActionSpec, require_same
from ofrl_robot.teleop.device import DeviceConfig


class Replay:
    """Implements :class:`~ofrl_robot.teleop.device.TeleopDevice`.

    Args:
        dataset: folder of the recorded episodes.
        spec: what an action is on the robot at the other end.

    Raises:
        SpecMismatchError: the actions of the recording mean something else.
    """

    source = HUMAN
    needs_ground_truth = False

    def __init__(self, dataset: Path, spec: ActionSpec) -> None:
        recorded = open_dataset(dataset)
        require_same(
            recorded.action_spec, spec, str(dataset), "the robot", "replay on the robot it is from"
        )
        self._unseeded = [p for p, meta in zip(recorded.paths, recorded.metas) if meta.seed < 0]
        self._seeded = {m.seed: p for p, m in zip(recorded.paths, recorded.metas) if m.seed >= 0}
        self._actions = np.zeros((0, spec.size))
        self._idle = np.zeros(spec.size)
        self.settings: Dict[str, Any] = {"dataset": str(dataset)}

    def reset(self, seed: int) -> None:
        """Start an episode: the recorded one of this seed, or the next that has none.

        Raises:
            DatasetError: there is none.
        """
        path = self._seeded.get(seed)
        if path is None and self._unseeded:
            path = self._unseeded.pop(0)
        if path is None:
            raise DatasetError(
                f"no recorded episode has seed {seed}", "begin with the first seed of the recording"
            )
        self._actions = read_episode(path, cameras=()).actions.astype(np.float64)

    def act(self, tick: Tick) -> np.ndarray:
        """Return the recorded action (A,) of this step; the zero action after the last."""
        return self._actions[tick.step] if tick.step < len(self._actions) else self._idle


def make(config: DeviceConfig) -> Replay:
    """Build the device from the setting ``dataset``: the folder of the recorded episodes."""
    unknown = sorted(set(config.settings) - {"dataset"})
    if unknown or not isinstance(config.settings.get("dataset"), str):
        raise ConfigError(
            f"replay has settings {sorted(config.settings)}",
            'say which recording: teleop_settings:="{dataset: FOLDER}"',
        )
    return Replay(Path(config.settings["dataset"]), config.action_spec)


def path_distances(path: Episode, other: Episode) -> np.ndarray:
    """Return how far the end effector of ``other`` is from the path of ``path``, (T+1,) m.

    The path is the line through the measured positions, near the same step: when a position was
    measured 10 ms later, at 0.25 m/s, it lies 2.5 mm further on, but on the same path.

    Raises:
        DatasetError: an episode records no position ``ee_x``, ``ee_y``, ``ee_z``.
    """
    line, points = _positions(path), _positions(other)
    steps = min(len(line), len(points))
    distances = []
    for step in range(steps):
        corners = line[max(step - 1, 0) : step + 2]
        nearest = [_to_segment(points[step], a, b) for a, b in zip(corners, corners[1:])]
        distances.append(min(nearest))
    return np.array(distances)


def _to_segment(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    along = b - a
    length = float(along @ along)
    share = 0.0 if length == 0.0 else float(np.clip((point - a) @ along / length, 0.0, 1.0))
    return float(np.linalg.norm(point - a - share * along))


def _positions(episode: Episode) -> np.ndarray:
    names: List[str] = list(episode.meta.observation_spec.state_names)
    missing = [name for name in ("ee_x", "ee_y", "ee_z") if name not in names]
    if missing:
        raise DatasetError(f"the state has no {', '.join(missing)}", "compare episodes of an arm")
    return episode.state[:, [names.index(name) for name in ("ee_x", "ee_y", "ee_z")]]
