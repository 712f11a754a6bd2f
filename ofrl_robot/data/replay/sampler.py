"""Minibatches of transitions from one or several frame stores."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ofrl_robot.data.replay import returns as rewards
from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.errors import ConfigError


@dataclasses.dataclass
class Batch:
    """B transitions as numpy arrays.

    Attributes:
        images, next_images: uint8 (B, H, W, 3), the latter ``steps`` ticks after the former.
        actions: float32 (B, A). rewards: float32 (B,), discounted sum over ``steps``.
        terminals: bool (B,): the last of the ``steps`` ended the task, ``next_images`` are worth 0.
        steps: int64 (B,), 1 unless n-step returns were asked for: the value of ``next_images``
            counts discount ** steps.
        next_actions: float32 (B, A), taken at ``next_images``; where the episode ends there, its
            last action. has_next_action: bool (B,), false where it ends.
        returns: float32 (B,), discounted sum to the end of the episode, where asked for.
    """

    images: np.ndarray
    next_images: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    steps: np.ndarray
    next_actions: np.ndarray
    has_next_action: np.ndarray
    returns: Optional[np.ndarray] = None


def gather(
    stores: Sequence[TransitionStore],
    indices: Sequence[np.ndarray],
    n: int = 1,
    discount: float = 1.0,
    returns: Optional[Sequence[np.ndarray]] = None,
) -> Batch:
    """The transitions ``indices[k]``, int64 (B_k,), of ``stores[k]``, joined into one batch.

    Args:
        n, discount: of n-step returns (:func:`~ofrl_robot.data.replay.returns.n_step`).
        returns: one array (N_k,) per store, to gather along.
    """
    # One allocation for all frames: two, freed at each step, made glibc give the memory back to
    # the kernel and fetch it anew each time (measured: 1290 against 2270 batches/s).
    total = sum(len(index) for index in indices)
    images = np.empty((2, total) + tuple(stores[0].frames.shape[1:]), np.uint8)
    parts, done = [], 0
    for store, index in zip(stores, indices):
        frame, left = store.locate(index)
        sums, steps, ended = rewards.n_step(
            store.rewards, store.terminals, index, left, n, discount
        )
        following, has_following = rewards.next_actions(store.actions, index, left, steps)
        parts.append((store.actions[index], sums, ended, steps, following, has_following))
        store.frames.read(frame, frame + steps, images[:, done : done + len(index)])
        done += len(index)
    rows = [column[0] if len(parts) == 1 else np.concatenate(column) for column in zip(*parts)]
    if returns is not None:
        rows.append(np.concatenate([r[index] for r, index in zip(returns, indices)]))
    return Batch(images[0], images[1], *rows)


class MixedSampler:
    """Batches with a fixed number of transitions from each of several stores, in this order.

    Within a store they are drawn uniformly with replacement; the sequence is fixed by ``seed``.
    What the next batch needs is fetched from disk while the caller works on this one.

    Args:
        stores: all of the same specs (:func:`~ofrl_robot.data.replay.sources.open_sources`).
        fractions: share of each in every batch, positive, of sum 1.
        n, discount: length and discount of n-step returns.
        returns: also give Monte-Carlo returns, with the same discount (4 bytes a transition).

    Raises ConfigError for fractions that cannot be, or that leave a store without a transition.
    """

    def __init__(
        self,
        stores: Sequence[TransitionStore],
        fractions: Sequence[float],
        batch_size: int,
        seed: int,
        n: int = 1,
        discount: float = 1.0,
        returns: bool = False,
    ) -> None:
        if n < 1:
            raise ConfigError(f"{n}-step returns", "1 is the least")
        if not 0.0 <= discount <= 1.0:
            raise ConfigError(f"discount {discount} is not within 0 and 1")
        self._stores, self._n, self._discount = stores, n, discount
        self._counts = batch_counts(fractions, batch_size)
        self._returns = None
        if returns:
            self._returns = [
                rewards.monte_carlo(s.rewards, s.terminals, s.starts, discount) for s in stores
            ]
        self._rng = np.random.default_rng(seed)
        self._next = self._draw()

    def sample(self) -> Batch:
        return gather(self._stores, self.draw(), self._n, self._discount, self._returns)

    def draw(self) -> List[np.ndarray]:
        """Which transitions the next batch holds: int64 (B_k,) of each store."""
        indices, self._next = self._next, self._draw()
        return indices

    def state(self) -> Dict[str, Any]:
        """Where the sequence stands, as JSON-able values, for :meth:`restore`."""
        return self._state

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on as the sampler did whose :meth:`state` this is.

        Raises KeyError, TypeError or ValueError for what is no such state.
        """
        self._rng.bit_generator.state = state
        self._next = self._draw()

    def _draw(self) -> List[np.ndarray]:
        self._state = self._rng.bit_generator.state  # before the draw: it is not yet handed out
        indices = [self._rng.integers(len(s), size=c) for s, c in zip(self._stores, self._counts)]
        for store, index in zip(self._stores, indices):
            frame, left = store.locate(index)
            store.frames.prefetch(frame, frame + np.minimum(self._n, left))
        return indices


class UniformSampler(MixedSampler):
    """Draws transitions of one store uniformly with replacement; the sequence is fixed by
    ``seed``."""

    def __init__(self, store: TransitionStore, batch_size: int, seed: int) -> None:
        super().__init__([store], [1.0], batch_size, seed)


def batch_counts(fractions: Sequence[float], batch_size: int) -> List[int]:
    """Transitions of each share in a batch, of sum ``batch_size``: rounded down, what is then
    missing goes to those with the largest remainders."""
    shares = np.asarray(fractions, float) * batch_size
    if not (shares > 0).all() or abs(shares.sum() - batch_size) > 1e-6 * batch_size:
        raise ConfigError(f"fractions {list(fractions)} of a batch", "give positive ones of sum 1")
    counts = np.floor(shares + 1e-9).astype(int)
    largest = np.argsort(counts - shares, kind="stable")
    counts[largest[: batch_size - counts.sum()]] += 1
    if not counts.all():
        raise ConfigError(
            f"a batch of {batch_size} has no transition for a fraction of {min(fractions)}",
            "raise --batch-size or the fraction",
        )
    return counts.tolist()
