"""The plain multi-layer perceptron that heads are made of."""

from __future__ import annotations

from typing import Tuple

from torch import nn


def mlp(sizes: Tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them; none after the last."""
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers += [nn.ReLU()] if i else []
        layers += [nn.Linear(a, b)]
    return nn.Sequential(*layers)
