"""Compute rewards and returns of flat transitions: relabelling, n-step and Monte-Carlo returns.

All functions take the arrays of a ``TransitionStore``: episodes one after another, the rows of
episode e are ``starts[e] .. starts[e + 1] - 1``. Nothing ever crosses from one episode into the
next. A terminal ends a return. A timeout does not: the learner estimates the value of its last
observation.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np


def relabel(rewards: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """Return ``rewards * scale + bias`` as float32; scale 0 and bias 0 remove all rewards."""
    return (rewards * np.float64(scale) + bias).astype(np.float32)


def last_rewarded(starts: np.ndarray, successes: np.ndarray, count: int) -> np.ndarray:
    """Return rewards of 1 at the last ``count`` steps of each successful episode, else 0.

    This is how PTR rewards real arms, whose episodes are labelled as a whole (Kumar et al. 2022,
    arXiv 2210.05178).

    Args:
        starts: int64 (E+1,).
        successes: bool (E,).
        count: steps, 1 or more; shorter episodes are rewarded throughout.

    Returns:
        float32 (N,).
    """
    lengths = np.diff(starts)
    left = np.repeat(starts[1:], lengths) - np.arange(starts[-1])  # itself included
    return (np.repeat(successes, lengths) & (left <= count)).astype(np.float32)


def n_step(
    rewards: np.ndarray,
    terminals: np.ndarray,
    index: np.ndarray,
    left: np.ndarray,
    n: int,
    discount: float,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum up to ``n`` discounted rewards, cut at a terminal and at the end of the episode.

    Args:
        rewards, terminals: (N,) of the store.
        index: int64 (B,), transitions to start from.
        left: int64 (B,), transitions from there to the end of the episode, itself included.
        n: most rewards to sum.
        discount: factor per step.

    Returns:
        sums: float32 (B,), r_0 + discount r_1 + ... + discount^(k-1) r_(k-1).
        steps: int64 (B,), k <= n: the value to add is that of the observation k steps later,
            times discount^k.
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
    """Return the action taken ``steps`` transitions later, if the episode is that long.

    Args:
        actions: (N, A).
        index, left: as in :func:`n_step`.
        steps: int64 (B,), 1 or more.

    Returns:
        (B, A) actions, the last one of the episode if it ended before; bool (B,), False there.
    """
    return actions[index + np.minimum(steps, left - 1)], steps < left


def monte_carlo(
    rewards: np.ndarray, terminals: np.ndarray, starts: np.ndarray, discount: float
) -> np.ndarray:
    """Return the discounted sum of all rewards from each transition to the end of its episode.

    Args:
        rewards, terminals: (N,).
        starts: int64 (E+1,).
        discount: factor per step.

    Returns:
        float32 (N,). An episode that ran out of time counts with the rewards that were recorded.
    """
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")  # longest first: the longer ones are a prefix
    last = starts[1:][order] - 1
    lengths = lengths[order]
    value = np.zeros(len(order))
    returns = np.empty(len(rewards), np.float32)
    for back in range(int(lengths[0]) if len(lengths) else 0):
        count = np.searchsorted(-lengths, -back)  # episodes longer than ``back``
        rows = last[:count] - back
        value[:count] = rewards[rows] + discount * ~terminals[rows] * value[:count]
        returns[rows] = value[:count]
    return returns
