"""The actor-critic step that CQL and BRAC fill with hooks.

Losses of temperature, actor and critics are computed on the same weights, then all step, as in
EDAC's and d3rlpy's code. The critics are frozen in the actor's pass, so their weight gradients
are neither computed nor mixed up with it. Each image is encoded once per network.

Target, with m = 0 after a terminal and 1 otherwise, k = ``n_step`` rewards (fewer at the end of an
episode), D a divergence from the data's behaviour with weight beta:

    y = clip(r + discount^k m V) - discount^k m ([alpha log pi(a'|s')] + [beta D(s')])
    V = E_{a' ~ pi(.|s')} red_i Q'_i(s', a'),  red = lambda min + (1 - lambda) max
"""

from __future__ import annotations

import copy
from typing import Dict, Optional, Tuple

import torch

from ofrl_robot.algos.base import Algorithm, Losses, TensorBatch, frozen, polyak
from ofrl_robot.algos.config import ActorCriticConfig
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic, EncodedImage
from ofrl_robot.nets.distributions import ActionDistribution
from ofrl_robot.nets.dual import LagrangeMultiplier
from ofrl_robot.specs import ActionSpec

Proposals = Tuple[torch.Tensor, torch.Tensor]  # actions (B, K, A), log-densities (B, K)


class ActorCritic(Algorithm):
    """SAC's skeleton; subclasses fill the hooks.

    Args:
        reward_range: least and greatest reward of the data, for ``clip_targets``.
    """

    config: ActorCriticConfig

    def __init__(
        self,
        config: ActorCriticConfig,
        nets: NetConfig,
        shape: Tuple[int, ...],
        action: ActionSpec,
        device: torch.device,
        bf16: bool = False,
        reward_range: Tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(config, nets, shape, action, device, bf16)
        self.critic = Critic(nets, shape, action.size).to(device)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.temperature = LagrangeMultiplier(config.initial_alpha).to(device)
        decay = config.regularization_const if config.regularization == "l2" else 0.0
        self.optimizer.add_param_group(
            {"params": self.critic.parameters(), "lr": config.critic_lr, "weight_decay": decay}
        )
        if config.tune_alpha:
            self.optimizer.add_param_group(
                {"params": self.temperature.parameters(), "lr": config.actor_lr}
            )
        discrete = len(action.levels) if nets.action_head == "mixed" else 0
        self.target_entropy = config.target_entropy * (action.size - discrete)
        horizon = 1.0 / (1.0 - config.discount)
        self.return_range = min(reward_range[0], 0) * horizon, max(reward_range[1], 0) * horizon

    @property
    def discount(self) -> float:
        return self.config.discount

    # -- hooks ----------------------------------------------------------------------------

    def proposals(
        self, dist: ActionDistribution, next_dist: ActionDistribution
    ) -> Optional[Proposals]:
        """Actions besides the data's at which the critics' regulariser looks."""
        return None

    def regulariser(
        self, data_q: torch.Tensor, q: torch.Tensor, log_density: torch.Tensor
    ) -> torch.Tensor:
        """Of data_q (E, B) and q (E, B, K) at the proposals: one value per critic (E,),
        un-multiplied by its weight."""
        raise NotImplementedError

    def regulariser_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        """What ``value`` (E,) of :meth:`regulariser` adds to the loss of each part."""
        raise NotImplementedError

    def divergence(self, batch: TensorBatch, dist: ActionDistribution) -> Optional[torch.Tensor]:
        """Distance from the data's behaviour at ``images``, per state (B,), with gradient."""
        return None

    def next_divergence(
        self, batch: TensorBatch, next_dist: ActionDistribution
    ) -> Optional[torch.Tensor]:
        """The same at ``next_images`` where the target counts it."""
        return None

    @property
    def divergence_weight(self) -> torch.Tensor:
        """Weight of both, detached."""
        raise NotImplementedError

    def divergence_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        """What ``value`` (B,) of :meth:`divergence` gives to train besides the actor."""
        return {}

    # -- step -----------------------------------------------------------------------------

    @property
    def warming_up(self) -> bool:
        """Whether the actor only imitates."""
        return self.step < self.config.warm_start_steps

    def reduce(self, q: torch.Tensor) -> torch.Tensor:
        """Over critics, (E, ...) -> (...): lambda min + (1 - lambda) max."""
        weight = self.config.ensemble_lambda
        least = q.min(0).values
        return least if weight == 1.0 else weight * least + (1.0 - weight) * q.max(0).values

    def target(self, batch: TensorBatch, next_dist: ActionDistribution) -> torch.Tensor:
        """Regression target y (B,); call it without gradient."""
        config = self.config
        code = self.target_critic.encode(batch.next_images)
        entropy = None
        if config.max_backup == "off":
            actions, log_prob, weights = next_dist.branches(config.target_samples)
            value = (weights * self.reduce(self.target_critic.q(code, actions))).sum(1)
            if config.entropy_backup:
                entropy = self.temperature.value * (weights * log_prob).sum(1)
        else:
            q = self.target_critic.q(code, next_dist.sample(config.backup_actions)[0])
            if config.max_backup == "max_min":
                value = q.max(2).values.min(0).values
            else:
                value = q.min(0).values.max(1).values
        target = batch.rewards + batch.bootstrap * value
        if config.clip_targets:
            target = target.clamp(*self.return_range)
        if entropy is not None:
            target = target - batch.bootstrap * entropy
        divergence = self.next_divergence(batch, next_dist)
        if divergence is not None:
            target = target - batch.bootstrap * self.divergence_weight * divergence
        return target

    def actor_loss(
        self, batch: TensorBatch, code: EncodedImage, dist: ActionDistribution,
        branches: Tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        divergence: Optional[torch.Tensor],
    ) -> torch.Tensor:  # fmt: skip
        """Scalar, from the policy's branches and its divergence (B,) or None:

            alpha log pi - red_i Q_i + beta D - b log pi(a_data|s),  b = actor_bc_weight

        and during the warm start alpha log pi - log pi(a_data|s), as in COG's code.
        """
        actions, log_prob, weights = branches
        loss = self.temperature.value * (weights * log_prob).sum(1)
        bc_weight = 1.0 if self.warming_up else self.config.actor_bc_weight
        if bc_weight:
            loss = loss - bc_weight * dist.log_prob(batch.actions)
        if not self.warming_up:
            loss = loss - (weights * self.reduce(self.critic.q(code, actions))).sum(1)
            if divergence is not None:
                loss = loss + self.divergence_weight * divergence
        if dist.rate is not None:
            loss = loss + self.config.bottleneck_const * dist.rate
        return loss.mean()

    def losses(self, batch: TensorBatch) -> Losses:
        dist = self.actor(batch.images)
        branches = dist.branches(1)
        with torch.no_grad():
            next_dist = self.actor(batch.next_images)
            target = self.target(batch, next_dist)
        features = self.critic.features(batch.images)
        code = self.critic.project(features)

        divergence = self.divergence(batch, dist)
        with frozen(self.critic):
            actor_loss = self.actor_loss(batch, code.detach(), dist, branches, divergence)
        parts = {"actor": actor_loss}
        metrics = {"actor_loss": actor_loss.detach(), "alpha": self.temperature.value}
        if self.config.tune_alpha:
            log_prob = (branches[1] * branches[2]).sum(1)
            parts["temperature"] = self.temperature.loss(log_prob + self.target_entropy)
        if divergence is not None:
            metrics["divergence"] = divergence.detach().mean()
            parts.update(self.divergence_losses(divergence))
        self._critic_losses(batch, features, code, target, dist.detach(), next_dist, parts, metrics)
        return Losses(parts, metrics)

    def _critic_losses(
        self, batch: TensorBatch, features: torch.Tensor, code: EncodedImage,
        target: torch.Tensor, dist: ActionDistribution, next_dist: ActionDistribution,
        parts: Dict[str, torch.Tensor], metrics: Dict[str, torch.Tensor],
    ) -> None:  # fmt: skip
        """Add the critics' loss, and of what regularises them, to ``parts`` and ``metrics``."""
        data_q, regulariser, rate = self._evaluate(batch, code, dist, next_dist)
        td_error = (data_q - target).square().mean(1)
        loss = td_error.sum()
        metrics.update(td_error=td_error.detach().mean(), data_q=data_q.detach().mean())
        if regulariser is not None:
            metrics["cql_term"] = regulariser.detach().mean()
            for name, value in self.regulariser_losses(regulariser).items():
                parts[name] = value
            loss = loss + parts.pop("critic")
        if rate is not None:
            metrics["rate"] = rate.detach().mean()
            loss = loss + self.config.bottleneck_const * rate.mean(1).sum()
        if self.config.dr3_feat:
            with torch.no_grad():
                next_features = self.critic.features(batch.next_images)
            dr3 = dr3_term(features, next_features)
            metrics["dr3"] = dr3.detach()
            loss = loss + self.config.dr3_weight * dr3
        if self.config.regularization == "l1":
            magnitude = torch.stack([p.abs().mean() for p in self.critic.parameters()]).sum()
            loss = loss + self.config.regularization_const * magnitude
        parts["critic"] = loss

    def _evaluate(
        self, batch: TensorBatch, code: EncodedImage, dist: ActionDistribution,
        next_dist: ActionDistribution,
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor], Optional[torch.Tensor]]:  # fmt: skip
        """Q at the data's actions (E, B), the regulariser (E,) and the bottleneck's rate there
        (E, B), None where there is none. One pass through the heads for all actions."""
        actions = dist.canonical(batch.actions).unsqueeze(1)
        with torch.no_grad():
            proposals = self.proposals(dist, next_dist)
        if proposals is not None:
            actions = torch.cat([actions, proposals[0]], 1)
        q, rate = self.critic.q_and_rate(code, actions)
        data_q, rate = q[..., 0], None if rate is None else rate[..., 0]
        if proposals is None:
            return data_q, None, rate
        return data_q, self.regulariser(data_q, q[..., 1:], proposals[1]), rate

    def after_step(self) -> None:
        polyak(self.target_critic, self.critic, self.config.target_rate)

    def probe_metrics(self, batch: TensorBatch) -> Dict[str, torch.Tensor]:
        metrics = super().probe_metrics(batch)
        dist = self.average_actor(batch.images)
        next_dist = self.average_actor(batch.next_images)
        code = self.critic.encode(batch.images)
        data_q, regulariser, _ = self._evaluate(batch, code, dist, next_dist)
        target = self.target(batch, next_dist)
        policy_q = self.critic.q(code, dist.sample(1)[0])
        mode_q = self.critic.q(code, dist.mode.unsqueeze(1))
        random_q = self.critic.q(code, dist.uniform(1)[0])
        metrics.update(
            data_q=data_q[0].mean(),
            data_q_min=data_q.min(0).values.mean(),
            policy_q=policy_q[0].mean(),
            mode_q=mode_q[0].mean(),
            random_q=random_q[0].mean(),
            td_error=(data_q[0] - target).square().mean(),
            target_variance=target.var(unbiased=False),  # finite for one transition too
        )
        if regulariser is not None:
            metrics["cql_term"] = regulariser[0]
        divergence = self.divergence(batch, dist)
        if divergence is not None:
            metrics["divergence"] = divergence.mean()
        return metrics


def dr3_term(features: torch.Tensor, next_features: torch.Tensor) -> torch.Tensor:
    """Mean inner product of the features of images and next images (..., B, F), summed over
    critics that have their own. Next features are taken without gradient and also after
    terminals, as in the workflow paper's code."""
    product = (features.float() * next_features.detach().float()).sum(-1)
    return product.mean(-1).sum()
