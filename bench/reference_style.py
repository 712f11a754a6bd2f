"""One image-CQL step the way the COG and workflow papers' code takes it, for comparison only.

Written from a description of that code, not copied. It computes the same losses as `ofrl_robot`
on the same networks, and spends what that style spends: images become floats on the host; every
sampled action brings its own copy of its image, which is cropped and encoded anew by every network
(3 + 2 N passes of the policy, 2 (2 + 3 N) of the critics, 2 of their targets for N samples); one
set of policy actions is never used; the target is computed with gradients and then detached; the
policy's share of the critics' gradients is computed and thrown away; there is one backward pass
and one optimiser for each network, and the targets follow in a loop over parameters.
"""

from __future__ import annotations

import copy
import math
from typing import List, Tuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

PAD = 4  # pixels of zeros around an image before it is cropped back at random


def crop(images: torch.Tensor) -> torch.Tensor:
    """Random crop of zero-padded float images (B, C, H, W), by indexing, as that code does it."""
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (PAD,) * 4)
    top, left = torch.randint(0, 2 * PAD + 1, (2, batch, 1))
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    image = torch.arange(batch)[:, None, None, None]
    return padded[image, torch.arange(channels)[None, :, None, None], rows, columns]


def flat_mlp(sizes: Tuple[int, ...]) -> nn.Sequential:
    layers: List[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ConvNet(nn.Module):
    """Crop, three 3x3 convolutions of 16 channels with pooling after two, then linear layers.

    Takes flattened images (B, 3 H W) and, for a critic, actions (B, A) beside the features.
    """

    def __init__(self, size: int, extra: int, hidden: Tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.size = size
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = flat_mlp((16 * (size // 4) ** 2 + extra,) + tuple(hidden) + (outputs,))

    def forward(self, images: torch.Tensor, *actions: torch.Tensor) -> torch.Tensor:
        cropped = crop(images.view(-1, 3, self.size, self.size))
        return self.head(torch.cat((self.convolutions(cropped).flatten(1),) + actions, 1))


class ReferenceStyle:
    """CQL(H) with N samples of each kind; :meth:`update` takes what a replay buffer holds.

    Args:
        size: of the images, (size, size, 3). actions: entries of one.
        hidden: units of the hidden layers of all heads. samples: N.
    """

    def __init__(self, size: int, actions: int, hidden: Tuple[int, ...], samples: int) -> None:
        self.entries, self.samples = actions, samples
        self.policy = ConvNet(size, 0, hidden, 2 * actions)
        self.critics = [ConvNet(size, actions, hidden, 1) for _ in range(2)]
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = torch.zeros((), requires_grad=True)
        self.policy_optimizer = torch.optim.Adam(self.policy.parameters(), lr=1e-4)
        self.critic_optimizers = [torch.optim.Adam(c.parameters(), lr=3e-4) for c in self.critics]
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=1e-4)

    def act(self, images: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """One action (B, A) for each image and its log-density (B, 1)."""
        mean, log_std = self.policy(images).chunk(2, 1)
        log_std = log_std.clamp(-5.0, 2.0)
        noise = torch.randn_like(mean)
        action = torch.tanh(mean + log_std.exp() * noise)
        density = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        return action, (density - torch.log(1.0 - action.square() + 1e-6)).sum(1, keepdim=True)

    def repeat(self, images: torch.Tensor) -> torch.Tensor:
        """Every image N times: (B, D) -> (B N, D)."""
        return images.unsqueeze(1).repeat(1, self.samples, 1).view(-1, images.shape[1])

    def update(
        self, images: np.ndarray, next_images: np.ndarray, actions: np.ndarray,
        rewards: np.ndarray, terminals: np.ndarray,
    ) -> Tuple[float, ...]:  # fmt: skip
        """One step on uint8 images (B, H, W, 3), actions (B, A), rewards and terminals (B,)."""
        count = len(images)
        obs, next_obs = (
            torch.from_numpy(x.transpose(0, 3, 1, 2).reshape(count, -1) / 255.0).float()
            for x in (images, next_images)
        )
        acts = torch.from_numpy(actions)
        reward = torch.from_numpy(rewards)[:, None]
        going_on = 1.0 - torch.from_numpy(terminals).float()[:, None]

        new_actions, log_density = self.act(obs)
        alpha_loss = -(self.log_alpha * (log_density - self.entries).detach()).mean()
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()
        alpha = self.log_alpha.exp().detach()
        best = torch.min(*[critic(obs, new_actions) for critic in self.critics])
        policy_loss = (alpha * log_density - best).mean()

        predictions = [critic(obs, acts) for critic in self.critics]
        next_actions, _ = self.act(next_obs)
        self.act(obs)  # that code draws these and does not use them
        next_value = torch.min(*[target(next_obs, next_actions) for target in self.targets])
        goal = (reward + going_on * 0.99 * next_value).detach()

        uniform = torch.rand(count * self.samples, self.entries) * 2.0 - 1.0
        here, here_density = self.act(self.repeat(obs))
        there, there_density = self.act(self.repeat(next_obs))
        critic_losses = []
        for critic, prediction in zip(self.critics, predictions):
            values = [
                critic(self.repeat(obs), uniform) + self.entries * math.log(2.0),
                critic(self.repeat(obs), there) - there_density.detach(),
                critic(self.repeat(obs), here) - here_density.detach(),
            ]
            table = torch.cat([v.view(count, self.samples) for v in values], 1)
            gap = torch.logsumexp(table, 1).mean() - prediction.mean()
            critic_losses.append((prediction - goal).square().mean() + gap)

        # The policy's loss first: today's torch refuses to go back through critics that have
        # stepped. What the critics' passes add to the policy's gradients is thrown away.
        self.policy_optimizer.zero_grad()
        policy_loss.backward(retain_graph=True)
        policy_gradients = [p.grad for p in self.policy.parameters()]
        for loss, optimizer in zip(critic_losses, self.critic_optimizers):
            self.policy_optimizer.zero_grad()
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
        for parameter, gradient in zip(self.policy.parameters(), policy_gradients):
            parameter.grad = gradient
        for optimizer in self.critic_optimizers + [self.policy_optimizer]:
            optimizer.step()
        for target, critic in zip(self.targets, self.critics):
            for old, new in zip(target.parameters(), critic.parameters()):
                old.data.copy_(old.data * 0.995 + new.data * 0.005)
        return tuple(x.item() for x in critic_losses + [policy_loss, alpha_loss])
