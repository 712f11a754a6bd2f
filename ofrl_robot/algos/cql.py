"""Conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779).

Critic loss per Q-function, w = ``cql_weight``, T = ``cql_temperature``:

    L = E[(Q(s,a) - y)^2] + w R,   R = E_s[softmax_a Q(s,a)] - E[Q(s,a_data)]

    softmax of variant h:    T log integral exp(Q(s,a) / T) da
    softmax of variant rho:  T log E_{a ~ pi(.|s)} exp(Q(s,a) / T)

The integral is estimated from actions of Uniform(-1,1)^A, pi(.|s) and pi(.|s'), all evaluated at
s, each value corrected by its log-density. Without importance sampling there is no correction: the
soft maximum is over the sampled actions.

With K sampled actions R is their log-mean, so it does not depend on K. The papers' code takes the
log-sum, which is R + T log K. That is a constant, except to a Lagrange multiplier l with its gap:

    w l (R + T log K) - l gap

So a published gap is given as it is published.
"""

from __future__ import annotations

import math
from typing import Dict

import torch

from ofrl_robot.algos.actor_critic import ActorCritic, Proposals
from ofrl_robot.algos.base import Build
from ofrl_robot.algos.configs.cql import CQLConfig
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.nets.distributions import ActionDistribution
from ofrl_robot.nets.dual import LagrangeMultiplier


class CQL(ActorCritic):
    """The conservative regulariser on the actor-critic skeleton."""

    config: CQLConfig

    def __init__(self, config: CQLConfig, build: Build) -> None:
        super().__init__(config, build)
        uniform, here, there = config.cql_samples
        self._samples = here if config.cql_variant == "rho" else uniform + here + there
        if config.lagrange:
            self.multiplier = LagrangeMultiplier(1.0).to(self.device)
            self.train_network(self.multiplier, config.critic_lr)

    def proposals(self, dist: ActionDistribution, next_dist: ActionDistribution) -> Proposals:
        """Draw uniform actions and actions of the policy here and at the next state."""
        n_uniform, here, there = self.config.cql_samples
        if self.config.cql_variant == "rho":
            n_uniform = there = 0
        drawn = []
        if n_uniform:
            drawn.append(dist.uniform(n_uniform))
        if here:
            drawn.append(dist.sample(here))
        if there:
            drawn.append(next_dist.sample(there))
        actions, log_densities = zip(*drawn)
        return Proposals(torch.cat(actions, 1), torch.cat(log_densities, 1), n_uniform)

    def regulariser(
        self, batch: Batch, data_q: torch.Tensor, q: torch.Tensor, proposals: Proposals
    ) -> torch.Tensor:
        """Return R, the soft maximum of Q minus Q at the data's actions (E,)."""
        temperature = self.config.cql_temperature
        exponent = q / temperature
        if self.config.cql_variant == "h" and self.config.importance_sampling:
            exponent = exponent - proposals.log_density
        # mean, not sum, inside: the estimate converges to the log of the integral as N grows
        soft = torch.logsumexp(exponent, -1) - math.log(exponent.shape[-1])
        return (temperature * soft - data_q).mean(1)

    def regulariser_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return the weighted term, and the loss of its multiplier when tuned."""
        config = self.config
        weighted = config.cql_weight * value
        if not config.lagrange:
            return {"critic": weighted.sum()}
        # published gaps are of the log-sum: 2.48 above the log-mean for 3 x 4 actions
        log_sum = weighted + config.cql_weight * config.cql_temperature * math.log(self._samples)
        excess = log_sum - config.lagrange_gap
        return {
            "critic": (self.multiplier.value * excess).sum(),
            "multiplier": self.multiplier.loss(excess),
        }
