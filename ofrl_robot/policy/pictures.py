"""Describe the pictures that a policy was trained on, in a few dozen numbers.

What counts is not how a picture looks but what the policy makes of it: the description is mean and
covariance of the input of the actor's last layer, at the first frame of an episode and of its
running average (a Mahalanobis distance to them finds unknown inputs: Lee et al. 2018, arXiv
1807.03888). So a policy that was trained not to mind the light is not worried by it. Measured on
a checkpoint without augmentation: +10 of 255 brighter left it at 30 of 30, 10 darker gave 0 of 30,
and the distances were 0.5 and 2.3 (docs/training.md).

The description is of the data as it was recorded, without augmentation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from ofrl_robot.policy.light import QUANTITIES

FEATURES = 24  # numbers that a feature vector is projected to
SAMPLES = 16  # frames of an episode that are compared, at most
STAGES = (1, 2, 4, 8, 16)  # numbers of compared frames at which the average is judged
# Share of the mean variance that is added to each variance: directions in which the data did not
# vary at all would otherwise count without limit.
RIDGE = 0.05
MOST_FEATURES = 256  # bound of what a header may claim
_DIGITS = 6


@functools.lru_cache(maxsize=4)
def _projection(size: int) -> np.ndarray:
    """Return float32 (size, FEATURES), the same on every computer: RandomState never changes."""
    draws = np.random.RandomState(0).standard_normal((size, FEATURES))
    return (draws / math.sqrt(size)).astype(np.float32)


def project(features: np.ndarray) -> np.ndarray:
    """Return features (..., F) as float64 (..., K), K = min(F, FEATURES): fixed random mixtures."""
    size = features.shape[-1]
    if size <= FEATURES:
        return np.asarray(features, np.float64)
    return np.asarray(features @ _projection(size), np.float64)


@dataclasses.dataclass(frozen=True)
class Stage:
    """The data after its first ``frames`` compared frames.

    Attributes:
        frames: how many are averaged.
        mean: float64 (K,), of the averages of all episodes.
        covariance: float64 (K, K).
        limit: distance below which 99 % of the episodes lie that are not in mean and covariance.
        light: by camera, float64 (2, 10): quantiles 1 % and 99 % of ``light.QUANTITIES``.
    """

    frames: int
    mean: np.ndarray
    covariance: np.ndarray
    limit: float
    light: Mapping[str, np.ndarray]

    @functools.cached_property
    def _distance(self) -> "Distance":
        return Distance(self.mean, self.covariance)

    def score(self, average: np.ndarray) -> float:
        """Return how far outside an average (K,) is: 1 is the limit."""
        return float(self._distance(average) / self.limit)


class Distance:
    """Mahalanobis distance to a normal distribution, per square root of its size.

    Args:
        mean: (K,). covariance: (K, K); RIDGE is added.
    """

    def __init__(self, mean: np.ndarray, covariance: np.ndarray) -> None:
        ridge = RIDGE * np.trace(covariance) / len(mean) + np.finfo(np.float64).tiny
        values, vectors = np.linalg.eigh(covariance)
        scale = 1.0 / np.sqrt(np.maximum(values, 0.0) + ridge)
        self._mean = mean
        self._whiten = vectors * scale / math.sqrt(len(mean))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the distances (...) of x (..., K)."""
        return np.asarray(np.linalg.norm((x - self._mean) @ self._whiten, axis=-1))


@dataclasses.dataclass(frozen=True)
class PictureSummary:
    """What a checkpoint knows of the pictures that its policy was trained on.

    Attributes:
        steps: of an episode whose frames are compared, ascending from 0.
        stages: by number of frames, ascending from 1.
        episodes: number of episodes described.
    """

    steps: Tuple[int, ...]
    stages: Tuple[Stage, ...]
    episodes: int

    def to_dict(self) -> Dict[str, Any]:
        """Return JSON values: about 20 kB."""
        return {
            "steps": list(self.steps),
            "episodes": self.episodes,
            "stages": [
                {
                    "frames": stage.frames,
                    "mean": _rounded(stage.mean),
                    # the lower triangle, row by row
                    "covariance": _rounded(stage.covariance[np.tril_indices(len(stage.mean))]),
                    "limit": _rounded(np.array([stage.limit]))[0],
                    "light": {k: [_rounded(row) for row in v] for k, v in stage.light.items()},
                }
                for stage in self.stages
            ],
        }

    @staticmethod
    def from_dict(data: Dict[str, Any]) -> "PictureSummary":
        """Build a summary from :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of a summary.
        """
        steps = tuple(data["steps"])
        stages = tuple(_stage(values) for values in data["stages"])
        counts = [stage.frames for stage in stages]
        if not steps or steps[0] != 0 or any(type(step) is not int for step in steps):
            raise ValueError("steps of pictures do not start at 0")
        if list(steps) != sorted(set(steps)) or len(steps) > SAMPLES:
            raise ValueError("steps of pictures do not ascend")
        if not counts or counts[0] != 1 or counts != sorted(set(counts)) or counts[-1] > len(steps):
            raise ValueError("stages of pictures do not ascend from 1")
        if len({len(stage.mean) for stage in stages}) > 1:
            raise ValueError("stages of pictures have features of different sizes")
        return PictureSummary(steps, stages, int(data["episodes"]))


def _rounded(values: np.ndarray) -> List[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _stage(data: Dict[str, Any]) -> Stage:
    mean = _finite(data["mean"])
    size = len(mean)
    if not 1 <= size <= MOST_FEATURES:
        raise ValueError(f"{size} features of pictures")
    rows, columns = np.tril_indices(size)
    triangle = _finite(data["covariance"])
    if mean.ndim != 1 or triangle.shape != rows.shape:
        raise ValueError("mean or covariance of pictures has another shape")
    covariance = np.zeros((size, size))
    covariance[rows, columns] = covariance[columns, rows] = triangle
    limit = float(_finite([data["limit"]])[0])
    if limit <= 0.0 or (np.diag(covariance) < 0.0).any() or type(data["frames"]) is not int:
        raise ValueError("limit, variance or frames of pictures are impossible")
    light = {str(name): _finite(rows) for name, rows in data["light"].items()}
    if any(rows.shape != (2, len(QUANTITIES)) for rows in light.values()):
        raise ValueError("light of pictures has another shape")
    return Stage(data["frames"], mean, covariance, limit, light)


def _finite(values: Any) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("pictures hold a number that is not finite")
    return array
