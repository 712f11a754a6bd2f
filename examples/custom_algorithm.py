"""Add an algorithm of your own: a config and a class, side by side.

This one is reward-weighted regression: behavioural cloning in which each transition counts by the
return that the data had from there on (Peters and Schaal 2007, "Reinforcement learning by
reward-weighted regression for operational space control"), w = exp((R - max R) / beta).

To use it from the command line (``ofrl train DATASET --algo rwr --beta 0.5``), make a small package
of it whose setup.cfg names it, and install that package into the same environment::

    [options.entry_points]
    ofrl_robot.algorithms =
        rwr = custom_algorithm:RWRConfig

Run this file to train it on a dataset:  python examples/custom_algorithm.py datasets/grasp runs/rwr
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from ofrl_robot.algos.base import Algorithm, Losses
from ofrl_robot.algos.configs.base import AlgoConfig, require
from ofrl_robot.algos.registry import ALGORITHMS
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.training.config import RunConfig, TrainConfig
from ofrl_robot.training.loop import train


@dataclasses.dataclass(frozen=True)
class RWRConfig(AlgoConfig):
    """Reward-weighted regression."""

    name = "rwr"
    algorithm_path = "custom_algorithm:RWR"

    discount: float = 0.95
    """Discount of the returns, per step."""
    beta: float = 1.0
    """Temperature of the weights (in units of return); large: plain cloning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "beta", 0.0, low_open=True)


class RWR(Algorithm):
    """Likelihood of the data's actions, weighted by their returns."""

    config: RWRConfig

    def losses(self, batch: Batch) -> Losses:
        """Return the weighted negative log-likelihood."""
        log_prob = self.actor(batch.observations).log_prob(batch.actions)
        weights = torch.softmax(batch.returns / self.config.beta, 0)  # sum 1, no overflow
        loss = -(weights * log_prob).sum()
        return Losses({"actor": loss}, {"actor_loss": loss.detach()})


def main(dataset: str, run: str, steps: int = 200) -> None:
    """Train for a few steps."""
    ALGORITHMS.register("rwr", RWRConfig)
    sys.modules.setdefault("custom_algorithm", sys.modules[__name__])  # where it is found when run
    settings = TrainConfig(steps=steps, checkpoint_every=steps // 2, probe_size=256)
    config = RunConfig(Path(dataset), "rwr", RWRConfig(beta=0.5), NetConfig(), settings)
    train(config, Path(run))


if __name__ == "__main__":
    main(*sys.argv[1:3])
