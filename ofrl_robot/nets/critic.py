"""An ensemble of Q-functions on one image code, evaluated for many actions per image at once."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple

import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import Encoder
from ofrl_robot.nets.mlp import Bottleneck, dropped, mlp


class QHead(nn.Module):
    """Q(code, action) with the first layer split into W_code code + W_action action.

    The caller computes ``from_code`` once per image, whatever the number of actions: equal to
    concatenating them, in value and gradient. With a bottleneck the first layer's output passes
    through it: the joint code of image and action, as in the workflow paper's code.
    """

    def __init__(self, config: NetConfig, code_size: int, action_size: int) -> None:
        super().__init__()
        first, later = config.hidden[0], tuple(config.hidden[1:])
        self.from_code = nn.Linear(code_size, first)
        self.from_action = nn.Linear(action_size, first, bias=False)
        self.activation = nn.Sequential(*dropped(config.dropout), nn.ReLU())
        self.bottleneck: Optional[Bottleneck] = None
        size = first
        if config.bottleneck and config.bottleneck_place == "critic":
            size = config.bottleneck_size
            self.bottleneck = Bottleneck(first, size)
            later = later or (first,)  # else Q would be linear in z
        self.rest = mlp((size,) + later + (1,), config.dropout)
        nn.init.uniform_(self.rest[-1].weight, -3e-3, 3e-3)
        nn.init.zeros_(self.rest[-1].bias)

    def forward(
        self, code_part: torch.Tensor, actions: torch.Tensor
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """``from_code`` of a code (B, H), (B, K, A) -> Q (B, K) float32 and the bottleneck's rate
        (B, K) or None."""
        x = self.activation(code_part.unsqueeze(1) + self.from_action(actions))
        rate = None
        if self.bottleneck is not None:
            x, rate = self.bottleneck(x)
        return self.rest(x).squeeze(-1), rate


class EncodedImage(NamedTuple):
    """What the heads know of an image before an action is joined: the image's part of the first
    layer, one (B, H) per Q-function. It is computed once for all actions that are evaluated."""

    parts: Tuple[torch.Tensor, ...]

    def detach(self) -> "EncodedImage":
        return EncodedImage(tuple(part.detach() for part in self.parts))


class Critic(nn.Module):
    """E Q-functions that share one encoder or have one each.

    ``q(encode(images), actions)``: images uint8 (B, H, W, 3), actions (B, K, A) -> (E, B, K).
    """

    def __init__(self, config: NetConfig, shape: Tuple[int, ...], action_size: int) -> None:
        super().__init__()
        self.shared = config.critic_encoders == "shared"
        self.encoders = nn.ModuleList(
            Encoder(config, shape, config.resnet_enc)
            for _ in range(1 if self.shared else config.ensemble)
        )
        size = self.encoders[0].size
        self.heads = nn.ModuleList(QHead(config, size, action_size) for _ in range(config.ensemble))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Flat trunk outputs, (B, F) or, of encoders of their own, (E, B, F): before any action
        is joined."""
        if self.shared:
            return self.encoders[0].features(images)
        return torch.stack([encoder.features(images) for encoder in self.encoders])

    def project(self, features: torch.Tensor) -> EncodedImage:
        """The code of :meth:`features`."""
        if self.shared:
            codes = [self.encoders[0].project(features)] * len(self.heads)
        else:
            codes = [e.project(f) for e, f in zip(self.encoders, features)]
        return EncodedImage(tuple(head.from_code(c) for head, c in zip(self.heads, codes)))

    def encode(self, images: torch.Tensor) -> EncodedImage:
        return self.project(self.features(images))

    def q(self, code: EncodedImage, actions: torch.Tensor) -> torch.Tensor:
        return self.q_and_rate(code, actions)[0]

    def q_and_rate(
        self, code: EncodedImage, actions: torch.Tensor
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Q and the bottleneck's rate, both (E, B, K); None without a bottleneck."""
        values, rates = zip(*(h(part, actions) for h, part in zip(self.heads, code.parts)))
        return torch.stack(values), None if rates[0] is None else torch.stack(rates)
