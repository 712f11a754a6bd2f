"""Conservative Q-learning, CQL(H) with importance sampling (Kumar et al. 2020, arXiv 2006.04779).

Critic loss per Q-function, w = ``cql_weight``:

    L = E[(Q(s,a) - y)^2] + w R,   R = E_s[logsumexp_a Q(s,a)] - E[Q(s,a_data)]
    y = r + discount (1 - terminal) mean_k min_i Q'_i(s', a'_k),  a'_k ~ pi(.|s')

R is estimated from N actions each of Uniform(-1,1)^A, pi(.|s) and pi(.|s'), all evaluated at s,
each value corrected by its log-density. Actor loss after the warm start, b = ``actor_bc_weight``:

    alpha log pi(a|s) - min_i Q_i(s,a) - b log pi(a_data|s),  a ~ pi(.|s)

and during it alpha log pi(a|s) - log pi(a_data|s), as in COG's code.
"""

from __future__ import annotations

import math

import torch

from ofrl_robot.algos.actor_critic import ActorCritic
from ofrl_robot.algos.base import TensorBatch
from ofrl_robot.nets.actor import TanhGaussian


class CQL(ActorCritic):
    """The three hooks of CQL(H)."""

    def target(self, batch: TensorBatch, next_dist: TanhGaussian) -> torch.Tensor:
        next_actions, _ = next_dist.sample(self.config.target_samples)
        next_code = self.target_critic.encode(batch.next_images)
        next_q = self.target_critic.q(next_code, next_actions).min(0).values.mean(1)
        target = batch.rewards + self.config.discount * batch.not_terminal * next_q
        if self.config.clip_targets:
            target = target.clamp(0.0, 1.0 / (1.0 - self.config.discount))
        return target

    def critic_regulariser(
        self, batch: TensorBatch, code: torch.Tensor, data_q: torch.Tensor,
        dist: TanhGaussian, next_dist: TanhGaussian,
    ) -> torch.Tensor:  # fmt: skip
        count = self.config.cql_samples
        size, entries = batch.actions.shape
        with torch.no_grad():
            uniform = torch.rand(size, count, entries, device=batch.actions.device) * 2.0 - 1.0
            here, here_density = dist.sample(count)
            there, there_density = next_dist.sample(count)
            uniform_density = uniform.new_full((size, count), -entries * math.log(2.0))
            actions = torch.cat([uniform, here, there], 1)
            density = torch.cat([uniform_density, here_density, there_density], 1)
        values = self.critic.q(code, actions) - density
        # mean, not sum, inside: the estimate converges to log of the integral of exp Q as N grows
        return (torch.logsumexp(values, -1) - data_q).mean(1) - math.log(3 * count)

    def actor_loss(
        self, batch: TensorBatch, code: torch.Tensor, dist: TanhGaussian,
        action: torch.Tensor, log_prob: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        entropy = self.alpha * log_prob.squeeze(1)
        warm = self.step < self.config.warm_start_steps
        bc_weight = 1.0 if warm else self.config.actor_bc_weight
        loss = entropy
        if bc_weight:
            loss = loss - bc_weight * dist.log_prob(batch.actions)
        if not warm:
            loss = loss - self.critic.q(code, action).squeeze(-1).min(0).values
        return loss.mean()
