"""The actor-critic step that CQL and BRAC fill with hooks.

Losses of temperature, actor and critics are computed with the same weights, then all step, as in
EDAC's and d3rlpy's code. The critics are frozen in the actor's pass, so their weight gradients
are neither computed nor mixed up with it. Each observation is encoded once per network.

Target, with m = 0 after a terminal and 1 otherwise, k = ``n_step`` rewards (fewer at the end of an
episode), D a divergence from the data's behaviour with weight beta:

    y = [clip](r + discount^k m V) - discount^k m ([alpha log pi(a'|s')] + [beta D(s')])
    V = E_{a' ~ pi(.|s')} red_i Q'_i(s', a'),  red = lambda min + (1 - lambda) max
"""

from __future__ import annotations

import copy
from typing import Dict, NamedTuple, Optional, Tuple

import torch
from torch import nn

from ofrl_robot.algos.base import Algorithm, Build, Losses, frozen, polyak
from ofrl_robot.algos.configs.actor_critic import ActorCriticConfig
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.critic import EncodedObservation
from ofrl_robot.nets.distributions import ActionDistribution
from ofrl_robot.nets.dual import LagrangeMultiplier
from ofrl_robot.specs import STATE

WeightedActions = Tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Proposals(NamedTuple):
    """Actions besides the data's at which the critics are regularised.

    Attributes:
        actions: (B, K, A); the first ``n_uniform`` are uniform, the others the policy's.
        log_density: (B, K), log-density that each action was drawn with.
        n_uniform: number of uniform actions per state.
    """

    actions: torch.Tensor
    log_density: torch.Tensor
    n_uniform: int


class Target(NamedTuple):
    """What the critics are regressed on.

    Attributes:
        value: y (B,).
        metrics: scalars for the log. With ``clip_targets``: ``target_unclipped``, the mean of
            r + discount^k m V, and ``targets_clipped``, the share (0 to 1) that the clip changed.
    """

    value: torch.Tensor
    metrics: Dict[str, torch.Tensor]


class CriticValues(NamedTuple):
    """Result of one pass through the Q-heads for the data's actions and the proposals.

    Attributes:
        data_q: (E, B), Q at the data's actions.
        regulariser: (E,), None without proposals.
        bottleneck_kl: (E, B) at the data's actions, None without a bottleneck.
    """

    data_q: torch.Tensor
    regulariser: Optional[torch.Tensor]
    bottleneck_kl: Optional[torch.Tensor]


class ActorCritic(Algorithm):
    """Skeleton of soft actor-critic (SAC); subclasses fill the hooks."""

    config: ActorCriticConfig

    def __init__(self, config: ActorCriticConfig, build: Build) -> None:
        super().__init__(config, build)
        if config.dr3_feat and set(build.shapes) == {STATE}:
            raise ConfigError("dr3_feat needs the features of an image", "observe a camera")
        self.critic = build.critic()
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.temperature = LagrangeMultiplier(config.initial_alpha).to(self.device)
        decay = config.regularization_const if config.regularization == "l2" else 0.0
        self.train_network(self.critic, config.critic_lr, weight_decay=decay)
        if config.tune_alpha:
            self.train_network(self.temperature, config.actor_lr)
        discrete = len(build.action.levels) if build.nets.action_head == "mixed" else 0
        self.target_entropy = config.target_entropy * (build.action.size - discrete)
        horizon = 1.0 / (1.0 - config.discount)
        low, high = build.reward_range
        self._value_limits = (min(low, 0) * horizon, max(high, 0) * horizon)

    # -- hooks ----------------------------------------------------------------------------

    def proposals(
        self, dist: ActionDistribution, next_dist: ActionDistribution
    ) -> Optional[Proposals]:
        """Return the actions at which the critics are regularised; called without gradient."""
        return None

    def regulariser(
        self, batch: Batch, data_q: torch.Tensor, q: torch.Tensor, proposals: Proposals
    ) -> torch.Tensor:
        """Return one value per critic (E,), not multiplied by its weight.

        Args:
            batch: the transitions.
            data_q: (E, B), Q at the data's actions.
            q: (E, B, K), Q at the proposals.
            proposals: of :meth:`proposals`.
        """
        raise NotImplementedError

    def regulariser_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return what the regulariser (E,) adds to the loss of each part, among them "critic"."""
        raise NotImplementedError

    def divergence(self, batch: Batch, dist: ActionDistribution) -> Optional[torch.Tensor]:
        """Return the distance from the data's behaviour per state (B,), with gradient.

        Training asks after the warm start only: until then the actor does not follow it.
        """
        return None

    def next_divergence(
        self, batch: Batch, next_dist: ActionDistribution
    ) -> Optional[torch.Tensor]:
        """Return the distance (B,) at the next observations, None when targets do not use it."""
        return None

    @property
    def divergence_weight(self) -> torch.Tensor:
        """Weight of both divergences, without a gradient."""
        raise NotImplementedError

    def divergence_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return extra losses computed from the divergence (B,), e.g. of its multiplier."""
        return {}

    # -- what the training loop asks -------------------------------------------------------

    @property
    def warming_up(self) -> bool:
        """Whether the actor only imitates."""
        done = self.step - self.pretraining_steps
        return 0 <= done < self.config.warm_start_steps

    @property
    def phase(self) -> str:
        """Key of what a step computes: "pretrain", "warm_start" or "train"."""
        return "warm_start" if self.warming_up else super().phase

    @property
    def value_limits(self) -> Tuple[float, float]:
        """Least and greatest return that the rewards and the discount allow."""
        return self._value_limits

    def checkpoint_networks(self) -> Dict[str, nn.Module]:
        """Return the averaged actor and the critic."""
        return {**super().checkpoint_networks(), "critic": self.critic}

    # -- step -----------------------------------------------------------------------------

    def reduce(self, q: torch.Tensor) -> torch.Tensor:
        """Reduce over critics, (E, ...) -> (...): lambda min + (1 - lambda) max."""
        weight = self.config.ensemble_lambda
        least = q.min(0).values
        return least if weight == 1.0 else weight * least + (1.0 - weight) * q.max(0).values

    def target(self, batch: Batch, next_dist: ActionDistribution) -> Target:
        """Return the regression targets; call it without gradient."""
        config = self.config
        encoded = self.target_critic.encode(batch.next_observations)
        entropy = None
        if config.max_backup == "off":
            actions, log_prob, weights = next_dist.weighted_actions(config.target_samples)
            value = (weights * self.reduce(self.target_critic.q(encoded, actions))).sum(1)
            if config.entropy_backup:
                entropy = self.temperature.value * (weights * log_prob).sum(1)
        else:
            q = self.target_critic.q(encoded, next_dist.sample(config.backup_actions)[0])
            if config.max_backup == "max_min":
                value = q.max(2).values.min(0).values
            else:
                value = q.min(0).values.max(1).values
        target = batch.rewards + batch.bootstrap * value
        metrics: Dict[str, torch.Tensor] = {}
        if config.clip_targets:
            unclipped, target = target, target.clamp(*self.value_limits)
            metrics["target_unclipped"] = unclipped.mean()
            metrics["targets_clipped"] = (unclipped != target).float().mean()
        if entropy is not None:
            target = target - batch.bootstrap * entropy
        divergence = self.next_divergence(batch, next_dist)
        if divergence is not None:
            target = target - batch.bootstrap * self.divergence_weight * divergence
        return Target(target, metrics)

    def actor_loss(
        self,
        batch: Batch,
        encoded: EncodedObservation,
        dist: ActionDistribution,
        weighted_actions: WeightedActions,
        divergence: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """Return the actor's scalar loss.

            alpha log pi - red_i Q_i + beta D - b log pi(a_data|s),  b = actor_bc_weight

        and during the warm start alpha log pi - log pi(a_data|s), as in COG's code.

        Args:
            batch: the transitions.
            encoded: the critics' encoding of the observations, without gradient.
            dist: the policy at the observations.
            weighted_actions: actions, log-densities and weights of
                ``dist.weighted_actions(1)``.
            divergence: (B,) from :meth:`divergence`, or None.
        """
        actions, log_prob, weights = weighted_actions
        loss = self.temperature.value * (weights * log_prob).sum(1)
        if self.warming_up:
            loss = loss - dist.log_prob(batch.actions)
        else:
            if self.config.actor_bc_weight:
                pose_only = self.config.actor_bc_entries == "pose"
                log_density = dist.pose_log_prob if pose_only else dist.log_prob
                loss = loss - self.config.actor_bc_weight * log_density(batch.actions)
            loss = loss - (weights * self.reduce(self.critic.q(encoded, actions))).sum(1)
            if divergence is not None:
                loss = loss + self.divergence_weight * divergence
        if dist.bottleneck_kl is not None:
            loss = loss + self.config.bottleneck_const * dist.bottleneck_kl
        return loss.mean()

    def losses(self, batch: Batch) -> Losses:
        """Return the losses of actor, temperature, critics and their multipliers."""
        dist = self.actor(batch.observations)
        weighted_actions = dist.weighted_actions(1)
        with torch.no_grad():
            next_dist = self.actor(batch.next_observations)
            target, target_metrics = self.target(batch, next_dist)
        encoded = self.critic.encode(batch.observations)

        divergence = None if self.warming_up else self.divergence(batch, dist)
        with frozen(self.critic):
            actor_loss = self.actor_loss(
                batch, encoded.detach(), dist, weighted_actions, divergence
            )
        metrics = {"actor_loss": actor_loss.detach(), "alpha": self.temperature.value}
        losses = Losses({"actor": actor_loss}, metrics)
        if self.config.tune_alpha:
            _, log_prob, weights = weighted_actions
            excess = (log_prob * weights).sum(1) + self.target_entropy
            losses.parts["temperature"] = self.temperature.loss(excess)
        if divergence is not None:
            losses.metrics["divergence"] = divergence.detach().mean()
            losses.parts.update(self.divergence_losses(divergence))
        losses.metrics.update(target_metrics)
        losses.add(self.critic_losses(batch, encoded, target, dist.detach(), next_dist))
        return losses

    def critic_losses(
        self,
        batch: Batch,
        encoded: EncodedObservation,
        target: torch.Tensor,
        dist: ActionDistribution,
        next_dist: ActionDistribution,
    ) -> Losses:
        """Return the critics' loss "critic" and the losses of their regulariser's own parts.

        Args:
            batch: the transitions.
            encoded: the critics' encoding of the observations.
            target: (B,) from :meth:`target`.
            dist, next_dist: the policy at the observations and at the next ones, detached.
        """
        config = self.config
        values = self._evaluate(batch, encoded, dist, next_dist)
        td_error = (values.data_q - target).square().mean(1)
        loss = td_error.sum()
        metrics = {
            "td_error": td_error.detach().mean(),
            "data_q": values.data_q.detach().mean(),
        }
        parts: Dict[str, torch.Tensor] = {}
        if values.regulariser is not None:
            metrics["cql_term"] = values.regulariser.detach().mean()
            parts = self.regulariser_losses(values.regulariser)
            loss = loss + parts.pop("critic")
        if values.bottleneck_kl is not None:
            metrics["bottleneck_kl"] = values.bottleneck_kl.detach().mean()
            loss = loss + config.bottleneck_const * values.bottleneck_kl.mean(1).sum()
        if config.dr3_feat:
            with torch.no_grad():
                next_features = self.critic.features(batch.next_observations)
            dr3 = dr3_term(encoded.features, next_features)
            metrics["dr3"] = dr3.detach()
            loss = loss + config.dr3_weight * dr3
        if config.regularization == "l1":
            loss = loss + config.regularization_const * self.critic.weight_magnitude()
        return Losses({**parts, "critic": loss}, metrics)

    def _evaluate(
        self,
        batch: Batch,
        encoded: EncodedObservation,
        dist: ActionDistribution,
        next_dist: ActionDistribution,
    ) -> CriticValues:
        actions = dist.canonical(batch.actions).unsqueeze(1)
        with torch.no_grad():
            proposals = self.proposals(dist, next_dist)
        if proposals is not None:
            actions = torch.cat([actions, proposals.actions], 1)
        q, kl = self.critic.q_and_kl(encoded, actions)
        data_q = q[..., 0]
        regulariser = None
        if proposals is not None:
            regulariser = self.regulariser(batch, data_q, q[..., 1:], proposals)
        return CriticValues(data_q, regulariser, None if kl is None else kl[..., 0])

    def after_step(self) -> None:
        """Move the target critics towards the critics."""
        polyak(self.target_critic, self.critic, self.config.target_rate)

    def probe_metrics(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Add Q-values of data, policy and random actions, and the TD error.

        ``td_error`` and ``target_variance`` are of the targets that the critics are trained on:
        n-step returns, and next actions of the actor itself. ``td_error_average`` is of targets
        with next actions of the averaged actor, which is the one that is deployed. Both are means
        over the critics; Q is that of the first one.
        """
        metrics = super().probe_metrics(batch)
        dist = self.average_actor(batch.observations)
        next_dist = self.average_actor(batch.next_observations)
        encoded = self.critic.encode(batch.observations)
        data_q, regulariser, _ = self._evaluate(batch, encoded, dist, next_dist)
        target, target_metrics = self.target(batch, self.actor(batch.next_observations))
        of_average = self.target(batch, next_dist).value
        policy_q = self.critic.q(encoded, dist.sample(1)[0])
        mode_q = self.critic.q(encoded, dist.mode.unsqueeze(1))
        random_q = self.critic.q(encoded, dist.uniform(1)[0])
        metrics.update(
            data_q=data_q[0].mean(),
            data_q_min=data_q.min(0).values.mean(),
            policy_q=policy_q[0].mean(),
            mode_q=mode_q[0].mean(),
            random_q=random_q[0].mean(),
            td_error=(data_q - target).square().mean(),
            target_variance=target.var(unbiased=False),  # finite for one transition too
            td_error_average=(data_q - of_average).square().mean(),
            **target_metrics,
        )
        if regulariser is not None:
            metrics["cql_term"] = regulariser[0]
        divergence = self.divergence(batch, dist)
        if divergence is not None:
            metrics["divergence"] = divergence.mean()
        return metrics


def dr3_term(
    features: Tuple[torch.Tensor, ...], next_features: Tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Return DR3's term: the mean inner product of features and next features.

    It is summed over encoders and cameras, each (B, F). Next features are taken without gradient
    and also after terminals, as in the workflow paper's code. With n-step returns the next image is
    the one n steps on: the pair that a backup compares.
    """
    total = torch.zeros((), device=features[0].device)
    for here, there in zip(features, next_features):
        total = total + (here.float() * there.detach().float()).sum(-1).mean()
    return total
