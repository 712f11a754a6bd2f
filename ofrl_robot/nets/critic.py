"""An ensemble of Q-functions, evaluated for many actions per encoded observation at once."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.encoder import Encoder, Features
from ofrl_robot.nets.mlp import Bottleneck, EnsembleLinear, dropped, ensemble_mlp


class QHeads(nn.Module):
    """E functions Q(code, action) with the first layer split into W_code code + W_action action.

    The caller computes ``code_layer`` once per observation, whatever the number of actions: equal
    to concatenating them, in value and gradient. With a bottleneck the first layer's output passes
    through it: the joint code of observation and action, as in the workflow paper's code.
    """

    def __init__(self, config: NetConfig, code_size: int, action_size: int) -> None:
        super().__init__()
        count, first = config.n_critics, config.hidden[0]
        later = tuple(config.hidden[1:])
        self.code_layer = EnsembleLinear(count, code_size, first)
        self.action_layer = EnsembleLinear(count, action_size, first, bias=False)
        self.activation = nn.Sequential(*dropped(config.dropout), nn.ReLU())
        self.bottleneck: Optional[Bottleneck] = None
        size = first
        if config.bottleneck and config.bottleneck_place == "critic":
            size = config.bottleneck_size
            self.bottleneck = Bottleneck(EnsembleLinear(count, first, 2 * size, exact=True))
            later = later or (first,)  # else Q would be linear in z
        self.output = ensemble_mlp(count, (size, *later, 1), config.dropout)
        self._reset(count)

    def _reset(self, count: int) -> None:
        """Draw the weights head by head, so that a head does not depend on how many follow."""
        layers = [module for module in self.modules() if isinstance(module, EnsembleLinear)]
        last = layers[-1]
        for head in range(count):
            for layer in layers:
                layer.reset(head)
            nn.init.uniform_(last.weight[head], -3e-3, 3e-3)
        assert last.bias is not None
        nn.init.zeros_(last.bias)

    def forward(
        self, code_part: torch.Tensor, actions: torch.Tensor
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Evaluate K actions per observation.

        Args:
            code_part: ``code_layer`` of a code, (E, B, H).
            actions: (B, K, A).

        Returns:
            Q float32 (E, B, K), and the bottleneck's KL (E, B, K) or None.
        """
        count = code_part.shape[0]
        x = self.action_layer(actions.expand(count, -1, -1, -1))
        x = self.activation(code_part.unsqueeze(2) + x)
        kl = None
        if self.bottleneck is not None:
            x, kl = self.bottleneck(x)
        return self.output(x).squeeze(-1), kl


class EncodedObservation(NamedTuple):
    """An observation as the Q-heads need it, computed once for all actions.

    Attributes:
        code_part: (E, B, H), the observation's part of the heads' first layer.
        features: flat trunk outputs (B, F), one per encoder and camera.
    """

    code_part: torch.Tensor
    features: Tuple[torch.Tensor, ...]

    def detach(self) -> "EncodedObservation":
        """Return the same without a gradient."""
        return EncodedObservation(
            self.code_part.detach(), tuple(feature.detach() for feature in self.features)
        )


class Critic(nn.Module):
    """E Q-functions that share one encoder or have one each.

    ``q(encode(observations), actions)``: observations by name as in
    :class:`~ofrl_robot.nets.encoder.Encoder`, actions (B, K, A) -> (E, B, K).
    """

    def __init__(
        self, config: NetConfig, shapes: Dict[str, Tuple[int, ...]], action_size: int
    ) -> None:
        super().__init__()
        self._shared = config.critic_encoders == "shared"
        self._count = config.n_critics
        self.encoders = nn.ModuleList(
            Encoder(config, shapes, config.resnet_enc)
            for _ in range(1 if self._shared else self._count)
        )
        self.heads = QHeads(config, self._encoders()[0].size, action_size)

    def features(self, observations: Dict[str, torch.Tensor]) -> Tuple[torch.Tensor, ...]:
        """Return the flat trunk outputs (B, F), one per encoder and camera."""
        return _images([encoder.features(observations) for encoder in self._encoders()])

    def encode(self, observations: Dict[str, torch.Tensor]) -> EncodedObservation:
        """Encode a batch of observations once, for :meth:`q` at any number of actions."""
        features = [encoder.features(observations) for encoder in self._encoders()]
        codes = [encoder.join(x) for encoder, x in zip(self._encoders(), features)]
        if self._shared:
            code = codes[0].expand(self._count, -1, -1)
        else:
            code = torch.stack(codes)
        return EncodedObservation(self.heads.code_layer(code), _images(features))

    def q(self, encoded: EncodedObservation, actions: torch.Tensor) -> torch.Tensor:
        """Return Q float32 (E, B, K) of actions (B, K, A)."""
        return self.q_and_kl(encoded, actions)[0]

    def q_and_kl(
        self, encoded: EncodedObservation, actions: torch.Tensor
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Return Q and the bottleneck's KL, both (E, B, K); None without a bottleneck."""
        return self.heads(encoded.code_part, actions)

    def weight_magnitude(self) -> torch.Tensor:
        """Return the sum over all weight tensors of their mean absolute value.

        The heads' tensors count once per Q-function, as if each had tensors of its own. Gains and
        biases of LayerNorm do not count: shrinking them is no less capacity.
        """
        _, others = split_norms(self.encoders)
        parts = [p.abs().mean() for p in others]
        parts += [p.abs().flatten(1).mean(1).sum() for p in self.heads.parameters()]
        return torch.stack(parts).sum()

    def _encoders(self) -> List[Encoder]:
        return list(self.encoders)  # type: ignore[arg-type]


def split_norms(network: nn.Module) -> Tuple[List[nn.Parameter], List[nn.Parameter]]:
    """Return the parameters of all LayerNorms in ``network``, and all others."""
    layers = [m for m in network.modules() if isinstance(m, nn.LayerNorm)]
    norms = [p for layer in layers for p in layer.parameters()]
    known = {id(p) for p in norms}
    return norms, [p for p in network.parameters() if id(p) not in known]


def _images(features: List[Features]) -> Tuple[torch.Tensor, ...]:
    return tuple(image for each in features for image in each.images)
