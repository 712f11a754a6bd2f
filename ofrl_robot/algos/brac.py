"""Behaviour regularised actor critic (Wu et al. 2019, arXiv 1911.11361).

D is the divergence of the policy from the behaviour policy b at a state, beta its weight. It is in
the actor's loss, and with ``value_penalty`` in the target as well (BRAC-v; without: BRAC-p):

    actor   alpha log pi(a|s) - red_i Q_i(s,a) + beta D(s)
    target  y = r + discount m (red_i Q'_i(s',a') - [alpha log pi(a'|s')] - [beta D(s')])

Primal forms compare with b, a policy with its own encoder. It is given, or fitted by maximum
likelihood during the warm start and then frozen at its best held-out likelihood. Dual forms use a
discriminator c(s,a) of data and policy actions, trained at every step with the one-sided gradient
penalty.

The penalty of a b that is still being fitted means nothing, so it enters the targets after the warm
start, and little by little: with full weight at once they fall by beta D / (1 - discount) within
a few steps, a dataset Q that looks like overfitting. With a given b, and in the dual form, it is
there from the first step.
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
_VALIDATIONS = 10  # of b during the warm start
_NOT_VALIDATED = 1e30  # a loss above all: state files hold finite numbers only


class BRAC(ActorCritic):
    """The divergence penalty on the actor-critic skeleton.

    ``build.behavior`` is the behaviour policy b when it was trained before; BRAC keeps a copy.
    """

    config: BRACConfig
    penalty_share: torch.Tensor
    best_behavior_loss: torch.Tensor

    def __init__(self, config: BRACConfig, build: Build) -> None:
        super().__init__(config, build)
        self.beta = LagrangeMultiplier(config.beta, most=500.0).to(self.device)
        if config.tune_beta:
            self.train_network(self.beta, config.critic_lr)
        self.behavior: Optional[Actor] = None
        self.discriminator: Optional[Critic] = None
        self.discriminator_optimizer: Optional[torch.optim.Optimizer] = None
        self._fits_behavior = config.divergence_form == "primal" and build.behavior is None
        # a buffer, not a number: a CUDA graph that ramps runs no Python
        ramps = self._fits_behavior and config.penalty_ramp_steps > 0
        self.register_buffer("penalty_share", torch.tensor(0.0 if ramps else 1.0))
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
            self.best_behavior = copy.deepcopy(self.behavior).requires_grad_(False)
            self.register_buffer("best_behavior_loss", torch.tensor(_NOT_VALIDATED))

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
        if not self.config.value_penalty or (self._fits_behavior and self.warming_up):
            return None
        value = self._divergence(batch.next_observations, batch.next_actions, next_dist)
        if self.discriminator is None:
            return self.penalty_share * value
        return value * batch.has_next_action  # there is no data action at an episode's end

    @property
    def divergence_weight(self) -> torch.Tensor:
        """Beta, without a gradient."""
        return self.beta.value

    def divergence_losses(self, value: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return the loss of beta when it is tuned."""
        if not self.config.tune_beta:
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
        """Add the loss of b during the warm start.

        The columns "divergence" and "behavior_loss" are 0 where they are not computed: the first
        during the warm start, the second after it.
        """
        if self._fits_behavior and self.step == self._warm_start_end:
            self._freeze_behavior()
        losses = super().losses(batch)
        metrics, nothing = losses.metrics, torch.zeros((), device=self.device)
        metrics["beta"] = self.beta.value
        metrics["divergence"] = metrics.pop("divergence", nothing)  # always in the same place
        if self._fits_behavior:
            metrics["behavior_loss"] = nothing
        if self._fits_behavior and self.warming_up:
            # after the warm start b has no loss, hence no gradient, and Adam leaves it alone
            loss = self._behavior_loss(batch)
            losses.parts["behavior"] = loss
            metrics["behavior_loss"] = loss.detach()
        return losses

    def after_step(self) -> None:
        """Move the target critics, and let the penalty's weight grow after the warm start."""
        super().after_step()
        if not self.warming_up and self._fits_behavior and self.config.penalty_ramp_steps:
            self.penalty_share.add_(1.0 / self.config.penalty_ramp_steps).clamp_(max=1.0)

    # -- choice of b ----------------------------------------------------------------------

    @property
    def _warm_start_end(self) -> int:
        return self.pretraining_steps + self.config.warm_start_steps

    @property
    def validates_now(self) -> bool:
        """Whether b was fitted for another tenth of the warm start."""
        done = self.step - self.pretraining_steps
        every = max(1, self.config.warm_start_steps // _VALIDATIONS)
        last = done == self.config.warm_start_steps
        return self._fits_behavior and (
            last or (0 < done < self.config.warm_start_steps and done % every == 0)
        )

    def validation_metrics(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Return the loss of b."""
        return {"behavior_loss": self._behavior_loss(batch)}

    def validated(self, metrics: Dict[str, float]) -> None:
        """Keep b if it has the least held-out loss so far."""
        if metrics["behavior_loss"] < float(self.best_behavior_loss):
            self.best_behavior_loss.fill_(metrics["behavior_loss"])
            self._copy_behavior(self.behavior, self.best_behavior)

    def _freeze_behavior(self) -> None:
        """Go back to the best b; the last one stays if nothing was held out."""
        if float(self.best_behavior_loss) < _NOT_VALIDATED:
            self._copy_behavior(self.best_behavior, self.behavior)

    @staticmethod
    def _copy_behavior(source: Optional[Actor], target: Optional[Actor]) -> None:
        assert source is not None and target is not None
        target.load_state_dict(source.state_dict())

    def _behavior_loss(self, batch: Batch) -> torch.Tensor:
        assert self.behavior is not None
        return -self.behavior(batch.observations).log_prob(batch.actions).mean()

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
        if self._fits_behavior:
            metrics["behavior_loss"] = self._behavior_loss(batch)
        return metrics
