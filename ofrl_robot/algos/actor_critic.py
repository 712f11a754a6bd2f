"""Actor-critic step with three hooks: target, critic regulariser, actor loss.

Update order as in EDAC's and d3rlpy's code: temperature, actor and critic losses are computed on
the same weights, then all step. The critics are frozen in the actor's pass, so their weight
gradients are neither computed nor mixed up with it. Each image is encoded once per network.
"""

from __future__ import annotations

import copy
import math
from typing import Dict, Tuple

import torch

from ofrl_robot.algos.base import Algorithm, Losses, TensorBatch, frozen, polyak
from ofrl_robot.algos.config import CQLConfig
from ofrl_robot.nets.actor import TanhGaussian
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic


class ActorCritic(Algorithm):
    """SAC's skeleton; subclasses fill the hooks."""

    config: CQLConfig

    def __init__(
        self,
        config: CQLConfig,
        nets: NetConfig,
        image_shape: Tuple[int, int, int],
        action_size: int,
        device: torch.device,
        bf16: bool = False,
    ) -> None:
        super().__init__(config, nets, image_shape, action_size, device, bf16)
        self.critic = Critic(nets, image_shape, action_size).to(device)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.critic_optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=config.critic_lr, fused=True
        )
        self.target_entropy = config.target_entropy * action_size
        self.log_alpha = torch.full(
            (), math.log(config.initial_alpha), device=device, requires_grad=True
        )
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=config.actor_lr)

    @property
    def alpha(self) -> torch.Tensor:
        """Entropy temperature, detached."""
        return self.log_alpha.detach().exp()

    # -- hooks ----------------------------------------------------------------------------

    def target(self, batch: TensorBatch, next_dist: TanhGaussian) -> torch.Tensor:
        """Regression target (B,), no gradient."""
        raise NotImplementedError

    def critic_regulariser(
        self, batch: TensorBatch, code: torch.Tensor, data_q: torch.Tensor,
        dist: TanhGaussian, next_dist: TanhGaussian,
    ) -> torch.Tensor:  # fmt: skip
        """Regulariser per critic (E,), un-multiplied by its weight."""
        raise NotImplementedError

    def actor_loss(
        self, batch: TensorBatch, code: torch.Tensor, dist: TanhGaussian,
        action: torch.Tensor, log_prob: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Loss of the actor (scalar) from one reparametrised sample (B, 1, A) per state."""
        raise NotImplementedError

    # -- step -----------------------------------------------------------------------------

    def losses(self, batch: TensorBatch) -> Losses:
        dist = self.actor(batch.images)
        action, log_prob = dist.sample(1)
        with torch.no_grad():
            next_dist = self.actor(batch.next_images)
            target = self.target(batch, next_dist)
        code = self.critic.encode(batch.images)

        alpha_loss = -self.log_alpha * (log_prob.detach() + self.target_entropy).mean()
        with frozen(self.critic):
            actor_loss = self.actor_loss(batch, code.detach(), dist, action, log_prob)
        data_q = self.critic.q(code, batch.actions.unsqueeze(1)).squeeze(-1)
        td_error = (data_q - target).square().mean(1)
        detached = TanhGaussian(dist.mean.detach(), dist.log_std.detach())
        regulariser = self.critic_regulariser(batch, code, data_q, detached, next_dist)
        critic_loss = (td_error + self.config.cql_weight * regulariser).sum()
        return Losses(
            [
                (self.alpha_optimizer, alpha_loss),
                (self.actor_optimizer, actor_loss),
                (self.critic_optimizer, critic_loss),
            ],
            {
                "actor_loss": actor_loss.detach(),
                "td_error": td_error.detach().mean(),
                "cql_term": regulariser.detach().mean(),
                "data_q": data_q.detach().mean(),
                "alpha": self.alpha,
            },
        )

    def after_step(self) -> None:
        polyak(self.target_critic, self.critic, self.config.target_rate)

    def probe_metrics(self, batch: TensorBatch) -> Dict[str, torch.Tensor]:
        metrics = super().probe_metrics(batch)
        dist = self.average_actor(batch.images)
        next_dist = self.average_actor(batch.next_images)
        code = self.critic.encode(batch.images)
        data_q = self.critic.q(code, batch.actions.unsqueeze(1)).squeeze(-1)
        target = self.target(batch, next_dist)
        policy_q = self.critic.q(code, dist.sample(1)[0]).squeeze(-1)
        mode_q = self.critic.q(code, dist.mode.unsqueeze(1)).squeeze(-1)
        random_q = self.critic.q(code, torch.rand_like(batch.actions).mul(2).sub(1).unsqueeze(1))
        regulariser = self.critic_regulariser(batch, code, data_q, dist, next_dist)
        metrics.update(
            data_q=data_q[0].mean(),
            data_q_min=data_q.min(0).values.mean(),
            policy_q=policy_q[0].mean(),
            mode_q=mode_q[0].mean(),
            random_q=random_q[0].mean(),
            td_error=(data_q[0] - target).square().mean(),
            target_variance=target.var(unbiased=False),  # finite for one transition too
            cql_term=regulariser[0],
        )
        return metrics
