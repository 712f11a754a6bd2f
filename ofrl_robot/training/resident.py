"""All transitions on the training device, so that drawing a batch is an index and moves no frame.

A million frames of 48x48 pixels take 6.9 GB: they fit on a card. What is not a frame is worked out
once for every transition, by the functions that the sampler uses for each batch.
"""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np
import torch

from ofrl_robot.algos.base import TensorBatch
from ofrl_robot.data.replay import returns as rewards
from ofrl_robot.data.replay.transition_store import TransitionStore

_BLOCK = 4096  # frames uploaded at a time


class ResidentData:
    """Transitions of one or several stores, numbered on from store to store.

    Args:
        n, discount: of n-step returns, as in :class:`~ofrl_robot.data.replay.sampler.MixedSampler`.

    Attributes:
        device: where they are.
    """

    def __init__(
        self,
        stores: Sequence[TransitionStore],
        device: torch.device,
        n: int = 1,
        discount: float = 1.0,
    ) -> None:
        self.device = device
        self._starts = np.cumsum([0] + [len(store) for store in stores])
        self._frames = torch.cat([_upload(store, device) for store in stores])
        first_frame, columns = 0, []
        for store in stores:
            columns.append(_columns(store, first_frame, n, discount))
            first_frame += store.frames.shape[0]
        self._columns = {
            name: torch.from_numpy(np.concatenate([c[name] for c in columns])).to(device)
            for name in columns[0]
        }

    def number(self, draws: Sequence[np.ndarray]) -> np.ndarray:
        """Transitions int64 (B_k,) of each store -> those of this, int64 (B,)."""
        return np.concatenate([start + draw for start, draw in zip(self._starts, draws)])

    def batch(self, index: torch.Tensor) -> TensorBatch:
        """The transitions ``index``, int64 (B,) on the device. Nothing is read on the host."""
        rows = {name: column.index_select(0, index) for name, column in self._columns.items()}
        images, next_images = (
            self._frames.index_select(0, rows.pop(name)) for name in ("frame", "next_frame")
        )
        return TensorBatch(images=images, next_images=next_images, **rows)


def resident_bytes(stores: Sequence[TransitionStore]) -> int:
    """Device memory that :class:`ResidentData` takes."""
    per_row = 8 + 8 + 4 + 4 + 4  # frames, reward, bootstrap, has_next_action
    return sum(
        int(np.prod(store.frames.shape)) + len(store) * per_row + 2 * store.actions.nbytes
        for store in stores
    )


def fits(stores: Sequence[TransitionStore], device: torch.device) -> bool:
    """Whether a CUDA device has room for them in half of its free memory: the rest is for the
    networks."""
    free, _ = torch.cuda.mem_get_info(device)
    return resident_bytes(stores) <= free // 2


def _upload(store: TransitionStore, device: torch.device) -> torch.Tensor:
    """All frames of ``store``, uint8 (F, H, W, 3), a block at a time."""
    count, shape = store.frames.shape[0], tuple(store.frames.shape[1:])
    frames = torch.empty((count,) + shape, dtype=torch.uint8, device=device)
    for start in range(0, count, _BLOCK):
        first = np.arange(start, min(start + _BLOCK, count), 2)
        second = np.minimum(first + 1, count - 1)
        pair = np.empty((2, len(first)) + shape, np.uint8)
        store.frames.read(first, second, pair)
        block = torch.from_numpy(pair).to(device)
        frames[start : start + _BLOCK : 2] = block[0]
        odd = frames[start + 1 : start + _BLOCK : 2]
        odd.copy_(block[1, : len(odd)])
    return frames


def _columns(
    store: TransitionStore, first_frame: int, n: int, discount: float
) -> Dict[str, np.ndarray]:
    """What a TensorBatch has besides images, for every transition."""
    index = np.arange(len(store))
    frame, left = store.locate(index)
    sums, steps, ended = rewards.n_step(store.rewards, store.terminals, index, left, n, discount)
    following, has_following = rewards.next_actions(store.actions, index, left, steps)
    alive = torch.from_numpy(~ended).float()
    return {
        "frame": first_frame + frame,
        "next_frame": first_frame + frame + steps,
        "actions": store.actions,
        "rewards": sums,
        "bootstrap": (alive * discount ** torch.from_numpy(steps).float()).numpy(),
        "next_actions": following,
        "has_next_action": has_following.astype(np.float32),
    }
