from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from modules.layers.weight_norm import (
    SpectralNormConv1d,
    SpectralNormConv2d,
    WeightNormConv1d,
    WeightNormConv2d,
    WeightNormConvTranspose1d,
    fold_normed_weights,
)

WEIGHT_NORMED = [
    (WeightNormConv1d, nn.Conv1d, (6, 4, 5, 2, 2), (2, 6, 20)),
    (WeightNormConv2d, nn.Conv2d, (6, 4, (5, 1), (3, 1), (2, 0)), (2, 6, 20, 3)),
    (WeightNormConvTranspose1d, nn.ConvTranspose1d, (6, 4, 8, 4, 2), (2, 6, 20)),
]
SPECTRAL_NORMED = [
    (SpectralNormConv1d, nn.Conv1d, (6, 4, 5), (2, 6, 20)),
    (SpectralNormConv2d, nn.Conv2d, (6, 4, (5, 1)), (2, 6, 20, 3)),
]


def hooked(norm, conv, sizes):
    """Apply PyTorch's hook, with which the published models were saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return norm(conv(*sizes))


@pytest.mark.parametrize("ours, plain, sizes, shape", WEIGHT_NORMED)
def test_weight_norm_has_the_hooks_names_order_values_and_gradients(ours, plain, sizes, shape):
    torch.manual_seed(0)
    net, oracle = ours(*sizes), hooked(nn.utils.weight_norm, plain, sizes)
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in oracle.named_parameters()]
    with torch.no_grad():
        oracle.weight_g.mul_(torch.rand_like(oracle.weight_g) + 0.5)
    net.load_state_dict(oracle.state_dict())
    x = torch.randn(shape)
    torch.testing.assert_close(net(x), oracle(x))
    net(x).square().sum().backward()
    oracle(x).square().sum().backward()
    for got, wanted in zip(net.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ours, plain, sizes, shape", SPECTRAL_NORMED)
def test_spectral_norm_has_the_hooks_names_and_values_over_training_passes(ours, plain, sizes, shape):
    torch.manual_seed(0)
    net, oracle = ours(*sizes), hooked(nn.utils.spectral_norm, plain, sizes)
    assert list(net.state_dict()) == list(oracle.state_dict())
    net.load_state_dict(oracle.state_dict())
    x = torch.randn(shape)
    for _ in range(3):
        torch.testing.assert_close(net(x), oracle(x))
    (net(x).square().sum() + net(x).sum()).backward()
    (oracle(x).square().sum() + oracle(x).sum()).backward()
    torch.testing.assert_close(net.weight_orig.grad, oracle.weight_orig.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.eval()(x), oracle.eval()(x))


@pytest.mark.parametrize("ours, plain, sizes, shape", WEIGHT_NORMED + SPECTRAL_NORMED)
def test_folding_and_copying_change_no_output(ours, plain, sizes, shape):
    net = ours(*sizes)
    x = torch.randn(shape)
    net(x).sum().backward()
    net.eval()
    wanted = net(x)
    twin = copy.deepcopy(net)
    fold_normed_weights(twin)
    fold_normed_weights(twin)
    assert list(twin.state_dict()) == ["weight", "bias"]
    torch.testing.assert_close(twin(x), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(net(x), wanted, rtol=0, atol=0)
