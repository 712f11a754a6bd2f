"""The fixed probe set: workflow metrics on the same transitions at every checkpoint.

At least 4096 transitions where the data has them: the released workflow code's single batch of
256 is too noisy to see a peak in (reference: workflow notes, "What an implementation must do").
"""

from __future__ import annotations

from typing import Dict, List

import numpy as np
import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.data.frames import FrameStore
from ofrl_robot.data.sampler import gather

_CHUNK = 1024


class Probe:
    """Chosen once per run by ``seed``; :meth:`measure` is deterministic."""

    def __init__(self, store: FrameStore, size: int, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        index = rng.permutation(len(store))[:size]
        self._store, self._index, self._seed = store, np.sort(index), seed

    def measure(self, algorithm: Algorithm) -> Dict[str, float]:
        """Mean of each metric over the probe set."""
        parts: List[Dict[str, float]] = []
        weights: List[int] = []
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            for start in range(0, len(self._index), _CHUNK):
                index = self._index[start : start + _CHUNK]
                parts.append(algorithm.probe(gather([self._store], [index])))
                weights.append(len(index))
        return {k: float(np.average([p[k] for p in parts], weights=weights)) for k in parts[0]}
