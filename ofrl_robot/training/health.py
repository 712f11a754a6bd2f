"""Detect divergence: NaN or Inf, and Q-values far above the possible range of returns.

Q far *below* it is no divergence: a conservative term pushes Q of data that it has learnt by heart
to -10^4 and further, and the verdict on such a run, overfit, is what its user needs.
"""

from __future__ import annotations

import math
from typing import Dict, List

import torch

from ofrl_robot.algos.base import Algorithm

# Times the largest return that the rewards allow: a diverging Q grows without end.
BEYOND_RETURNS = 100.0
# Power of a value in each metric: the squared error bounds the targets, which are not logged.
_POWERS = {"data_q": 1, "td_error": 2}


def value_limit(algorithm: Algorithm) -> float:
    """Return the absolute Q-value that counts as divergence; infinite without Q-functions."""
    if algorithm.value_limits is None:
        return math.inf
    return BEYOND_RETURNS * max(1.0, *(abs(bound) for bound in algorithm.value_limits))


def problems(row: Dict[str, float], limit: float) -> List[str]:
    """Return what is wrong with logged scalars, in words; empty if nothing is.

    Args:
        row: scalars by name.
        limit: of :func:`value_limit`.
    """
    found = [f"{k} is {v}" for k, v in row.items() if not math.isfinite(v)]
    for name, power in _POWERS.items():
        bound = limit**power
        if math.isfinite(row.get(name, 0.0)) and row.get(name, 0.0) > bound:
            found.append(
                f"{name} is {row[name]:.3g}, beyond {bound:.3g} ({BEYOND_RETURNS:g} "
                "times the range of returns)"
                if power == 1
                else f"{name} is {row[name]:.3g}, beyond {limit:.3g} squared"
            )
    return found


def non_finite_weights(algorithm: Algorithm) -> List[str]:
    """Return names of parameters that contain NaN or Inf; one transfer from the device."""
    state = {k: v for k, v in algorithm.state_dict().items() if v.is_floating_point()}
    finite = torch.stack([torch.isfinite(v).all() for v in state.values()]).tolist()
    return [name for name, sound in zip(state, finite) if not sound]
