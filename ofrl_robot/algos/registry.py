"""Find algorithms by name, ours and other packages'. Importing this imports no torch.

An entry is the config class of an algorithm, which says where the algorithm itself is. Another
package adds one through an entry point, see :class:`ofrl_robot.registry.Registry`.
"""

from __future__ import annotations

from typing import Type

from ofrl_robot.algos.configs.base import AlgoConfig
from ofrl_robot.errors import ConfigError
from ofrl_robot.registry import Registry

ALGORITHMS = Registry(
    "algorithm",
    "ofrl_robot.algorithms",
    {
        "bc": "ofrl_robot.algos.configs.bc:BCConfig",
        "cql": "ofrl_robot.algos.configs.cql:CQLConfig",
        "brac": "ofrl_robot.algos.configs.brac:BRACConfig",
    },
)


def config_class(name: str) -> Type[AlgoConfig]:
    """Return the config class of an algorithm.

    Raises:
        ConfigError: there is no such algorithm, it cannot be imported, or its entry is not an
            :class:`AlgoConfig` of that name.
    """
    config = ALGORITHMS.load(name)
    if not (isinstance(config, type) and issubclass(config, AlgoConfig) and config.name == name):
        raise ConfigError(
            f"algorithm {name!r} is registered as {config!r:.80}",
            f"register a subclass of AlgoConfig whose name is {name!r}",
        )
    return config
