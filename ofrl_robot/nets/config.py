"""Settings of the networks, stored in every checkpoint so that it can be rebuilt alone."""

from __future__ import annotations

import dataclasses
from typing import Literal, Tuple

from ofrl_robot.errors import ConfigError

Head = Literal["gaussian", "mixture", "mixed"]


@dataclasses.dataclass(frozen=True)
class NetConfig:
    encoder: Literal["strided", "cog", "cog_deep", "cog_small"] = "strided"
    """Image trunk: "strided" (3 convs of 16, 32, 32 channels, 48 -> 12 px), "cog" (3 convs of 16
    with max-pooling, as in the COG and workflow papers' code), "cog_deep" (5 convs of 32) or
    "cog_small" (1 conv of 32)."""
    resnet_enc: bool = False
    """Residual trunk for the critics (underfitting correction; takes the place of `encoder`)."""
    resnet_policy: bool = False
    """Residual trunk for the policy."""
    latent: int = 64
    """Size of the image code after the trunk (linear, LayerNorm, tanh). 0 = none: the heads take
    the trunk's features, as in the papers' code."""
    hidden: Tuple[int, ...] = (256, 256)
    """Units of the hidden layers of actor and critic heads."""
    ensemble: int = 2
    """Number of Q-functions."""
    critic_encoders: Literal["shared", "separate"] = "shared"
    """One encoder for all Q-functions, or one each, as in the papers' code."""
    action_head: Head = "gaussian"
    """Policy: "gaussian" (tanh-Gaussian), "mixture" (of tanh-Gaussians) or "mixed" (tanh-Gaussian
    pose, categorical gripper and neutral: its mode does close the gripper)."""
    components: int = 5
    """Components of action_head "mixture"."""
    log_std_min: float = -5.0
    """Lower clamp of the policy's log standard deviation (before tanh)."""
    log_std_max: float = 2.0
    """Upper clamp of the same."""
    dropout: float = 0.0
    """Probability of dropping a channel (convolutions) or a unit (linear layers) while training,
    in policy and critics (overfitting correction; the follow-up paper uses 0.4)."""
    bottleneck: bool = False
    """Variational information bottleneck (overfitting correction); see bottleneck_const."""
    bottleneck_place: Literal["critic", "policy"] = "critic"
    """What passes through the bottleneck: the critics' joint code of image and action, or the
    policy's image code."""
    bottleneck_size: int = 16
    """Size of the bottleneck's code."""

    def __post_init__(self) -> None:
        for name in ("ensemble", "components", "bottleneck_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} is below 1")
        if self.latent < 0:
            raise ConfigError(f"latent {self.latent} is negative", "0 for no projection")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"hidden {list(self.hidden)} is not a list of sizes above 0", "e.g. 256 256"
            )
        if not self.log_std_min <= self.log_std_max:
            raise ConfigError(
                f"log_std_min {self.log_std_min} is above log_std_max {self.log_std_max}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout {self.dropout} is not in [0, 1)", "e.g. 0.2")
