"""Settings of the networks, stored in every checkpoint so that it can be rebuilt alone."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Literal, Tuple, get_args

from ofrl_robot.errors import ConfigError

Head = Literal["gaussian", "mixture", "mixed", "deterministic"]
Trunk = Literal["strided", "cog", "cog_deep", "cog_small"]
CriticEncoders = Literal["shared", "separate"]
BottleneckPlace = Literal["critic", "policy"]

# Bounds of what a file or a flag may ask for; far above every published network.
MAX_UNITS = 65536
MAX_LAYERS = 64
MAX_CRITICS = 50
MAX_COMPONENTS = 1000

_CHOICES: Dict[str, Tuple[str, ...]] = {
    "encoder": get_args(Trunk),
    "critic_encoders": get_args(CriticEncoders),
    "action_head": get_args(Head),
    "bottleneck_place": get_args(BottleneckPlace),
}
_RANGES = {
    "latent": (0, MAX_UNITS),
    "largest_map": (0, MAX_UNITS),
    "n_critics": (1, MAX_CRITICS),
    "components": (1, MAX_COMPONENTS),
    "bottleneck_size": (1, MAX_UNITS),
}
_ZERO = {"latent": "0 for no projection", "largest_map": "0 leaves the maps as they are"}


@dataclasses.dataclass(frozen=True)
class NetConfig:
    """Settings of actor and critics.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """

    encoder: Trunk = "strided"
    """Image trunk: "strided" (3 convs of 16, 32, 32 channels, 48 -> 12 px), "cog" (3 convs of 16
    with max-pooling, as in the COG and workflow papers' code), "cog_deep" (5 convs of 32) or
    "cog_small" (1 conv of 32). Each camera has its own."""
    resnet_enc: bool = False
    """Residual trunk for the critics (underfitting correction; takes the place of `encoder`)."""
    resnet_policy: bool = False
    """Residual trunk for the policy."""
    latent: int = 64
    """Size of the code of each image after the trunk (linear, LayerNorm, tanh). 0 = none: the
    heads take the trunk's features, as in the papers' code."""
    largest_map: int = 48
    """Average the trunk's maps over areas until they are as small as those of an image of so many
    pixels a side: features and weights then do not grow with larger images. 0 = leave them."""
    hidden: Tuple[int, ...] = (256, 256)
    """Units of the hidden layers of actor and critic heads."""
    n_critics: int = 2
    """Number of Q-functions, 1 to 50."""
    critic_encoders: CriticEncoders = "shared"
    """One encoder for all Q-functions, or one each, as in the papers' code."""
    action_head: Head = "gaussian"
    """Policy: "gaussian" (tanh-Gaussian), "mixture" (of tanh-Gaussians), "mixed" (tanh-Gaussian
    pose, categorical gripper and neutral: its mode does close the gripper) or "deterministic"
    (one action; only for algorithms that need no densities)."""
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
    bottleneck_place: BottleneckPlace = "critic"
    """What passes through the bottleneck: the critics' joint code of observation and action, or
    the policy's code of the observation."""
    bottleneck_size: int = 16
    """Size of the bottleneck's code."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "hidden":
                _require_type(field.name, getattr(self, field.name), field.default)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is unknown", f"use {', '.join(choices)}"
                )
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{name} {getattr(self, name)} is not in {low} to {high}",
                    _ZERO.get(name, ""),
                )
        _require_hidden(self.hidden)
        if not self.log_std_min <= self.log_std_max:
            raise ConfigError(
                f"log_std_min {self.log_std_min} is above log_std_max {self.log_std_max}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout {self.dropout} is not in [0, 1)", "e.g. 0.2")

    @staticmethod
    def from_dict(data: Dict[str, Any]) -> "NetConfig":
        """Build the settings from ``dataclasses.asdict``, e.g. as read from JSON.

        Files written before ``largest_map`` was a setting have networks without it.

        Raises:
            ConfigError: a value is out of range.
            KeyError, TypeError: a setting is unknown or missing.
        """
        return NetConfig(**{"largest_map": 0, **data, "hidden": tuple(data["hidden"])})


def _require_type(name: str, value: Any, default: Any) -> None:
    """Raise ConfigError unless ``value`` has the type of the default; an int may be a float."""
    right = isinstance(value, type(default))
    if isinstance(default, float):
        right = isinstance(value, (int, float))
    if isinstance(value, bool) and not isinstance(default, bool):
        right = False
    if not right:
        raise ConfigError(
            f"{name} {value!r:.80} is not a {type(default).__name__}", f"e.g. {default}"
        )


def _require_hidden(hidden: Tuple[int, ...]) -> None:
    example = "e.g. 256 256"
    if not 1 <= len(hidden) <= MAX_LAYERS:
        raise ConfigError(f"hidden has {len(hidden)} layers, not 1 to {MAX_LAYERS}", example)
    for units in hidden:
        if isinstance(units, bool) or not isinstance(units, int) or not 1 <= units <= MAX_UNITS:
            raise ConfigError(
                f"hidden {units!r:.80} is not a number of units from 1 to {MAX_UNITS}", example
            )
