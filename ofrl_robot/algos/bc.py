"""Behavioural cloning from pixels: minimise -log pi(a_data | s)."""

from __future__ import annotations

from ofrl_robot.algos.base import Algorithm, Losses
from ofrl_robot.data.replay.batch import Batch


class BC(Algorithm):
    """Maximum likelihood of the policy's distribution; deployed by its mode or by sampling."""

    def losses(self, batch: Batch) -> Losses:
        """Return the negative log-likelihood of the data's actions."""
        dist = self.actor(batch.observations)
        loss = -dist.log_prob(batch.actions).mean()
        metrics = {"actor_loss": loss.detach()}
        if dist.bottleneck_kl is not None:
            loss = loss + self.config.bottleneck_const * dist.bottleneck_kl.mean()
            metrics["actor_bottleneck_kl"] = dist.bottleneck_kl.detach().mean()
        return Losses({"actor": loss}, metrics)
