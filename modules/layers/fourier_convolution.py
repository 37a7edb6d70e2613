"""Convolution in the frequency domain, for inference on a CPU.

Overlap-save method: Oppenheim and Schafer, Discrete-Time Signal Processing, 8.7.3. The Fourier transforms are matrix
products as well: with so few samples that is faster than an FFT, and nothing is copied between the three products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierConv1d(nn.Module):
    """The same values as a convolution whose output is as long as its input, within rounding. (L, C) -> (L, C').

    The signal is cut into windows of N samples, each of which gives N - kernel + 1 outputs. An output takes
    2·N / (N - kernel + 1) products of channels by channels in place of ``kernel``: 2.9 in place of 11, with N = 32. The
    kernel's spectrum takes 2·N / kernel times the memory of its weight.

    Args:
        conv: a convolution without stride and groups, whose output is as long as its input. Its weight is copied.
    """

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        outputs, _, kernel = conv.weight.shape
        size = max(16, 1 << (3 * kernel - 4).bit_length())  # of a window: the fastest for kernels of 3, 7 and 11
        self.size, self.kernel, self.dilation = size, kernel, conv.dilation[0]
        self.padding, self.valid = conv.padding[0], size - kernel + 1
        self.channels = outputs
        analysis = fourier_matrix(size)
        self.register_buffer("analysis", analysis.float())
        self.register_buffer("synthesis", (inverse_fourier_matrix(analysis)[: self.valid]).float().contiguous())
        spectrum = torch.einsum("fk,oik->fio", analysis[:, :kernel].float(), conv.weight.detach())
        self.register_buffer("spectrum", pair_products(spectrum))
        bias = torch.zeros(outputs) if conv.bias is None else conv.bias.detach()
        self.register_buffer("constant", bias * size)  # what the bias adds at 0 Hz

    def rows(self, length: int) -> int:
        """Return how many rows ``add_to`` needs for ``length`` samples."""
        return -(-length // self.valid) * self.valid if self.dilation == 1 else length

    def forward(self, x: Tensor, activate: nn.Module) -> Tensor:
        """Convolve ``activate`` of x (L, C): (L, C')."""
        products = self._products(x, activate)
        outputs = torch.bmm(self.synthesis.expand(len(products), -1, -1), products)
        outputs = outputs.view(self.dilation, -1, self.valid, self.channels).permute(1, 2, 0, 3)
        return outputs.reshape(-1, self.channels)[: len(x)]

    def add_to(self, total: Tensor, x: Tensor, activate: nn.Module) -> None:
        """Add the convolution of ``activate`` of x (L, C) to the first L rows of ``total`` (rows(L), C') in place.

        The other rows are changed too.
        """
        if self.dilation > 1:
            total[: len(x)] += self(x, activate)
            return
        products = self._products(x, activate)
        windows = total[: len(products) * self.valid].view(len(products), self.valid, self.channels)
        windows.baddbmm_(self.synthesis.expand(len(products), -1, -1), products)

    def _products(self, x: Tensor, activate: nn.Module) -> Tensor:
        """Return the output's spectra, one window after the other for each phase: (windows, size, C')."""
        length, channels = x.shape
        step = self.valid * self.dilation
        count = -(-length // step)
        padded = self._padded(x, activate, count * step + (self.kernel - 1) * self.dilation)
        spectra = x.new_empty(self.dilation, count, self.size, channels)
        for phase in range(self.dilation):  # a dilated kernel sees every dilation-th sample
            shape, strides = (count, self.size, channels), (step * channels, self.dilation * channels, 1)
            windows = padded[phase:].as_strided(shape, strides)
            torch.bmm(self.analysis.expand(count, -1, -1), windows, out=spectra[phase])
        spectra = spectra.view(-1, self.size // 2, 2 * channels)
        products = spectra.new_empty(len(spectra), self.size // 2, 2 * self.channels)
        torch.bmm(spectra.transpose(0, 1), self.spectrum, out=products.transpose(0, 1))
        products[:, 0, : self.channels] += self.constant
        return products.view(-1, self.size, self.channels)

    def _padded(self, x: Tensor, activate: nn.Module, rows: int) -> Tensor:
        """Return ``activate`` of x (L, C) with zeros before and behind it, (rows, C)."""
        padded = x.new_empty(rows, x.shape[1])
        padded[: self.padding], padded[self.padding + len(x) :] = 0, 0
        inside = padded[self.padding : self.padding + len(x)]
        if isinstance(activate, nn.LeakyReLU):  # spares a copy
            torch.ops.aten.leaky_relu.out(x, activate.negative_slope, out=inside)
        else:
            inside.copy_(activate(x.t()[None])[0].t())  # activations of networks take (B, C, L)
        return padded


def fourier_matrix(size: int) -> Tensor:
    """Return the real discrete Fourier transform of ``size`` samples as a matrix (size, size) in float64.

    Its rows are pairs: the frequencies 0 and ``size / 2``, which are real, then the real and the imaginary part of each
    frequency between them.
    """
    angles = 2 * math.pi / size * torch.arange(size // 2, dtype=torch.float64)[:, None] * torch.arange(size)
    real, imaginary = torch.cos(angles), -torch.sin(angles)
    imaginary[0] = torch.cos(math.pi * torch.arange(size, dtype=torch.float64))
    return torch.stack((real, imaginary), dim=1).flatten(0, 1)


def inverse_fourier_matrix(analysis: Tensor) -> Tensor:
    """Return the inverse of ``fourier_matrix``, whose rows are orthogonal."""
    return (analysis / analysis.square().sum(dim=1, keepdim=True)).t()


def pair_products(spectrum: Tensor) -> Tensor:
    """Return the matrices (size / 2, 2·C, 2·C') that multiply pairs of a signal's spectrum by a kernel's.

    ``spectrum`` (size, C, C') is the kernel's, in the rows of ``fourier_matrix``. The product is with its conjugate,
    since a convolution layer does not reverse its kernel.
    """
    real, imaginary = spectrum[::2], spectrum[1::2]
    size, inputs, outputs = spectrum.shape
    products = spectrum.new_zeros(size // 2, 2, inputs, 2, outputs)
    products[:, 0, :, 0], products[:, 1, :, 1] = real, real
    products[:, 1, :, 0], products[:, 0, :, 1] = imaginary, -imaginary
    products[0, 1, :, 1] = imaginary[0]
    products[0, 1, :, 0] = products[0, 0, :, 1] = 0
    return products.view(size // 2, 2 * inputs, 2 * outputs)
