"""Draw minibatches of transitions from a replay buffer."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np

from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.errors import ConfigError


class MixedSampler:
    """Batches with a fixed number of transitions from each store of a buffer, in this order.

    Within a store they are drawn uniformly with replacement; the sequence is fixed by ``seed``.
    :meth:`sample` has the next batch fetched from disk while the caller works on this one.

    Args:
        buffer: what to draw from.
        batch_size: transitions per batch.
        seed: of the sequence.

    Raises:
        ConfigError: the fractions do not sum to 1, or leave a store without a transition.
    """

    def __init__(self, buffer: ReplayBuffer, batch_size: int, seed: int) -> None:
        self.buffer = buffer
        self._counts = batch_counts(buffer.fractions, batch_size)
        self._rng = np.random.default_rng(seed)
        self._next = self._draw()

    def sample(self) -> Batch:
        """Return the next batch."""
        indices = self.draw()
        self.buffer.prefetch(self.upcoming)
        return self.buffer.gather(indices)

    @property
    def upcoming(self) -> List[np.ndarray]:
        """What the next :meth:`draw` will return."""
        return self._next

    def draw(self) -> List[np.ndarray]:
        """Return which transitions the next batch holds: int64 (B_k,) of each store.

        Nothing is read: a GPU may hold the frames.
        """
        indices = self._next
        self._next = self._draw()
        return indices

    def state(self) -> Dict[str, Any]:
        """Return the position in the sequence as JSON-able values, for :meth:`restore`."""
        return self._state

    def restore(self, state: Dict[str, Any]) -> None:
        """Continue as the sampler did whose :meth:`state` this is.

        Raises:
            KeyError, TypeError, ValueError: it is not such a state.
        """
        self._rng.bit_generator.state = state
        self._next = self._draw()

    def _draw(self) -> List[np.ndarray]:
        # before the draw: it is not yet handed out
        self._state: Dict[str, Any] = dict(self._rng.bit_generator.state)
        stores = self.buffer.stores
        return [self._rng.integers(len(s), size=c) for s, c in zip(stores, self._counts)]


def batch_counts(fractions: Sequence[float], batch_size: int) -> List[int]:
    """Return the transitions of each share in a batch, of sum ``batch_size``.

    Rounded down; those with the largest remainders then get one more.

    Raises:
        ConfigError: the fractions do not sum to 1, or one of them gets no transition.
    """
    shares = np.asarray(fractions, float) * batch_size
    if not (shares > 0).all() or abs(shares.sum() - batch_size) > 1e-6 * batch_size:
        raise ConfigError(
            f"fractions {list(fractions)} of a batch are not positive numbers of sum 1",
            "correct them",
        )
    counts = np.floor(shares + 1e-9).astype(int)
    largest = np.argsort(counts - shares, kind="stable")
    counts[largest[: batch_size - counts.sum()]] += 1
    if not counts.all():
        raise ConfigError(
            f"a batch of {batch_size} has no transition for a fraction of {min(fractions)}",
            "raise --batch-size or the fraction",
        )
    return counts.tolist()
