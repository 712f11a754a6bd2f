"""Settings of the networks, stored in every checkpoint so that it can be rebuilt alone."""

from __future__ import annotations

import dataclasses
from typing import Tuple

from typing_extensions import Literal

from ofrl_robot.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class NetConfig:
    encoder: Literal["strided", "cog"] = "strided"
    """Image trunk: "strided" (3 convs of 16, 32, 32 channels, 48 -> 12 px) or "cog" (3 convs of 16
    with max-pooling, as in the COG and workflow papers' code)."""
    latent: int = 64
    """Size of the image code after the trunk (linear, LayerNorm, tanh)."""
    hidden: Tuple[int, ...] = (256, 256)
    """Units of the hidden layers of actor and critic heads."""
    log_std_min: float = -5.0
    """Lower clamp of the actor's log standard deviation (before tanh)."""
    log_std_max: float = 2.0
    """Upper clamp of the same."""

    def __post_init__(self) -> None:
        if self.latent < 1:
            raise ConfigError("latent {} is below 1".format(self.latent))
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                "hidden {} is not a list of sizes above 0".format(list(self.hidden)), "e.g. 256 256"
            )
        if not self.log_std_min <= self.log_std_max:
            raise ConfigError(
                "log_std_min {} is above log_std_max {}".format(self.log_std_min, self.log_std_max)
            )
