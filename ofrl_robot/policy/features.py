"""Read what an actor makes of its observations, without computing anything twice."""

from __future__ import annotations

from typing import Any, Tuple

import torch

from ofrl_robot.nets.actor import Actor


class LastFeatures:
    """Keeps the input of the actor's last layer at every forward pass.

    Attributes:
        newest: (B, F), of the newest forward pass; empty before the first.
    """

    def __init__(self, actor: Actor) -> None:
        self.newest = torch.zeros(0, 0)
        self._hook = actor.head[-1].register_forward_pre_hook(self._keep)

    def _keep(self, _layer: Any, inputs: Tuple[torch.Tensor, ...]) -> None:
        self.newest = inputs[0].detach()

    def close(self) -> None:
        """Stop listening."""
        self._hook.remove()
