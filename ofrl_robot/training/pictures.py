"""Summarise the pictures of the training data for a checkpoint, see ``policy/pictures.py``."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

import numpy as np
import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.nets.actor import Actor
from ofrl_robot.policy.features import LastFeatures
from ofrl_robot.policy.light import measure
from ofrl_robot.policy.pictures import SAMPLES, STAGES, Distance, PictureSummary, Stage, project
from ofrl_robot.specs import STATE

EPISODES = 128  # of the training data: with 16 frames each half as many as the probe has
HELD_OUT = 64  # episodes of the split valid, which only move the limits
# With fewer episodes the covariance of 24 features says nothing.
LEAST_EPISODES = 24
_FOLDS = 8
_CHUNK = 64  # frames at a time: 59 MB at 640x480
_QUANTILE = 0.99
_Z = 2.326  # of a normal distribution, 99 % are below


class PictureData:
    """A fixed sample of episodes and of their frames; what does not depend on weights is kept.

    Args:
        store: transitions of the task, without those of other tasks.
        valid: held-out transitions, or None.
    """

    def __init__(self, store: TransitionStore, valid: Optional[TransitionStore]) -> None:
        self._cameras = [name for name in store.shapes if name != STATE]
        lengths = np.diff(store.starts)
        self._steps = compared_steps(int(np.median(lengths)))
        self._parts = [_Part(store, self._steps, EPISODES)]
        if valid is not None:
            self._parts.append(_Part(valid, self._steps, HELD_OUT))
        self._light: List[Dict[str, np.ndarray]] = []

    def summary(self, algorithm: Algorithm) -> Optional[PictureSummary]:
        """Summarise the pictures as the actor of ``algorithm`` that is deployed now sees them.

        Returns:
            None for fewer than LEAST_EPISODES episodes, or a policy without a camera.
        """
        if not self._cameras or self._parts[0].count < LEAST_EPISODES:
            return None
        if not self._light:
            self._light = [part.light(self._cameras) for part in self._parts]
        features = [part.features(algorithm) for part in self._parts]
        stages = []
        for frames in STAGES:
            chosen = [part.has(frames) for part in self._parts]
            if frames > len(self._steps) or chosen[0].sum() < LEAST_EPISODES:
                break
            averages = [f[c, :frames].mean(1) for f, c in zip(features, chosen)]
            light = {
                name: np.quantile(self._light[0][name][chosen[0], :frames].mean(1), (0.01, 0.99), 0)
                for name in self._cameras
            }
            held_out = averages[1] if len(averages) > 1 else averages[0][:0]
            stages.append(_stage(frames, averages[0], held_out, light))
        return PictureSummary(self._steps, tuple(stages), self._parts[0].count)


def compared_steps(length: int) -> Tuple[int, ...]:
    """Return the steps of an episode of ``length`` transitions whose frames are compared."""
    count = min(SAMPLES, max(1, length))
    return tuple(sorted(set(np.linspace(0, max(0, length - 1), count).astype(int).tolist())))


def _stage(
    frames: int, averages: np.ndarray, held_out: np.ndarray, light: Dict[str, np.ndarray]
) -> Stage:
    """Fit mean, covariance and limit to the averages (E, K) of as many episodes.

    Each episode's distance is taken to a fit of the others (8 folds): to their own fit 128
    episodes are too near, by a tenth.
    """
    fold = np.arange(len(averages)) % _FOLDS
    distances = np.empty(len(averages))
    for k in range(_FOLDS):
        distances[fold == k] = _fit(averages[fold != k])(averages[fold == k])
    limits = [_limit(distances)]
    if len(held_out) >= LEAST_EPISODES:
        limits.append(_limit(_fit(averages)(held_out)))
    mean, covariance = _moments(averages)
    return Stage(frames, mean, covariance, max(limits), light)


def _limit(distances: np.ndarray) -> float:
    """Return the distance below which 99 % lie: of those seen, or of a log-normal fit if larger.

    Among 24 episodes the quantile is the largest; the fit says what a hundred would show.
    """
    logs = np.log(np.maximum(distances, 1e-9))
    fitted = np.exp(logs.mean() + _Z * logs.std(ddof=1))
    return float(max(np.quantile(distances, _QUANTILE), fitted, 1e-6))


def _moments(x: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    return x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))


def _fit(x: np.ndarray) -> Distance:
    return Distance(*_moments(x))


class _Part:
    """Frames of some episodes of one store."""

    def __init__(self, store: TransitionStore, steps: Tuple[int, ...], most: int) -> None:
        spans = store.frame_spans
        chosen = np.linspace(0, len(spans) - 1, min(most, len(spans))).astype(int)
        self.count = len(chosen)
        self._store, self._steps = store, steps
        starts, stops = (np.array([spans[i][k] for i in chosen]) for k in (0, 1))
        rows = starts[:, None] + np.array(steps)
        # an action answers every frame but the last; a shorter episode repeats one
        self._whole = rows < stops[:, None] - 1
        self._rows = np.minimum(rows, stops[:, None] - 1)

    def has(self, frames: int) -> np.ndarray:
        """Return bool (E,), which episodes have that many compared frames."""
        return np.asarray(self._whole[:, :frames].all(1))

    def light(self, cameras: List[str]) -> Dict[str, np.ndarray]:
        """Return by camera float64 (E, S, 10), the light of every frame."""
        found = {}
        for name in cameras:
            values = [measure(image) for rows in self._chunks() for image in self._read(name, rows)]
            found[name] = np.array(values).reshape(*self._rows.shape, -1)
        return found

    @torch.no_grad()
    def features(self, algorithm: Algorithm) -> np.ndarray:
        """Return float64 (E, S, K), the projected features of every frame."""
        actor = algorithm.average_actor
        assert isinstance(actor, Actor)
        last, found = LastFeatures(actor), []
        try:
            for rows in self._chunks():
                observations = {
                    name: torch.from_numpy(self._read(name, rows)).to(algorithm.device)
                    for name in self._store.shapes
                }
                actor(observations)
                found.append(project(last.newest.float().cpu().numpy()))
        finally:
            last.close()
        return np.concatenate(found).reshape(*self._rows.shape, -1)

    def _chunks(self) -> List[np.ndarray]:
        rows = self._rows.reshape(-1)
        return np.array_split(rows, -(-len(rows) // _CHUNK))

    def _read(self, name: str, rows: np.ndarray) -> np.ndarray:
        file = self._store.observations[name]
        both = np.empty((2, len(rows)) + tuple(file.shape[1:]), file.dtype)
        file.read(rows, rows, both)
        return both[0]
