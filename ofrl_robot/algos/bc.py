"""Behavioural cloning from pixels: minimise -log pi(a_data | s)."""

from __future__ import annotations

from ofrl_robot.algos.base import Algorithm, Losses, TensorBatch


class BC(Algorithm):
    """Maximum likelihood of the policy's distribution; deployed by its mode or by sampling."""

    def losses(self, batch: TensorBatch) -> Losses:
        dist = self.actor(batch.images)
        loss = -dist.log_prob(batch.actions).mean()
        metrics = {"actor_loss": loss.detach()}
        if dist.rate is not None:
            loss = loss + self.config.bottleneck_const * dist.rate.mean()
            metrics["actor_rate"] = dist.rate.detach().mean()
        return Losses({"actor": loss}, metrics)
