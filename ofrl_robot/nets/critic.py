"""An ensemble of Q-functions on one image code, evaluated for many actions per image at once."""

from __future__ import annotations

from typing import Tuple

import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import Encoder
from ofrl_robot.nets.mlp import mlp


class QHead(nn.Module):
    """Q(code, action) with the first layer split into W_code code + W_action action.

    The code part is computed once per image whatever the number of actions: equal to
    concatenating them, in value and gradient.
    """

    def __init__(self, config: NetConfig, action_size: int) -> None:
        super().__init__()
        hidden = tuple(config.hidden)
        self.from_code = nn.Linear(config.latent, hidden[0])
        self.from_action = nn.Linear(action_size, hidden[0], bias=False)
        self.rest = nn.Sequential(nn.ReLU(), mlp(hidden + (1,)))
        nn.init.uniform_(self.rest[-1][-1].weight, -3e-3, 3e-3)
        nn.init.zeros_(self.rest[-1][-1].bias)

    def forward(self, code: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        first = self.from_code(code).unsqueeze(1) + self.from_action(actions)
        return self.rest(first).squeeze(-1)


class Critic(nn.Module):
    """Two or more Q-functions sharing one encoder.

    ``q(encode(images), actions)``: images uint8 (B, H, W, 3), actions (B, K, A) -> (E, B, K).
    """

    def __init__(
        self,
        config: NetConfig,
        image_shape: Tuple[int, int, int],
        action_size: int,
        ensemble: int = 2,
    ) -> None:
        super().__init__()
        self.encode = Encoder(config, image_shape)
        self.heads = nn.ModuleList(QHead(config, action_size) for _ in range(ensemble))

    def q(self, code: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return torch.stack([head(code, actions) for head in self.heads])
