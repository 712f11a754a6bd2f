"""Settings that every algorithm has, and what the config of an algorithm answers about it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, Optional

from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig


@dataclasses.dataclass(frozen=True)
class AlgoConfig:
    """Settings of every algorithm; base of the algorithms' own settings.

    The rest of the package asks the config, never which algorithm it is. A subclass overrides
    these class attributes, or makes a field of one (``discount: float = 0.99``):

    Attributes:
        name: name on the command line, in run folders and checkpoints.
        algorithm_path: ``"module:class"`` of the algorithm, imported when a run starts.
        learns_values: whether it has critics and needs rewards that are not all 0.
        needs_densities: whether the policy's log-densities are used, so that
            ``action_head deterministic`` is refused.
        n_step, discount: of the n-step returns in its batches.
        warm_start_steps: steps in which the actor only imitates.
        unused_parameters: whether some steps give a trained network no gradient, for which
            DistributedDataParallel has to look.

    Raises:
        ConfigError: a value is out of range.
    """

    name = ""
    algorithm_path = ""
    learns_values = False
    needs_densities = True
    n_step = 1
    discount = 1.0
    warm_start_steps = 0
    unused_parameters = False

    actor_lr: float = 3e-4
    """Adam learning rate of the actor (per step)."""
    shift: int = 1
    """Random shift of training images (pixels; 0 = off; the papers' random crop is 4)."""
    brightness: float = 0.0
    """Random brightness of training images: greatest value added (of 255; 0 = off). This and the
    next five make a policy indifferent to lamps and cameras (docs/training.md). The next image of
    a transition gets the same change."""
    contrast: float = 0.0
    """Random contrast: greatest relative change of the distance from mid-grey (e.g. 0.15)."""
    color: float = 0.0
    """Random colour balance: greatest relative gain of each channel by itself (e.g. 0.1)."""
    illumination: float = 0.0
    """Random shading: greatest relative change of the light at the picture's edges, for each of
    four smooth fields (e.g. 0.2)."""
    blur: float = 0.0
    """Random blur of one image in eight: greatest weight of the 3 x 3 blurred image (0 to 1)."""
    pixel_noise: float = 0.0
    """Random noise on one image in eight: greatest half-range per pixel (of 255)."""
    actor_average: float = 0.002
    """Rate per step of the Polyak average of the actor that is probed and deployed (1 = deploy
    the actor itself). Averaging over ~500 steps makes the choice of the checkpoint depend less on
    luck (docs/experiments.md)."""
    bottleneck_const: float = 1e-3
    """Weight of the bottleneck's mean KL (nats) in the loss, with --bottleneck."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{field.name} {value} is not finite")
        require(self, "actor_average", 0.0, 1.0, low_open=True, fix="1 deploys the actor itself")
        if self.shift < 0:
            raise ConfigError(f"shift {self.shift} is negative", "use 0 for no shift")
        for name, most in (("brightness", 128.0), ("pixel_noise", 128.0), ("blur", 1.0)):
            require(self, name, 0.0, most, fix="it must leave something of the picture")
        for name in ("contrast", "color", "illumination"):
            require(self, name, 0.0, 0.9, fix="it must leave something of the picture")
        require(self, "actor_lr", 0.0, low_open=True)
        require(self, "bottleneck_const", 0.0)

    @property
    def holds_out(self) -> bool:
        """Whether it needs held-out episodes; without a split every 20th is one."""
        return False

    @property
    def settling_steps(self) -> int:
        """Steps in which the average Q moves for other reasons than fit; the verdict skips them."""
        return self.warm_start_steps

    @property
    def behavior_checkpoint(self) -> Optional[Path]:
        """Run folder or checkpoint of a policy that the algorithm is given, or None."""
        return None

    def check(self, nets: NetConfig) -> None:
        """Raise ConfigError for settings that exclude each other, or that would do nothing."""
        if nets.action_head == "deterministic" and self.needs_densities:
            raise ConfigError(
                f"action_head deterministic has no density, which {self.name} needs",
                "use gaussian, mixture or mixed",
            )
        if not nets.bottleneck:
            refuse_unused(self, "--bottleneck", "bottleneck_const")
            for name in ("bottleneck_place", "bottleneck_size"):
                if getattr(nets, name) != getattr(NetConfig, name):
                    refuse(name, "--bottleneck")
        if nets.action_head != "mixture" and nets.components != NetConfig.components:
            refuse("components", "--action-head mixture")

    def distributed_refusal(self) -> str:
        """Return why it cannot train in several processes, or ``""`` when it can."""
        return ""

    def values_may_be_negative(self, reward_scale: float, reward_bias: float) -> bool:
        """Return whether sound values of rewards 0 and 1, scaled and shifted, may be below 0."""
        return False


def require(
    config: AlgoConfig,
    name: str,
    low: float,
    high: float = math.inf,
    low_open: bool = False,
    fix: str = "",
) -> None:
    """Raise ConfigError unless that setting is a finite number from ``low`` to ``high``."""
    value = getattr(config, name)
    if low_open and high == math.inf and not low < value < high:
        raise ConfigError(f"{name} {value} is not above {low:g}", fix)
    if high == math.inf and not low <= value < high:
        raise ConfigError(f"{name} {value} is below {low:g}", fix)
    if not (low < value <= high or (not low_open and value == low)):
        bracket = "(" if low_open else "["
        raise ConfigError(f"{name} {value} is not in {bracket}{low:g}, {high:g}]", fix)


def refuse_unused(config: AlgoConfig, needs: str, name: str) -> None:
    """Refuse a setting that was changed although the setting that reads it is off."""
    default = {field.name: field.default for field in dataclasses.fields(config)}[name]
    if getattr(config, name) != default:
        refuse(name, needs)


def refuse(name: str, needs: str) -> None:
    """Raise ConfigError: the setting ``name`` does nothing without ``needs``."""
    raise ConfigError(f"{name} does nothing without {needs}", "set both or drop it")


def plain(config: Any) -> Dict[str, Any]:
    """Return a config dataclass as JSON-able values."""
    values = dataclasses.asdict(config)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}
