"""Measure the workflow's metrics on the same transitions at every checkpoint.

At least 4096 transitions if the data has them: the released workflow code's single batch of 256 is
too noisy to show a peak.
"""

from __future__ import annotations

from typing import Callable, Dict, List

import numpy as np
import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.data.replay.sampler import batch_counts

_CHUNK = 1024


class Probe:
    """A fixed probe set, chosen once per run by ``seed``; :meth:`measure` is deterministic.

    Args:
        buffer: what to choose from, each store its share, as batches have it.
        size: transitions; fewer if a store has less than its share of them.
        seed: of the choice, and of the random numbers while measuring.
    """

    def __init__(self, buffer: ReplayBuffer, size: int, seed: int) -> None:
        stores = buffer.stores
        rng = np.random.default_rng([seed, 1])
        shares = zip(stores, buffer.fractions)
        most = min(int(len(store) / share + 1e-6) for store, share in shares)
        counts = batch_counts(buffer.fractions, min(size, most))
        index = [
            np.sort(rng.permutation(len(store))[:count]) for store, count in zip(stores, counts)
        ]
        # every chunk has the same mix
        pieces = -(-sum(counts) // _CHUNK)
        self._chunks = list(zip(*(np.array_split(i, pieces) for i in index)))
        self._buffer = buffer
        self._seed = seed

    def measure(self, algorithm: Algorithm) -> Dict[str, float]:
        """Return the mean of each probe metric over the probe set."""
        return self.mean(algorithm.probe, algorithm.device)

    def mean(
        self, metrics: Callable[[Batch], Dict[str, float]], device: torch.device
    ) -> Dict[str, float]:
        """Return the mean over the probe set of what ``metrics`` says of parts of it.

        Args:
            metrics: function of a batch of numpy arrays.
            device: on which it computes.
        """
        parts: List[Dict[str, float]] = []
        # by default torch saves the generators of all cards, which wakes every one of them
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed)
            for chunk in self._chunks:
                parts.append(metrics(self._buffer.gather(chunk)))
        weights = [sum(map(len, chunk)) for chunk in self._chunks]
        return {k: float(np.average([p[k] for p in parts], weights=weights)) for k in parts[0]}
