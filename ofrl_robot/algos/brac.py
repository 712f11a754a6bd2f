"""Behaviour regularised actor critic (Wu et al. 2019, arXiv 1911.11361).

D is the divergence of the policy from the behaviour policy b at a state, beta its weight. It is in
the actor's loss, and with ``value_penalty`` in the target as well (BRAC-v; without: BRAC-p):

    actor   alpha log pi(a|s) - red_i Q_i(s,a) + beta D(s)
    target  y = r + discount m (red_i Q'_i(s',a') - [alpha log pi(a'|s')] - [beta D(s')])

Primal forms compare with b, a policy with its own encoder. It is given, or fitted by maximum
likelihood during the warm start and then frozen. Dual forms use a discriminator c(s,a) of data and
policy actions, trained at every step with the one-sided gradient penalty.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Dict, Optional

import torch

from ofrl_robot.algos import divergence
from ofrl_robot.algos.actor_critic import ActorCritic
from ofrl_robot.algos.base import Build, Losses, adam, evaluating, frozen
from ofrl_robot.algos.configs.brac import BRACConfig
from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic, EncodedObservation
from ofrl_robot.nets.distributions import ActionDistribution
from ofrl_robot.nets.dual import LagrangeMultiplier

_PRIMAL = {"kl": divergence.kl, "density": divergence.negative_log_density}
_DUAL = {"kl": divergence.dual_kl, "wasserstein": divergence.dual_wasserstein}


class BRAC(ActorCritic):
    """The divergence penalty on the actor-critic skeleton.

    ``build.behavior`` is the behaviour policy b when it was trained before; BRAC keeps a copy.
    """

    config: BRACConfig

    def __init__(self, config: BRACConfig, build: Build) -> None:
        super().__init__(config, build)
        self.beta = LagrangeMultiplier(config.beta, most=500.0).to(self.device)
        if config.tune_beta:
            self.train_network(self.beta, config.critic_lr)
        self.behavior: Optional[Actor] = None
        self.discriminator: Optional[Critic] = None
        self.discriminator_optimizer: Optional[torch.optim.Optimizer] = None
        self._fits_behavior = config.divergence_form == "primal" and build.behavior is None
        if config.divergence_form == "dual":
            plain = dataclasses.replace(build.nets, n_critics=1, bottleneck=False, dropout=0.0)
            self.discriminator = build.critic(plain)
            self.discriminator_optimizer = adam(
                self.discriminator.parameters(), config.discriminator_lr
            )
        elif build.behavior is not None:
            self._require_same_space(build.behavior, build.nets)
            given = copy.deepcopy(build.behavior).to(self.device)
            self.behavior = given.requires_grad_(False).eval()
        else:
            head = config.behavior_head or build.nets.action_head
            own = dataclasses.replace(build.nets, action_head=head, bottleneck=False)
            self.behavior = build.actor(own)
            self.train_network(self.behavior, config.actor_lr)

    @property
    def optimizers(self) -> Dict[str, torch.optim.Optimizer]:
        """All optimisers by name; the dual form has one for its discriminator."""
        optimizers = super().optimizers
        if self.discriminator_optimizer is not None:
            optimizers["discriminator"] = self.discriminator_optimizer
        return optimizers

    @staticmethod
    def _require_same_space(behavior: Actor, nets: NetConfig) -> None:
        if (behavior.config.action_head == "mixed") != (nets.action_head == "mixed"):
            raise ConfigError(
                f"the behaviour policy's action head is {behavior.config.action_head}, "
                f"the policy's {nets.action_head}",
                "use mixed for both or for neither",
            )

    # -- hooks ----------------------------------------------------------------------------

    def divergence(self, batch: Batch, dist: ActionDistribution) -> torch.Tensor:
        """Return the divergence from b at the observations (B,)."""
        return self._divergence(batch.observations, batch.actions, dist)

    def next_divergence(
        self, batch: Batch, next_dist: ActionDistribution
    ) -> Optional[torch.Tensor]:
        """Return the divergence from b at the next observations (B,), or None."""
        if not self.config.value_penalty or self.warming_up:
            return None
        value = self._divergence(batch.next_observations, batch.next_actions, next_dist)
        if self.discriminator is None:
            return value
        return value * batch.has_next_action  # there is no data action at an episode's end

    @property
    def divergence_weight(self) -> torch.Tensor:
        """Beta, without a gradient."""
        return self.beta.value

    def divergence_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return the loss of beta when it is tuned."""
        if not self.config.tune_beta or self.warming_up:  # b is not fitted yet
            return {}
        return {"beta": self.beta.loss(value - self.config.target_divergence)}

    def _divergence(
        self,
        observations: Dict[str, torch.Tensor],
        actions: torch.Tensor,
        dist: ActionDistribution,
    ) -> torch.Tensor:
        """Return the divergence (B,), with gradient to ``dist`` only."""
        config = self.config
        if self.discriminator is not None:
            with frozen(self.discriminator):
                encoded = self.discriminator.encode(observations)
                return self._dual_divergence(self.discriminator, encoded, actions, dist)
        assert self.behavior is not None
        with torch.no_grad(), evaluating(self.behavior):  # dropout would make it another b
            behavior = self.behavior(observations)
        if config.divergence == "mmd":
            return divergence.mmd(dist, behavior, config.divergence_samples, config.mmd_sigma)
        return _PRIMAL[config.divergence](dist, behavior, config.divergence_samples)

    def _dual_divergence(
        self,
        discriminator: Critic,
        encoded: EncodedObservation,
        actions: torch.Tensor,
        dist: ActionDistribution,
    ) -> torch.Tensor:
        proposed, _, weights = dist.weighted_actions(1)
        at_policy = discriminator.q(encoded, proposed)[0]
        at_data = discriminator.q(encoded, dist.canonical(actions).unsqueeze(1))[0]
        return (weights * _DUAL[self.config.divergence](at_policy, at_data)).sum(1)

    # -- step -----------------------------------------------------------------------------

    def losses(self, batch: Batch) -> Losses:
        """Add the loss of b during the warm start."""
        losses = super().losses(batch)
        losses.metrics["beta"] = self.beta.value
        if self._fits_behavior:
            assert self.behavior is not None
            # after the warm start b has no loss, hence no gradient, and Adam leaves it alone
            with torch.set_grad_enabled(self.warming_up):
                loss = -self.behavior(batch.observations).log_prob(batch.actions).mean()
            if self.warming_up:
                losses.parts["behavior"] = loss
            losses.metrics["behavior_loss"] = loss.detach()
        return losses

    def update_on(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Train the discriminator, then do one step of the others."""
        if self.discriminator_optimizer is None:
            return super().update_on(batch)
        prepared = self.prepare(batch, torch.float32)
        for _ in range(self.config.discriminator_steps):
            loss = self.discriminator_loss(prepared)
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.discriminator_optimizer.step()
        return {**super().update_on(batch), "discriminator_loss": loss.detach()}

    def discriminator_loss(self, batch: Batch) -> torch.Tensor:
        """Return -D + the gradient penalty between data and policy actions.

        It is computed in float32, because it is differentiated twice.
        """
        assert self.discriminator is not None
        with torch.no_grad():
            dist = self.actor(batch.observations)
            proposed = dist.sample(1)[0]
        encoded = self.discriminator.encode(batch.observations)
        actions = dist.canonical(batch.actions).unsqueeze(1)
        share = torch.rand(len(actions), 1, 1, device=actions.device)
        between = (proposed + share * (actions - proposed)).requires_grad_(True)
        (slope,) = torch.autograd.grad(
            self.discriminator.q(encoded, between).sum(), between, create_graph=True
        )
        excess = (slope.norm(dim=-1) - 1.0).clamp(min=0.0)
        penalty = self.config.gradient_penalty * excess.square().mean()
        value = self._dual_divergence(self.discriminator, encoded, batch.actions, dist)
        return penalty - value.mean()

    def probe_metrics(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Add what the workflow's authors log for BRAC: Q minus the weighted divergence.

        It is the quantity that the policy maximises.
        """
        metrics = super().probe_metrics(batch)
        metrics["conservative_q"] = (
            metrics["policy_q"] - self.divergence_weight * metrics["divergence"]
        )
        return metrics
