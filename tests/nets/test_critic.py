"""The critic's short cuts equal the plain computation, in value and gradient (float64)."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ofrl_robot.nets.config import NetConfig
from ofrl_robot.nets.critic import Critic, QHead

CONFIG = NetConfig(latent=12, hidden=(16, 8))


def test_split_first_layer_equals_concatenation_in_value_and_gradient():
    torch.manual_seed(0)
    head = QHead(CONFIG, 12, 3).double()
    joined = nn.Linear(12 + 3, 16).double()
    with torch.no_grad():
        joined.weight.copy_(torch.cat([head.from_code.weight, head.from_action.weight], 1))
        joined.bias.copy_(head.from_code.bias)
    code = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    actions = torch.randn(5, 7, 3, dtype=torch.float64, requires_grad=True)
    both = torch.cat([code.unsqueeze(1).expand(5, 7, 12), actions], -1)

    split_q, _ = head(code, actions)
    plain_q = head.rest(torch.relu(joined(both))).squeeze(-1)
    assert split_q.shape == (5, 7) and split_q.dtype == torch.float64
    torch.testing.assert_close(split_q, plain_q, rtol=1e-10, atol=1e-10)

    weight = torch.randn(5, 7, dtype=torch.float64)
    inputs = [code, actions]
    split = [head.from_code.weight, head.from_action.weight, head.from_code.bias]
    got = torch.autograd.grad((split_q * weight).sum(), inputs + split)
    wanted = torch.autograd.grad((plain_q * weight).sum(), inputs + [joined.weight, joined.bias])
    torch.testing.assert_close(got[:2], wanted[:2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.cat(got[2:4], 1), wanted[2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[4], wanted[3], rtol=1e-10, atol=1e-10)
    assert all(g.abs().max() > 1e-6 for g in got)


def test_many_actions_at_once_equal_one_by_one():
    torch.manual_seed(0)
    critic = Critic(dataclasses.replace(CONFIG, ensemble=3), (16, 16, 3), 3).double()
    code = torch.randn(4, 12, dtype=torch.float64)
    actions = torch.randn(4, 6, 3, dtype=torch.float64)
    together = critic.q(code, actions)
    assert together.shape == (3, 4, 6)
    for row in range(4):
        for k in range(6):
            one = critic.q(code[row : row + 1], actions[row : row + 1, k : k + 1])
            torch.testing.assert_close(together[:, row, k], one[:, 0, 0], rtol=1e-10, atol=1e-10)


def test_members_of_the_ensemble_start_apart_and_near_zero():
    torch.manual_seed(0)
    critic = Critic(NetConfig(), (16, 16, 3), 3)
    images = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8)
    q = critic.q(critic.encode(images), torch.rand(6, 4, 3) * 2 - 1)
    assert (q[0] != q[1]).all() and q.abs().max() < 0.5 and q.dtype == torch.float32
