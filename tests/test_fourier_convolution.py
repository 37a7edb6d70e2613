"""Convolution in the frequency domain and upsampling by a matrix: the values of PyTorch's layers at every length."""

import pytest
import torch
from torch import nn

from modules.layers.fourier_convolution import FourierConv1d, fourier_matrix, inverse_fourier_matrix
from modules.layers.matrix_upsampling import MatrixUpsampling


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 5), (7, 3), (11, 1), (11, 5), (15, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_values_are_those_of_the_convolution(kernel, dilation, bias):
    torch.manual_seed(kernel)
    conv = nn.Conv1d(5, 8, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2, bias=bias)
    fourier, activate = FourierConv1d(conv), nn.LeakyReLU(0.1)
    conv.double()
    with torch.inference_mode():
        for length in (1, 2, kernel, 21, 22, 23, 110, 111, 500):
            x = torch.randn(length, 5)
            wanted = conv(activate(x.t()[None].double()))[0].t()
            torch.testing.assert_close(fourier(x, activate).double(), wanted, rtol=0, atol=3e-6)
            total = torch.randn(fourier.rows(length), 8)
            wanted = total[:length] + wanted
            fourier.add_to(total, x, activate)
            torch.testing.assert_close(total[:length].double(), wanted, rtol=0, atol=3e-6)


def test_any_activation_comes_before_the_convolution():
    conv = nn.Conv1d(4, 4, 3, padding=1)
    x = torch.randn(50, 4)
    with torch.inference_mode():
        wanted = conv(x.tanh().t()[None])[0].t()
        torch.testing.assert_close(FourierConv1d(conv)(x, nn.Tanh()), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [16, 32])
def test_the_matrices_are_the_discrete_fourier_transform_and_its_inverse(size):
    x = torch.randn(size, dtype=torch.float64)
    pairs = torch.view_as_real(torch.fft.rfft(x))
    pairs[0, 1] = pairs[-1, 0]
    analysis = fourier_matrix(size)
    torch.testing.assert_close(analysis @ x, pairs[:-1].flatten())
    torch.testing.assert_close(inverse_fourier_matrix(analysis) @ analysis @ x, x)


@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (4, 2), (5, 2), (7, 3), (3, 3)])
@pytest.mark.parametrize("length", [1, 2, 50])
def test_upsampling_by_a_matrix_is_the_transposed_convolution(kernel, stride, length):
    excess = kernel - stride
    padding = {"padding": (excess + 1) // 2, "output_padding": excess % 2}
    conv = nn.ConvTranspose1d(5, 3, kernel, stride, **padding)
    x = torch.randn(2, 5, length)
    with torch.inference_mode():
        torch.testing.assert_close(MatrixUpsampling(conv)(x), conv(x), rtol=0, atol=2e-6)
