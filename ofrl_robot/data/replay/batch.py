"""Define what a batch of transitions holds: numpy arrays on the host, tensors on a device."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict


@dataclasses.dataclass
class Batch:
    """B transitions, the one definition for every sampler and every algorithm.

    The arrays are numpy arrays when a sampler made the batch, and torch tensors on the training
    device once :meth:`map` has moved them there.

    Attributes:
        observations, next_observations: by name, in the order in which the policy reads them:
            uint8 (B, H, W, 3) per camera, float32 (B, D) for ``specs.STATE``. ``next`` is k steps
            on, k <= n of the n-step returns.
        actions: float32 (B, A).
        rewards: float32 (B,), sum of k discounted rewards.
        bootstrap: float32 (B,), weight of the value of ``next_observations``: discount ** k, or 0
            after a terminal.
        next_actions: float32 (B, A), the data's action at ``next_observations``.
        has_next_action: float32 (B,), 0 where the episode ends before, else 1.
        returns: float32 (B,), discounted sum of all rewards to the end of the episode.
    """

    observations: Dict[str, Any]
    next_observations: Dict[str, Any]
    actions: Any
    rewards: Any
    bootstrap: Any
    next_actions: Any
    has_next_action: Any
    returns: Any

    def __len__(self) -> int:
        return len(self.actions)

    def map(self, function: Callable[[Any], Any]) -> "Batch":
        """Return a batch with ``function`` applied to every array."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                values[field.name] = {name: function(array) for name, array in value.items()}
            else:
                values[field.name] = function(value)
        return Batch(**values)
