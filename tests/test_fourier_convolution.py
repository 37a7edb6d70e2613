"""Convolution in the frequency domain: the values of PyTorch's convolution at every length."""

import pytest
import torch
from torch import nn

from modules.layers.fourier_convolution import FourierConv1d, fourier_matrix, inverse_fourier_matrix


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 5), (7, 3), (11, 1), (11, 5), (15, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_values_are_those_of_the_convolution(kernel, dilation, bias):
    torch.manual_seed(kernel)
    conv = nn.Conv1d(5, 8, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2, bias=bias)
    fourier, activate = FourierConv1d(conv), nn.LeakyReLU(0.1)
    conv.double()
    with torch.inference_mode():
        for length in (1, 2, kernel, 21, 22, 23, 110, 111, 500):
            x = torch.randn(2, 5, length)
            wanted = conv(activate(x.double()))
            torch.testing.assert_close(fourier(x, activate).double(), wanted, rtol=0, atol=3e-6)


def test_any_activation_comes_before_the_convolution():
    conv = nn.Conv1d(4, 4, 3, padding=1)
    x = torch.randn(1, 4, 50)
    with torch.inference_mode():
        torch.testing.assert_close(FourierConv1d(conv)(x, nn.Tanh()), conv(x.tanh()), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [16, 32])
def test_the_matrices_are_the_discrete_fourier_transform_and_its_inverse(size):
    x = torch.randn(size, dtype=torch.float64)
    pairs = torch.view_as_real(torch.fft.rfft(x))
    pairs[0, 1] = pairs[-1, 0]
    analysis = fourier_matrix(size)
    torch.testing.assert_close(analysis @ x, pairs[:-1].flatten())
    torch.testing.assert_close(inverse_fourier_matrix(analysis) @ analysis @ x, x)
