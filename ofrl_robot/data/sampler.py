"""Uniform minibatches of transitions from a frame store."""

from __future__ import annotations

import dataclasses

import numpy as np

from ofrl_robot.data.frames import FrameStore


@dataclasses.dataclass
class Batch:
    """B transitions as numpy arrays.

    Attributes:
        images, next_images: uint8 (B, H, W, 3).
        actions: float32 (B, A). rewards: float32 (B,). terminals: bool (B,).
    """

    images: np.ndarray
    next_images: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray


def gather(store: FrameStore, index: np.ndarray) -> Batch:
    """The transitions ``index`` (B,) of the store."""
    frame = store.frame[index]
    return Batch(
        images=store.frames[frame],
        next_images=store.frames[frame + 1],
        actions=store.actions[index],
        rewards=store.rewards[index],
        terminals=store.terminals[index],
    )


class UniformSampler:
    """Draws transitions uniformly with replacement; the sequence is fixed by ``seed``."""

    def __init__(self, store: FrameStore, batch_size: int, seed: int) -> None:
        self._store, self._batch_size = store, batch_size
        self._rng = np.random.default_rng(seed)

    def sample(self) -> Batch:
        return gather(self._store, self._rng.integers(len(self._store), size=self._batch_size))
