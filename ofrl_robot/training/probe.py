"""The fixed probe set: workflow metrics on the same transitions at every checkpoint.

At least 4096 transitions where the data has them: the released workflow code's single batch of
256 is too noisy to see a peak in (reference: workflow notes, "What an implementation must do").
"""

from __future__ import annotations

from typing import Dict, List, Sequence

import numpy as np
import torch

from ofrl_robot.algos.base import Algorithm
from ofrl_robot.data.replay.sampler import batch_counts, gather
from ofrl_robot.data.replay.transition_store import TransitionStore

_CHUNK = 1024


class Probe:
    """Chosen once per run by ``seed``; :meth:`measure` is deterministic.

    Args:
        stores, fractions: what to choose from, each store its share, as batches have it.
        size: transitions; fewer where a store has less than its share of them.
    """

    def __init__(
        self, stores: Sequence[TransitionStore], fractions: Sequence[float], size: int, seed: int
    ) -> None:
        rng = np.random.default_rng([seed, 1])
        most = min(int(len(store) / share + 1e-6) for store, share in zip(stores, fractions))
        counts = batch_counts(fractions, min(size, most))
        index = [
            np.sort(rng.permutation(len(store))[:count]) for store, count in zip(stores, counts)
        ]
        # every chunk has the same mix
        pieces = -(-sum(counts) // _CHUNK)
        self._chunks = list(zip(*(np.array_split(i, pieces) for i in index)))
        self._stores, self._seed = stores, seed

    def measure(self, algorithm: Algorithm) -> Dict[str, float]:
        """Mean of each metric over the probe set."""
        parts: List[Dict[str, float]] = []
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            for chunk in self._chunks:
                parts.append(algorithm.probe(gather(self._stores, chunk)))
        weights = [sum(map(len, chunk)) for chunk in self._chunks]
        return {k: float(np.average([p[k] for p in parts], weights=weights)) for k in parts[0]}
