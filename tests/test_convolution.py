"""modules/convolution.py: other forms of PyTorch's convolutions, whose numbers and gradients they give."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modules import convolution
from modules.convolution import Conv1d, ConvTranspose1d
from modules.normed_conv import WeightNormConv1d, WeightNormConv2d

SIZES = [
    dict(kernel_size=1),
    dict(kernel_size=1, stride=2),
    dict(kernel_size=5, padding=2),
    dict(kernel_size=7),
    dict(kernel_size=3, padding=1, dilation=2, bias=False),
    dict(kernel_size=3, padding=4, dilation=4),
    dict(kernel_size=8, stride=4, padding=2, bias=False),
    dict(kernel_size=5, padding=2, groups=2),
]


def compare(ours, plain, x):
    """Output and all gradients of two modules with the same parameters."""
    x, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, wanted = ours(x), plain(other)
    torch.testing.assert_close(got, wanted)
    weights = torch.randn_like(wanted)
    (got * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-4)
    for parameter, same in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, same.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("by_products", [False, True])
def test_a_convolution_is_pytorchs(sizes, by_products, channels_last, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(convolution, "LEAST_WORK", 0 if by_products else 1 << 22)
    ours, plain = Conv1d(4, 6, **sizes), nn.Conv1d(4, 6, **sizes)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 30)
    compare(ours, plain, x.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else x)


@pytest.mark.parametrize(
    "sizes", [dict(kernel_size=8, stride=4, padding=2), dict(kernel_size=5, stride=2, padding=2, output_padding=1)]
)
def test_a_transposed_convolution_is_pytorchs(sizes):
    torch.manual_seed(0)
    ours, plain = ConvTranspose1d(4, 6, **sizes), nn.ConvTranspose1d(4, 6, **sizes)
    plain.load_state_dict(ours.state_dict())
    compare(ours, plain, torch.randn(2, 4, 9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.randn(2, 4, 9)
        torch.testing.assert_close(ours(x).float(), plain(x).float(), rtol=0.02, atol=0.02)


class OverColumns(nn.Module):
    """A weight-normed convolution with its channels first again."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv.over_columns(x.transpose(1, 2)).transpose(1, 2)


class Columnwise(nn.Module):
    """A convolution along the columns of an image, one column of it given."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x.unsqueeze(3)).squeeze(3)


@pytest.mark.parametrize("stride, padding, length", [(1, 2, 12), (3, 2, 12), (3, 2, 13), (3, 0, 5), (2, 3, 7)])
def test_one_product_of_matrices_is_the_weight_normed_convolution(stride, padding, length):
    torch.manual_seed(0)
    flat = WeightNormConv1d(4, 6, 5, stride, padding)
    with torch.no_grad():
        flat.weight_g.mul_(torch.rand_like(flat.weight_g) + 0.5)
    x = torch.randn(3, 4, length)
    compare(OverColumns(flat), copy.deepcopy(flat), x)
    tall = WeightNormConv2d(4, 6, (5, 1), (stride, 1), (padding, 0))
    compare(OverColumns(tall), Columnwise(copy.deepcopy(tall)), x)


def test_a_product_of_matrices_in_half_precision_keeps_its_gradients_in_float32():
    torch.manual_seed(0)
    conv = WeightNormConv1d(64, 32, 5, padding=2)
    exact = conv.over_columns(x := torch.randn(2, 20, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = conv.over_columns(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)
    half.float().square().sum().backward()
    assert {parameter.grad.dtype for parameter in conv.parameters()} == {torch.float32}
    wanted = torch.autograd.grad(exact.square().sum(), list(conv.parameters()))
    for parameter, gradient in zip(conv.parameters(), wanted, strict=True):
        assert F.cosine_similarity(parameter.grad.flatten(), gradient.flatten(), dim=0) > 0.999
