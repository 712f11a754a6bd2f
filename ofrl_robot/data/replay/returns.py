"""Pure functions over the rewards of flat transitions: relabelling, n-step and Monte-Carlo returns.

All take the arrays of a ``TransitionStore``: episodes one after another,
the rows of episode e are ``starts[e] .. starts[e + 1] - 1``. Nothing ever crosses from one episode
into the next. A terminal ends a return; a timeout does not, its last observation is worth what
the learner thinks it is worth.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np


def relabel(rewards: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """``rewards * scale + bias`` as float32; scale 0 and bias 0 make prior data reward-free."""
    return (rewards * np.float64(scale) + bias).astype(np.float32)


def n_step(
    rewards: np.ndarray, terminals: np.ndarray, index: np.ndarray, left: np.ndarray,
    n: int, discount: float,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Discounted sums of up to ``n`` rewards, cut at a terminal and at the end of the episode.

    Args:
        rewards, terminals: (N,) of the store.
        index: int64 (B,), transitions to start from.
        left: int64 (B,), transitions from there to the end of the episode, itself included.

    Returns:
        sums: float32 (B,), r_0 + discount r_1 + ... + discount^(k-1) r_(k-1).
        steps: int64 (B,), k <= n: the value to add is that of the observation k steps on, times
            discount^k.
        ended: bool (B,), whether the last of the k transitions is a terminal: nothing to add.
    """
    ahead = np.arange(n)
    inside = ahead < left[:, None]
    rows = index[:, None] + np.where(inside, ahead, 0)
    ended_before = np.logical_or.accumulate(terminals[rows[:, :-1]], axis=1)
    inside[:, 1:] &= ~ended_before
    steps = inside.sum(axis=1)
    sums = (rewards[rows] * np.where(inside, float(discount) ** ahead, 0.0)).sum(axis=1)
    return sums.astype(np.float32), steps, terminals[index + steps - 1]


def next_actions(
    actions: np.ndarray, index: np.ndarray, left: np.ndarray, steps: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Action taken ``steps`` transitions on, where the episode goes that far.

    Args:
        actions: (N, A). index, left: as in :func:`n_step`. steps: int64 (B,), 1 or more.

    Returns:
        (B, A) actions, the episode's last one where it ended before, and bool (B,), false there.
    """
    return actions[index + np.minimum(steps, left - 1)], steps < left


def monte_carlo(
    rewards: np.ndarray, terminals: np.ndarray, starts: np.ndarray, discount: float
) -> np.ndarray:
    """Discounted sum of all rewards from each transition to the end of its episode.

    Args:
        rewards, terminals: (N,). starts: int64 (E+1,).

    Returns:
        float32 (N,). Of an episode that ran out of time it counts what was recorded and no more.
    """
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")  # longest first: who is left is a prefix
    last, lengths = starts[1:][order] - 1, lengths[order]
    value = np.zeros(len(order))
    returns = np.empty(len(rewards), np.float32)
    for back in range(int(lengths[0]) if len(lengths) else 0):
        count = np.searchsorted(-lengths, -back)  # episodes longer than ``back``
        rows = last[:count] - back
        value[:count] = rewards[rows] + discount * ~terminals[rows] * value[:count]
        returns[rows] = value[:count]
    return returns
