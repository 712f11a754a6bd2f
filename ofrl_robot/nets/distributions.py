"""Policies as distributions over actions in (-1, 1).

All share the interface of :class:`ActionDistribution`. Shapes: B rows, A action entries, N or K
actions per row. Densities are per row, of the whole action, in nats, float32 also under autocast.
"""

from __future__ import annotations

import math
from typing import List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn
from torch.nn import functional

LIMIT = 1.0 - 1e-5  # data actions are clipped to this when loaded; atanh of it is 6.1


def log_det_tanh(z: torch.Tensor) -> torch.Tensor:
    """Return log |d tanh(z) / dz| elementwise, exact: 2 (log 2 - z - softplus(-2 z))."""
    return 2.0 * (math.log(2.0) - z - functional.softplus(-2.0 * z))


def gaussian_log_prob(z: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Return log N(z; mean, exp(log_std)^2) elementwise."""
    unit = (z - mean) * torch.exp(-log_std)
    return -0.5 * unit * unit - log_std - 0.5 * math.log(2.0 * math.pi)


def tanh_gaussian_log_prob(
    z: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor, floor: float = -math.inf
) -> torch.Tensor:
    """Return the log-density of tanh(z), z ~ N(mean, exp(log_std)^2), summed over the last axis.

    Each entry's is lifted by :func:`above_floor`, if there is a floor.
    """
    entries = gaussian_log_prob(z, mean, log_std) - log_det_tanh(z)
    return above_floor(entries, floor).sum(-1)


def above_floor(log_prob: torch.Tensor, floor: float) -> torch.Tensor:
    """Return log-densities of which those below ``floor`` are floor - log(1 + floor - x).

    Value and slope are continuous and the slope is nowhere 0, so what lies far below is still
    pulled: along a Gaussian's tail by 2 / distance. -inf lifts nothing.
    """
    if floor == -math.inf:
        return log_prob
    return torch.maximum(log_prob, floor - torch.log1p((floor - log_prob).clamp(min=0.0)))


def atanh(actions: torch.Tensor) -> torch.Tensor:
    """Return the inverse of tanh, finite: actions are clipped to +-(1 - 1e-5)."""
    return torch.atanh(actions.clamp(-LIMIT, LIMIT))


class ActionDistribution:
    """A distribution over actions (B, A), one per row.

    Attributes:
        has_density: whether :meth:`log_prob` can be asked.
        bottleneck_kl: KL of the policy's own bottleneck (B,), None when it has none.
    """

    has_density = True
    bottleneck_kl: Optional[torch.Tensor] = None

    @property
    def mode(self) -> torch.Tensor:
        """Action (B, A) of the deterministic policy."""
        raise NotImplementedError

    def sample(
        self, count: int, generator: Optional[torch.Generator] = None
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw ``count`` actions per row (B, N, A); return them and their log-densities (B, N)."""
        raise NotImplementedError

    def weighted_actions(self, count: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return actions whose weighted mean of any f is an unbiased estimate of E f.

        Its gradient with respect to the policy is unbiased, too: continuous entries are drawn
        ``count`` times, discrete ones are enumerated.

        Returns:
            Actions (B, K, A), log-densities (B, K), and weights (B, K) with sum 1 per row.
        """
        raise NotImplementedError

    def log_prob(self, actions: torch.Tensor, floor: float = -math.inf) -> torch.Tensor:
        """Return the log-density (B,) of actions (B, A), or (B, K) of actions (B, K, A).

        Args:
            actions: as above.
            floor: lift the density of each entry by :func:`above_floor` before they are summed.
        """
        raise NotImplementedError

    def pose_log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the log-density (B,) of the continuous entries of actions (B, A) alone."""
        return self.log_prob(actions)

    def uniform(self, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw uniform actions (B, N, A) over the same space; also return log-densities (B, N)."""
        raise NotImplementedError

    def canonical(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the equivalent actions of this space: discrete entries at their levels."""
        return actions

    def detach(self) -> "ActionDistribution":
        """Return the same distribution without the policy's gradient."""
        raise NotImplementedError


class TanhGaussian(ActionDistribution):
    """Distribution of a = tanh(z), z ~ N(mean, std^2), per action entry; parameters (B, A)."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    @property
    def mode(self) -> torch.Tensor:
        """Action (B, A) of the deterministic policy."""
        return torch.tanh(self.mean)

    def sample(
        self, count: int, generator: Optional[torch.Generator] = None
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw ``count`` actions per row and their log-densities."""
        mean, log_std = self.mean.unsqueeze(1), self.log_std.unsqueeze(1)
        noise = torch.randn(
            mean.shape[0],
            count,
            mean.shape[2],
            device=mean.device,
            dtype=mean.dtype,
            generator=generator,
        )
        z = mean + log_std.exp() * noise
        return torch.tanh(z), tanh_gaussian_log_prob(z, mean, log_std)

    def weighted_actions(self, count: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``count`` draws of each row with equal weights."""
        actions, log_prob = self.sample(count)
        return actions, log_prob, torch.full_like(log_prob, 1.0 / count)

    def log_prob(self, actions: torch.Tensor, floor: float = -math.inf) -> torch.Tensor:
        """Return the log-density of actions (B, A) or (B, K, A)."""
        mean, log_std = self.mean, self.log_std
        if actions.dim() == 3:
            mean, log_std = mean.unsqueeze(1), log_std.unsqueeze(1)
        return tanh_gaussian_log_prob(atanh(actions), mean, log_std, floor)

    def uniform(self, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw uniform actions and their log-densities."""
        rows, entries = self.mean.shape
        actions = torch.rand(rows, count, entries, device=self.mean.device, dtype=self.mean.dtype)
        actions = actions * 2.0 - 1.0
        return actions, actions.new_full((rows, count), -entries * math.log(2.0))

    def detach(self) -> "TanhGaussian":
        """Return the same distribution without the policy's gradient."""
        return TanhGaussian(self.mean.detach(), self.log_std.detach())


class TanhMixture(ActionDistribution):
    """A mixture of C tanh-Gaussians; ``logits`` (B, C), ``mean`` and ``log_std`` (B, C, A)."""

    def __init__(self, logits: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> None:
        self.log_weights = logits.log_softmax(-1)
        self.mean, self.log_std = mean, log_std

    @property
    def mode(self) -> torch.Tensor:
        """Tanh of the mean of the most probable component."""
        return torch.tanh(_take(self.mean, self.log_weights.argmax(-1, keepdim=True))).squeeze(1)

    def sample(
        self, count: int, generator: Optional[torch.Generator] = None
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw actions without a gradient to the component's choice.

        Use :meth:`weighted_actions` for gradients.
        """
        component = _categorical(self.log_weights, count, generator)
        mean, log_std = _take(self.mean, component), _take(self.log_std, component)
        noise = torch.randn(mean.shape, device=mean.device, dtype=mean.dtype, generator=generator)
        z = mean + log_std.exp() * noise
        return torch.tanh(z), self._log_prob_of(z)

    def weighted_actions(self, count: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw ``count`` actions of every component, weighted by its probability."""
        mean, log_std = self.mean.repeat(1, count, 1), self.log_std.repeat(1, count, 1)
        z = mean + log_std.exp() * torch.randn_like(mean)
        weights = self.log_weights.exp().repeat(1, count) / count
        return torch.tanh(z), self._log_prob_of(z), weights

    def log_prob(self, actions: torch.Tensor, floor: float = -math.inf) -> torch.Tensor:
        """Return the log-density of actions (B, A) or (B, K, A)."""
        if actions.dim() == 2:
            return self._log_prob_of(atanh(actions).unsqueeze(1), floor).squeeze(1)
        return self._log_prob_of(atanh(actions), floor)

    def uniform(self, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw uniform actions and their log-densities."""
        return TanhGaussian(self.mean[:, 0], self.log_std[:, 0]).uniform(count)

    def detach(self) -> "TanhMixture":
        """Return the same distribution without the policy's gradient."""
        return TanhMixture(self.log_weights.detach(), self.mean.detach(), self.log_std.detach())

    def _log_prob_of(self, z: torch.Tensor, floor: float = -math.inf) -> torch.Tensor:
        """Return the log-density (B, K) of z (B, K, A) before tanh."""
        parts = tanh_gaussian_log_prob(
            z.unsqueeze(2), self.mean.unsqueeze(1), self.log_std.unsqueeze(1), floor
        )
        return torch.logsumexp(self.log_weights.unsqueeze(1) + parts, -1)


class DiscreteEntries(nn.Module):
    """The discrete entries of an action and the values of each.

    This is a module because of its buffers: they move to the device once with the network. Making
    them in every step would be a copy from the host, which a CUDA graph cannot hold.

    Args:
        size: entries of an action.
        levels: values of each discrete entry, ascending, by its position.

    Attributes:
        positions: positions of the discrete entries.
        continuous: int64, positions of the other entries.
        order: int64 (size,), position of each entry in (continuous entries, discrete entries).
        combinations: (M, D), every combination of values.
    """

    continuous: torch.Tensor
    order: torch.Tensor
    combinations: torch.Tensor

    def __init__(self, size: int, levels: Mapping[int, Sequence[float]]) -> None:
        super().__init__()
        self.positions = list(levels)
        continuous = [i for i in range(size) if i not in levels]
        joined = continuous + self.positions
        tables = [torch.tensor(values) for values in levels.values()]
        buffers = {
            "continuous": torch.tensor(continuous, dtype=torch.int64),
            "order": torch.tensor([joined.index(i) for i in range(size)]),
        }
        buffers["combinations"] = torch.cartesian_prod(*tables).reshape(-1, len(tables))
        for k, values in enumerate(tables):
            buffers[f"values{k}"] = values
            borders = (values[1:] + values[:-1]) / 2
            below = borders.nextafter(torch.tensor(-2.0))  # on a border: the level nearer to 0
            buffers[f"borders{k}"] = torch.where(borders < 0, below, borders)
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    @property
    def values(self) -> List[torch.Tensor]:
        """Values (L,) of each discrete entry."""
        return [getattr(self, f"values{k}") for k in range(len(self.positions))]

    def index(self, actions: torch.Tensor) -> List[torch.Tensor]:
        """Return the index of the level nearest to each discrete entry of actions (..., A).

        For levels -1, 0, 1 and 0, 1 the borders are the thresholds of
        :class:`~ofrl_robot.specs.ActionSpec`.
        """
        borders = [getattr(self, f"borders{k}") for k in range(len(self.positions))]
        return [
            torch.bucketize(actions[..., i].to(b.dtype).contiguous(), b)
            for i, b in zip(self.positions, borders)
        ]

    def join(self, continuous: torch.Tensor, discrete: torch.Tensor) -> torch.Tensor:
        """Return continuous and discrete entries joined in the action's order."""
        return torch.cat([continuous, discrete], -1).index_select(-1, self.order)


class MixedAction(ActionDistribution):
    """Tanh-Gaussian pose and independent categorical entries (gripper, neutral).

    A Gaussian's mean of "close now or not" is between the thresholds and does neither; the mode
    of a categorical decides. Densities are with respect to volume times counting.

    Args:
        pose: distribution of the continuous entries, in order.
        logits: one tensor (B, L_i) per discrete entry.
        entries: the discrete entries.
    """

    def __init__(
        self, pose: TanhGaussian, logits: Sequence[torch.Tensor], entries: DiscreteEntries
    ) -> None:
        self.pose, self.entries = pose, entries
        self.log_probs = [row.log_softmax(-1) for row in logits]

    @property
    def mode(self) -> torch.Tensor:
        """Action (B, A) of the deterministic policy."""
        return self._at(self.pose.mode, [p.argmax(-1) for p in self.log_probs])

    def sample(
        self, count: int, generator: Optional[torch.Generator] = None
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw actions without a gradient to the discrete entries.

        Use :meth:`weighted_actions` for gradients.
        """
        pose, log_prob = self.pose.sample(count, generator)
        index = [_categorical(p, count, generator) for p in self.log_probs]
        for log_probs, chosen in zip(self.log_probs, index):
            log_prob = log_prob + log_probs.gather(1, chosen)
        return self._at(pose, index), log_prob

    def weighted_actions(self, count: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw ``count`` poses, each with every combination of the discrete entries."""
        pose, pose_log_prob = self.pose.sample(count)
        combinations = self.entries.combinations
        number = combinations.shape[0]
        log_p = self.log_probs[0]
        for following in self.log_probs[1:]:
            log_p = (log_p.unsqueeze(2) + following.unsqueeze(1)).flatten(1)  # (B, M)
        actions = self.entries.join(
            pose.repeat_interleave(number, 1),
            combinations.repeat(count, 1).expand(pose.shape[0], -1, -1),
        )
        log_p = log_p.repeat(1, count)
        log_prob = pose_log_prob.repeat_interleave(number, 1) + log_p
        return actions, log_prob, log_p.exp() / count

    def log_prob(self, actions: torch.Tensor, floor: float = -math.inf) -> torch.Tensor:
        """Return the log-density of actions (B, A) or (B, K, A)."""
        log_prob = self.pose.log_prob(actions.index_select(-1, self.entries.continuous), floor)
        for log_probs, index in zip(self.log_probs, self.entries.index(actions)):
            log_probs = above_floor(log_probs, floor)
            if actions.dim() == 2:
                log_prob = log_prob + log_probs.gather(1, index.unsqueeze(1)).squeeze(1)
            else:
                log_prob = log_prob + log_probs.gather(1, index)
        return log_prob

    def pose_log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the log-density of the continuous entries of actions (B, A) or (B, K, A)."""
        return self.pose.log_prob(actions.index_select(-1, self.entries.continuous))

    def uniform(self, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draw uniform actions and their log-densities."""
        pose, log_prob = self.pose.uniform(count)
        index = []
        for values in self.entries.values:
            index.append(torch.randint(len(values), pose.shape[:2], device=pose.device))
            log_prob = log_prob - math.log(len(values))
        return self._at(pose, index), log_prob

    def canonical(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the actions with discrete entries at their levels."""
        return self._at(
            actions.index_select(-1, self.entries.continuous), self.entries.index(actions)
        )

    def detach(self) -> "MixedAction":
        """Return the same distribution without the policy's gradient."""
        return MixedAction(self.pose.detach(), [p.detach() for p in self.log_probs], self.entries)

    def _at(self, pose: torch.Tensor, index: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return actions with the discrete entries at these levels."""
        discrete = [values[chosen] for values, chosen in zip(self.entries.values, index)]
        return self.entries.join(pose, torch.stack(discrete, -1))


def _categorical(
    log_probs: torch.Tensor, count: int, generator: Optional[torch.Generator]
) -> torch.Tensor:
    """Draw ``count`` indices per row (B, L) -> (B, N), by the Gumbel-max trick."""
    shape = (log_probs.shape[0], count, log_probs.shape[1])
    noise = torch.empty(shape, device=log_probs.device).exponential_(generator=generator)
    return (log_probs.detach().unsqueeze(1) - noise.log()).argmax(-1)


def _take(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the rows ``index`` (B, K) of a table (B, C, A), as (B, K, A)."""
    return table.gather(1, index.unsqueeze(-1).expand(-1, -1, table.shape[-1]))
