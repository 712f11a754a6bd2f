"""Critics with known values, for comparing losses with hand-made numbers."""

from __future__ import annotations

import torch

from ofrl_robot.nets.critic import EncodedObservation


class KnownQ(torch.nn.Module):
    """One member per function of the actions (B, K, A) -> (B, K); no network, no image."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions
        self.unused = torch.nn.Parameter(torch.zeros(1))  # an optimiser wants one

    def features(self, observations):
        return tuple(torch.zeros(len(image), 1) for image in observations.values())

    def encode(self, observations):
        return EncodedObservation(torch.zeros(()), self.features(observations))

    def q(self, encoded, actions):
        return torch.stack([f(actions) for f in self.functions])

    def q_and_kl(self, encoded, actions):
        return self.q(encoded, actions), None


def table(values):
    """Functions for a list (E, B, K) of values, whatever the actions."""

    def constant(rows):
        return lambda actions: torch.tensor(rows).expand(actions.shape[:2])

    return [constant(rows) for rows in values]
