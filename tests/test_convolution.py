"""modules/layers/convolution.py equals PyTorch's convolutions in values and gradients."""


import pytest
import torch
from torch import nn

from modules.layers.convolution import Conv1d, ConvTranspose1d

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
    """Compare outputs and all gradients of two modules with the same parameters."""
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
def test_a_convolution_is_pytorchs(sizes, channels_last):
    torch.manual_seed(0)
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
