"""Behaviour regularised actor critic (Wu et al. 2019, arXiv 1911.11361).

D is the divergence of the policy from the behaviour policy b at a state, beta its weight; in the
target it counts with ``value_penalty`` (BRAC-v), else in the actor's loss only (BRAC-p):

    actor   alpha log pi(a|s) - red_i Q_i(s,a) + beta D(s)
    target  y = r + discount m (red_i Q'_i(s',a') - [alpha log pi(a'|s')] - [beta D(s')])

Primal forms read b, a policy of its own with its own encoder, that is fitted by maximum likelihood
during the warm start and then stays as it is, or is given. Dual forms read a discriminator c(s,a)
of data and policy actions, trained all along with the one-sided gradient penalty.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Dict, Optional, Tuple

import torch

from ofrl_robot.algos import divergence
from ofrl_robot.algos.actor_critic import ActorCritic
from ofrl_robot.algos.base import Losses, TensorBatch, evaluating, frozen
from ofrl_robot.algos.config import BRACConfig
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic, EncodedImage
from ofrl_robot.nets.distributions import ActionDistribution
from ofrl_robot.nets.dual import LagrangeMultiplier
from ofrl_robot.specs import ActionSpec


class BRAC(ActorCritic):
    """The divergence penalty on the actor-critic skeleton.

    Args:
        behavior: b, where it was trained before; a copy of its own is kept.
    """

    config: BRACConfig

    def __init__(
        self,
        config: BRACConfig,
        nets: NetConfig,
        shape: Tuple[int, ...],
        action: ActionSpec,
        device: torch.device,
        bf16: bool = False,
        reward_range: Tuple[float, float] = (0.0, 1.0),
        behavior: Optional[Actor] = None,
    ) -> None:
        super().__init__(config, nets, shape, action, device, bf16, reward_range)
        self.beta = LagrangeMultiplier(config.beta, most=500.0).to(device)
        if config.tune_beta:
            self.optimizer.add_param_group(
                {"params": self.beta.parameters(), "lr": config.critic_lr}
            )
        self.behavior: Optional[Actor] = None
        self.discriminator: Optional[Critic] = None
        self._fits_behavior = config.divergence_form == "primal" and behavior is None
        if config.divergence_form == "dual":
            plain = dataclasses.replace(nets, ensemble=1, bottleneck=False, dropout=0.0)
            self.discriminator = Critic(plain, shape, action.size).to(device)
            self.discriminator_optimizer = torch.optim.Adam(
                self.discriminator.parameters(), lr=config.discriminator_lr, fused=True
            )
            return
        if behavior is not None:
            self._require_same_space(behavior, nets)
            self.behavior = copy.deepcopy(behavior).to(device).requires_grad_(False).eval()
        else:
            head = config.behavior_head or nets.action_head
            own = dataclasses.replace(nets, action_head=head, bottleneck=False)
            self.behavior = Actor(own, shape, action).to(device)
            self.optimizer.add_param_group(
                {"params": self.behavior.parameters(), "lr": config.actor_lr}
            )

    @staticmethod
    def _require_same_space(behavior: Actor, nets: NetConfig) -> None:
        if (behavior.config.action_head == "mixed") != (nets.action_head == "mixed"):
            raise ConfigError(
                f"the behaviour policy's action head is {behavior.config.action_head}, "
                f"the policy's {nets.action_head}",
                "use mixed for both or for neither",
            )

    # -- hooks ----------------------------------------------------------------------------

    def divergence(self, batch: TensorBatch, dist: ActionDistribution) -> torch.Tensor:
        return self._divergence(batch.images, batch.actions, dist)

    def next_divergence(
        self, batch: TensorBatch, next_dist: ActionDistribution
    ) -> Optional[torch.Tensor]:
        if not self.config.value_penalty or self.warming_up:
            return None
        value = self._divergence(batch.next_images, batch.next_actions, next_dist)
        if self.discriminator is None:
            return value
        return value * batch.has_next_action  # unknown at an episode's last image

    @property
    def divergence_weight(self) -> torch.Tensor:
        return self.beta.value

    def divergence_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        if not self.config.tune_beta or self.warming_up:  # b is not fitted yet
            return {}
        return {"beta": self.beta.loss(value - self.config.target_divergence)}

    def _divergence(
        self, images: torch.Tensor, actions: torch.Tensor, dist: ActionDistribution
    ) -> torch.Tensor:
        """(B,), with gradient to ``dist`` only."""
        config = self.config
        if self.discriminator is not None:
            with frozen(self.discriminator):
                return self._dual(self.discriminator.encode(images), actions, dist)
        with torch.no_grad(), evaluating(self.behavior):  # dropout would make it another b
            behavior = self.behavior(images)
        if config.divergence == "mmd":
            return divergence.mmd(dist, behavior, config.divergence_samples, config.mmd_sigma)
        measure = {"kl": divergence.kl, "density": divergence.negative_log_density}
        return measure[config.divergence](dist, behavior, config.divergence_samples)

    def _dual(
        self, code: EncodedImage, actions: torch.Tensor, dist: ActionDistribution
    ) -> torch.Tensor:
        proposed, _, weights = dist.branches(1)
        actions = dist.canonical(actions).unsqueeze(1)
        at_policy = self.discriminator.q(code, proposed)[0]
        at_data = self.discriminator.q(code, actions)[0]
        form = {"kl": divergence.dual_kl, "wasserstein": divergence.dual_wasserstein}
        return (weights * form[self.config.divergence](at_policy, at_data)).sum(1)

    # -- what is trained besides actor and critics -----------------------------------------

    def losses(self, batch: TensorBatch) -> Losses:
        losses = super().losses(batch)
        losses.metrics["beta"] = self.beta.value
        if self._fits_behavior:
            # after the warm start b has no loss, hence no gradient, and Adam leaves it alone
            with torch.set_grad_enabled(self.warming_up):
                loss = -self.behavior(batch.images).log_prob(batch.actions).mean()
            if self.warming_up:
                losses.parts["behavior"] = loss
            losses.metrics["behavior_loss"] = loss.detach()
        return losses

    def update_on(self, batch: TensorBatch) -> Dict[str, torch.Tensor]:
        if self.discriminator is None:
            return super().update_on(batch)
        shifted = self.shifted(batch, torch.float32)
        for _ in range(self.config.discriminator_steps):
            loss = self.discriminator_loss(shifted)
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.discriminator_optimizer.step()
        return {**super().update_on(batch), "discriminator_loss": loss.detach()}

    def discriminator_loss(self, batch: TensorBatch) -> torch.Tensor:
        """-D + gradient penalty between data and policy actions (float32: differentiated twice)."""
        with torch.no_grad():
            dist = self.actor(batch.images)
            proposed = dist.sample(1)[0]
        code = self.discriminator.encode(batch.images)
        actions = dist.canonical(batch.actions).unsqueeze(1)
        share = torch.rand(len(actions), 1, 1, device=actions.device)
        between = (proposed + share * (actions - proposed)).requires_grad_(True)
        (slope,) = torch.autograd.grad(
            self.discriminator.q(code, between).sum(), between, create_graph=True
        )
        excess = (slope.norm(dim=-1) - 1.0).clamp(min=0.0)
        penalty = self.config.gradient_penalty * excess.square().mean()
        return penalty - self._dual(code, batch.actions, dist).mean()

    def probe_metrics(self, batch: TensorBatch) -> Dict[str, torch.Tensor]:
        """Also what the workflow's authors log for BRAC: Q of the policy's action less the
        weighted divergence, the quantity that the policy in fact maximises."""
        metrics = super().probe_metrics(batch)
        metrics["conservative_q"] = (
            metrics["policy_q"] - self.divergence_weight * metrics["divergence"]
        )
        return metrics
