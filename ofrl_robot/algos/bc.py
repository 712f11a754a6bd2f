"""Behavioural cloning from pixels: minimise -log pi(a_data | s)."""

from __future__ import annotations

from ofrl_robot.algos.base import Algorithm, Losses, TensorBatch


class BC(Algorithm):
    """Maximum likelihood of a tanh-Gaussian; deployed by its mode or by sampling."""

    def losses(self, batch: TensorBatch) -> Losses:
        loss = -self.actor(batch.images).log_prob(batch.actions).mean()
        return Losses([(self.actor_optimizer, loss)], {"actor_loss": loss.detach()})
