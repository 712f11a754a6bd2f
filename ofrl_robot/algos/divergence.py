"""Per-state estimates of how far one policy is from another (Wu et al. 2019, arXiv 1911.11361).

Primal estimates compare with a behaviour policy that has densities and samples; dual ones use a
discriminator's values at policy and data actions. All are (B,), with gradient to the policy.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ofrl_robot.nets.distributions import ActionDistribution

# log b has no lower bound: one far action would outweigh a whole batch
FLOOR_PER_ENTRY = -20.0


def behavior_log_prob(behavior: ActionDistribution, actions: torch.Tensor) -> torch.Tensor:
    """Return log b (B, K) of actions (B, K, A), logarithmic below -20 in each action entry.

    A hard floor would let go of what is below it: where the data does not move an entry (b's
    log std at -5) 46 % of the samples of a policy of std 0.1 were there, without any pull.
    """
    return behavior.log_prob(actions, FLOOR_PER_ENTRY)


def kl(policy: ActionDistribution, behavior: ActionDistribution, samples: int) -> torch.Tensor:
    """Estimate KL(pi || b) = E_{a ~ pi}[log pi(a) - log b(a)].

    Both densities are taken at the action as log_prob clips it: log pi of the unclipped sample
    minus log b of the clipped one would put the KL of a wide policy from itself above 0 (measured:
    3.1 nats an entry at log_std 2, 0.03 at 1). The gradient goes through the actions and their
    weights only; that through the parameters of log pi has mean 0 (Roeder et al. 2017, arXiv
    1703.09194), but not at clipped actions.
    """
    actions, _, weights = policy.weighted_actions(samples)
    ratio = policy.detach().log_prob(actions) - behavior_log_prob(behavior, actions)
    return (weights * ratio).sum(1)


def negative_log_density(
    policy: ActionDistribution, behavior: ActionDistribution, samples: int
) -> torch.Tensor:
    """Estimate E_{a ~ pi}[-log b(a)], the KL without its entropy term."""
    actions, _, weights = policy.weighted_actions(samples)
    return -(weights * behavior_log_prob(behavior, actions)).sum(1)


def mmd(
    policy: ActionDistribution, behavior: ActionDistribution, samples: int, sigma: float
) -> torch.Tensor:
    """Estimate the squared maximum mean discrepancy with kernel exp(-|a - b|_1 / sigma).

    It is the V-statistic: it includes pairs of an action with itself, so it is never negative.
    """
    ours, _, our_weights = policy.weighted_actions(samples)
    theirs, _, their_weights = behavior.weighted_actions(samples)

    def mean_kernel(a, a_weights, b, b_weights):
        kernel = torch.exp(-(a.unsqueeze(2) - b.unsqueeze(1)).abs().sum(-1) / sigma)
        return torch.einsum("bij,bi,bj->b", kernel, a_weights, b_weights)

    return (
        mean_kernel(ours, our_weights, ours, our_weights)
        + mean_kernel(theirs, their_weights, theirs, their_weights)
        - 2.0 * mean_kernel(ours, our_weights, theirs, their_weights)
    )


def dual_kl(at_policy: torch.Tensor, at_data: torch.Tensor) -> torch.Tensor:
    """Return the f-divergence form log f(pi) - f(data) + 1, f = softplus of the discriminator.

    Its maximum over discriminators is KL(pi || b).
    """
    return torch.log(functional.softplus(at_policy) + 1e-8) - functional.softplus(at_data) + 1.0


def dual_wasserstein(at_policy: torch.Tensor, at_data: torch.Tensor) -> torch.Tensor:
    """Return the Kantorovich form f(pi) - f(data).

    Its maximum over 1-Lipschitz discriminators is the Wasserstein-1 distance.
    """
    return at_policy - at_data
