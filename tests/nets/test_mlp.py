"""Heads' layers: what is off is not there, what is on does what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ofrl_robot.nets.mlp import Bottleneck, EnsembleLinear, OutputLinear, ensemble_mlp, mlp


def kinds(module):
    return [type(layer) for layer in module]


def test_without_dropout_there_is_no_layer_for_it():
    assert kinds(mlp((3, 8, 8, 1))) == [nn.Linear, nn.ReLU] * 2 + [OutputLinear]


def test_dropout_comes_before_each_relu_and_not_after_the_last_layer():
    layers = mlp((3, 8, 8, 1), dropout=0.3)
    assert kinds(layers) == [nn.Linear, nn.Dropout, nn.ReLU] * 2 + [OutputLinear]
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.3}


@pytest.mark.slow
def test_the_last_layer_is_exact_under_autocast_and_the_others_are_not():
    torch.manual_seed(0)
    layers, x = mlp((64, 64, 2)), torch.randn(16, 64)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = layers[0](x)
        out = layers[2](hidden)
    assert hidden.dtype == torch.bfloat16 and out.dtype == torch.float32
    exact = hidden.float() @ layers[2].weight.T + layers[2].bias
    torch.testing.assert_close(out, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("block", [1, 300, 10**6])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
def test_an_exact_layer_of_an_ensemble_is_the_float32_product_of_its_bfloat16_rows(
    block, trained, monkeypatch
):
    monkeypatch.setattr("ofrl_robot.nets.mlp._BLOCK_BYTES", block)
    torch.manual_seed(0)
    layer = EnsembleLinear(2, 6, 3, exact=True)
    for member in (0, 1):
        layer.reset(member)
    layer.requires_grad_(trained)
    x = torch.randn(2, 4, 5, 6).bfloat16().requires_grad_()
    factor = torch.randn(2, 4, 5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    out.backward(factor)
    weight, bias = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias))
    rows = x.detach().float().requires_grad_()
    expected = torch.einsum("ebki,eio->ebko", rows, weight) + bias.unsqueeze(2)
    expected.backward(factor)
    assert out.dtype == torch.float32 and x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, rows.grad.bfloat16())
    if trained:
        torch.testing.assert_close(layer.weight.grad, weight.grad)
        torch.testing.assert_close(layer.bias.grad, bias.grad)
    else:
        assert layer.weight.grad is None


@pytest.fixture
def bottleneck():
    torch.manual_seed(0)
    return Bottleneck(OutputLinear(6, 8))


def gaussian_of(bottleneck, x):
    mean, log_std = bottleneck.parameters_of_z(x).chunk(2, -1)
    return torch.distributions.Normal(mean, log_std.exp())


def test_the_kl_is_that_from_a_standard_normal(bottleneck):
    x = torch.randn(5, 3, 6) * 2
    _, kl = bottleneck(x)
    normal = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    expected = torch.distributions.kl_divergence(gaussian_of(bottleneck, x), normal).sum(-1)
    assert kl.shape == (5, 3)
    torch.testing.assert_close(kl, expected)


def test_the_code_is_sampled_while_training_and_its_mean_otherwise(bottleneck):
    x = torch.randn(1, 6).expand(40000, 6)
    normal = gaussian_of(bottleneck, x)
    code, kl = bottleneck(x)
    torch.testing.assert_close(code.mean(0), normal.mean[0], rtol=0, atol=0.03)
    torch.testing.assert_close(code.std(0), normal.stddev[0], rtol=0.03, atol=0)
    bottleneck.eval()
    code, same_kl = bottleneck(x)
    assert torch.equal(code, normal.mean) and torch.equal(same_kl, kl)


def test_both_the_sample_and_the_kl_train_mean_and_spread(bottleneck):
    weight = bottleneck.parameters_of_z.weight
    for output in bottleneck(torch.randn(8, 6)):
        gradient = torch.autograd.grad(output.sum(), weight, retain_graph=True)[0]
        assert (gradient.abs().amax(1) > 1e-4).all()


def test_extreme_inputs_stay_finite(bottleneck):
    """The released code has no clamp: an exponent of 100 is infinite in float32."""
    code, kl = bottleneck(torch.full((1, 6), 1e4))
    assert torch.isfinite(code).all() and torch.isfinite(kl).all()


def test_an_ensemble_of_perceptrons_has_the_layers_of_one():
    layers = ensemble_mlp(3, (4, 8, 2), dropout=0.3)
    assert kinds(layers) == [EnsembleLinear, nn.Dropout, nn.ReLU, EnsembleLinear]
    assert layers[0].weight.shape == (3, 4, 8) and layers[0].bias.shape == (3, 1, 8)


def test_the_last_ensemble_layer_is_exact_under_autocast_and_the_others_are_not():
    layers, x = ensemble_mlp(2, (8, 8, 2)), torch.randn(2, 16, 8)
    for layer in (layers[0], layers[2]):
        for member in range(2):
            layer.reset(member)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = layers[0](x)
        out = layers[2](hidden)
    assert hidden.dtype == torch.bfloat16 and out.dtype == torch.float32
    exact = hidden.float() @ layers[2].weight + layers[2].bias
    torch.testing.assert_close(out, exact, rtol=1e-6, atol=1e-6)
