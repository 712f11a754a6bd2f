"""Settings of behavioural cloning."""

from __future__ import annotations

import dataclasses

from ofrl_robot.algos.configs.base import AlgoConfig
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig


@dataclasses.dataclass(frozen=True)
class BCConfig(AlgoConfig):
    """Behavioural cloning: maximum likelihood."""

    name = "bc"
    algorithm_path = "ofrl_robot.algos.bc:BC"

    def check(self, nets: NetConfig) -> None:
        """Refuse settings of a critic as well."""
        super().check(nets)
        if nets.bottleneck and nets.bottleneck_place == "critic":
            raise ConfigError("bc has no critic to bottleneck", "use --bottleneck-place policy")
        if nets.resnet_enc:
            raise ConfigError("bc has no critic for --resnet-enc", "use --resnet-policy")
