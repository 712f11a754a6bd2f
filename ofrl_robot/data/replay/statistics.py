"""Compute the statistics by which networks normalise the state vector."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import STATE

MIN_STD = 1e-3  # an entry that never moves would be divided by 0
_BLOCK = 65536  # frames at a time


def state_statistics(
    stores: Sequence[TransitionStore],
) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Return mean and standard deviation of the state over all frames of the chosen episodes.

    Args:
        stores: what is trained on.

    Returns:
        float32 (D,) each, the deviation at least ``MIN_STD``; None if the state is not observed.

    Raises:
        DatasetError: a state is not finite, or too large for float32.
    """
    if STATE not in stores[0].shapes:
        return None
    size = stores[0].shapes[STATE][0]
    count = 0
    total = np.zeros(size)
    squares = np.zeros(size)
    # close to the mean, so that no digits are lost in the difference of squares
    shift = np.zeros(size)
    for store in stores:
        for start, stop in store.frame_spans:
            for first in range(start, stop, _BLOCK):
                rows = store.observations[STATE].block(first, min(first + _BLOCK, stop))
                rows = rows.astype(np.float64)
                if count == 0:
                    shift = rows[0]
                total += (rows - shift).sum(0)
                squares += np.square(rows - shift).sum(0)
                count += len(rows)
    if not (np.isfinite(total).all() and np.isfinite(squares).all()):
        raise DatasetError(
            "the state of an episode is not finite",
            "find the episode with `ofrl data verify`, or drop state from --observe",
        )
    offset = total / count
    variance = np.maximum(squares / count - np.square(offset), 0.0)
    std = np.maximum(np.sqrt(variance), MIN_STD)
    return (shift + offset).astype(np.float32), std.astype(np.float32)
